"""Convert rows to jobs, and jobs to the arguments of the SQL functions that enqueue."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from pgjobq.errors import InvalidJob
from pgjobq.models import Job, JobStatus, NewJob, UnreadableData, trusted_job
from pgjobq.postgres.statements import JOB_COLUMNS

*_COLUMNS, _ = JOB_COLUMNS.replace("::text", "").split(", ")
_COLUMNS.append("result")
_ORDER = ("type", "json", "priority", "execute_at", "delay", "max_retries", "queue", "id")
_DELAY = _ORDER.index("delay")
# json.loads without its checks for encodings and spaces, which take longer than the parsing.
_scan: Callable[[str, int], tuple[Any, int]] = vars(json.JSONDecoder())["scan_once"]


def check_sizes(jobs: Sequence[NewJob], max_data_bytes: int | None) -> None:
    """Raise InvalidJob if the data of a job has more than max_data_bytes."""
    for job in jobs:
        if max_data_bytes is not None and (size := len(job.json.encode())) > max_data_bytes:
            raise InvalidJob(
                f"data: it has {size} bytes, more than max_data_bytes = {max_data_bytes};"
                " store the large part elsewhere and enqueue a reference to it",
                field="data",
            )


def arguments_of(job: NewJob) -> list[Any]:
    """Return the arguments of enqueue_job for this job."""
    return [getattr(job, name) for name in _ORDER]


def lists_of(jobs: Sequence[NewJob]) -> list[Any]:
    """Return the arguments of enqueue_jobs: a list for each field."""
    arguments: list[Any] = [[getattr(job, name) for job in jobs] for name in _ORDER]
    # psycopg refuses a list that mixes ints and floats.
    arguments[_DELAY] = [None if delay is None else float(delay) for delay in arguments[_DELAY]]
    return arguments


def stored_job(row: Sequence[Any]) -> Job:
    """Convert a row of get_job or list_jobs."""
    values = dict(zip(_COLUMNS, row, strict=True))
    return Job(**values | {"data": read_data(values["data"]), "result": read_result(values["result"])})


def claimed_jobs(rows: Sequence[Sequence[Any]], worker_id: int) -> tuple[list[Job], str]:
    """Convert the rows of claim_jobs to starts and the word that says what the claim skipped, or ''.

    That word is in an extra last row without an id.
    """
    skipped = ""
    if rows and rows[-1][1] is None:
        skipped, rows = str(rows[-1][2]), rows[:-1]
    jobs: list[Job] = []
    for row in rows:
        claim_id, id_, queue, type_, data, priority, attempts, max_retries, execute_at, error = row[:10]
        created_at, started_at, crashes = row[10:]
        job = trusted_job(
            id_,
            type_,
            read_data(data),
            JobStatus.RUNNING,
            queue,
            priority,
            attempts,
            max_retries,
            execute_at,
            error,
            created_at,
            started_at,
            started_at,
            None,
            None,
            worker_id,
            claim_id=claim_id,
            crashes=crashes,
        )
        jobs.append(job)
    return jobs, skipped


def read_data(text: str) -> dict[str, Any]:
    """Parse a job's data. Return UnreadableData if Python cannot parse it, so that one bad job does not stop its queue.

    PostgreSQL accepts deeper nesting and longer numbers than Python.
    """
    try:
        data: dict[str, Any] = _scan(text, 0)[0]
    except (ValueError, RecursionError) as error:
        return UnreadableData(f"{type(error).__name__}: {error}")
    return data


def read_result(text: str | None) -> Any:
    """Parse a job's result. Return UnreadableData, as read_data does, if Python cannot parse it."""
    return None if text is None else read_data(text)
