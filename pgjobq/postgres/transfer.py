"""Jobs with their state, out of the database and into it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pgjobq.arrival import arriving
from pgjobq.models import Job
from pgjobq.postgres.rows import stored_job

Rows = Callable[..., list[Any]]


def exported(rows: Rows, batch: int) -> Iterator[list[Job]]:
    """Pages of all jobs, oldest first."""
    last: tuple[Any, Any] = (None, None)
    while found := rows("export_jobs", [batch, *last], binary=True):
        jobs = [stored_job(row) for row in found]
        last = (jobs[-1].created_at, jobs[-1].id)
        yield jobs


def imported(rows: Rows, jobs: Sequence[Job]) -> int:
    """Add jobs in one statement; how many were not there."""
    return int(rows("import_jobs", [f"[{','.join(_as_json(*arriving(job)) for job in jobs)}]"])[0][0])


def _as_json(job: Job, data: str) -> str:
    values = job.to_dict()
    del values["data"], values["worker_id"]
    return f'{json.dumps(values)[:-1]}, "data": {data}}}'
