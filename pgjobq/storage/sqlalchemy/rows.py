"""Convert rows to jobs, and jobs to rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from pgjobq.models import Job, JobStatus, NewJob, UnreadableData, trusted_job
from pgjobq.storage.holds import Claimant
from pgjobq.storage.results import read_result
from pgjobq.storage.sqlalchemy.table import jobs

# The columns are in the order of Job's fields. claim_id is part of the worker's id.
COLUMNS = (
    jobs.c.id,
    jobs.c.type,
    jobs.c.data,
    jobs.c.status,
    jobs.c.queue,
    jobs.c.priority,
    jobs.c.attempts,
    jobs.c.max_retries,
    jobs.c.execute_at,
    jobs.c.error,
    jobs.c.created_at,
    jobs.c.updated_at,
    jobs.c.started_at,
    jobs.c.finished_at,
    jobs.c.failed_at,
    jobs.c.worker_id,
    jobs.c.claim_id,
    jobs.c.crashes,
)
_STATUSES = {str(status): status for status in JobStatus}
_MICROSECOND = timedelta(microseconds=1)


def job_of(row: Sequence[Any], result: str | None = None) -> Job:
    """Convert a row of COLUMNS to a job, and its result, which is JSON. Raises InvalidJob for an invalid status."""
    id_, type_, data, status, queue, priority, attempts, max_retries, execute_at, error, created_at, *rest = row
    *times, worker_id, claim_id, crashes = rest
    return trusted_job(
        id_,
        type_,
        read_data(data),
        _STATUSES.get(status) or JobStatus(status),
        queue,
        priority,
        attempts,
        max_retries,
        None if execute_at == created_at else execute_at,
        error,
        created_at,
        *times,
        Claimant.stored(worker_id, claim_id),
        crashes=crashes,
        result=read_result(result),
    )


def read_data(text: str) -> dict[str, Any]:
    """Parse a job's data. Return UnreadableData if it is not a JSON object, so that it does not stop the queue."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        return UnreadableData(f"{type(error).__name__}: {error}")
    return data if isinstance(data, dict) else UnreadableData(f"it is JSON but not an object: {text[:80]}")


NEW_COLUMNS = (
    "id",
    "type",
    "data",
    "status",
    "queue",
    "priority",
    "attempts",
    "max_retries",
    "execute_at",
    "created_at",
    "updated_at",
)


def new_row(job: NewJob) -> dict[str, Any]:
    """Return the row of a new job, without the times that the clock gives."""
    return {
        "id": job.id,
        "type": job.type,
        "data": job.json,
        "status": "pending",
        "queue": job.queue,
        "priority": job.priority,
        "attempts": 0,
        "max_retries": job.max_retries,
        "execute_at": job.execute_at,
    }


def new_rows(new: Sequence[NewJob], now: datetime) -> list[dict[str, Any]]:
    """Return the rows of jobs that are enqueued now. Each created_at is a microsecond later, which keeps their order.

    Writing a row takes longer than a microsecond, so no created_at is in the future once all rows are written.
    """
    rows: list[dict[str, Any]] = []
    for job in new:
        row = new_row(job)
        if job.execute_at is None:
            row["execute_at"] = now + timedelta(seconds=job.delay or 0)
        row["created_at"] = row["updated_at"] = now
        rows.append(row)
        now += _MICROSECOND
    return rows


def row_of(job: Job, data: str) -> dict[str, Any]:
    """Return the row of a job that is imported with its state."""
    job = replace(job, execute_at=job.execute_at or job.created_at)
    row = {column.name: getattr(job, column.name) for column in COLUMNS if column is not jobs.c.claim_id}
    return row | {"data": data, "status": str(job.status)}
