"""Rows to jobs, and jobs to rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from pgjobq.models import Job, JobStatus, NewJob, UnreadableData, trusted_job
from pgjobq.storage.holds import Claimant
from pgjobq.storage.sqlalchemy.table import jobs

# In the order of Job's fields; the claim goes with the worker.
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


def job_of(row: Sequence[Any]) -> Job:
    """The job of a row of COLUMNS. Raises InvalidJob for a status that is none."""
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
    )


def read_data(text: str) -> dict[str, Any]:
    """A job's data; UnreadableData for what is no JSON object, so that one bad job does not stop its queue."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        return UnreadableData(f"{type(error).__name__}: {error}")
    return data if isinstance(data, dict) else UnreadableData(f"is JSON, but no object: {text[:80]}")


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
    """The row of a job to be enqueued, but for the times that the clock gives."""
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
    """Rows of jobs enqueued now, each a microsecond after the one before: their order is that of created_at.

    Writing a row takes longer than a microsecond, so the last one's time has come when all are there.
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
    """The row of a job that arrives with its state."""
    job = replace(job, execute_at=job.execute_at or job.created_at)
    row = {column.name: getattr(job, column.name) for column in COLUMNS if column is not jobs.c.claim_id}
    return row | {"data": data, "status": str(job.status)}
