"""Export and import jobs with their state."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime

from pgjobq.arrival import arriving, arriving_result
from pgjobq.models import Job
from pgjobq.postgres.database import Database


def exported(database: Database, batch: int) -> Iterator[list[Job]]:
    """Yield all jobs in pages, oldest first."""
    last: tuple[datetime, str] | tuple[None, None] = (None, None)
    while jobs := database.run(database.calls.export_jobs(batch, *last)):
        last = (jobs[-1].created_at, jobs[-1].id)
        yield jobs


def imported(database: Database, jobs: Sequence[Job]) -> int:
    """Add jobs in one statement. Return how many did not exist before."""
    arrivals = ",".join(_as_json(*arriving(job)) for job in jobs)
    return database.run(database.calls.import_jobs(f"[{arrivals}]"))


def _as_json(job: Job, data: str) -> str:
    values = job.to_dict()
    del values["data"], values["worker_id"], values["result"]
    return f'{json.dumps(values)[:-1]}, "data": {data}, "result": {arriving_result(job) or "null"}}}'
