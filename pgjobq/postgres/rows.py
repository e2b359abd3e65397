"""Rows to jobs, and jobs to the arguments of the enqueue statements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pgjobq.errors import InvalidJob
from pgjobq.models import Job, JobStatus, NewJob
from pgjobq.postgres.statements import JOB_COLUMNS

_COLUMNS = JOB_COLUMNS.split(", ")
_ORDER = ("type", "json", "priority", "execute_at", "delay", "max_retries", "queue", "id")


def enqueue_call(jobs: Sequence[NewJob], max_data_bytes: int | None) -> tuple[str, list[Any]]:
    """The statement that enqueues these jobs, by its name, and its arguments."""
    for job in jobs:
        if max_data_bytes is not None and (size := len(job.json.encode())) > max_data_bytes:
            raise InvalidJob(
                f"data: has {size} bytes, more than max_data_bytes = {max_data_bytes};"
                " store the bulk elsewhere and enqueue a reference",
                field="data",
            )
    if len(jobs) == 1:
        return "enqueue_job", [getattr(jobs[0], name) for name in _ORDER]
    return "enqueue_jobs", [[getattr(job, name) for job in jobs] for name in _ORDER]


def stored_job(row: Sequence[Any]) -> Job:
    """A job as get_job and list_jobs give it."""
    return Job(**dict(zip(_COLUMNS, row, strict=True)))


def claimed_job(row: Sequence[Any], worker_id: int) -> Job:
    """A start as claim_jobs gives it."""
    _, id_, queue, type_, data, priority, attempts, max_retries, execute_at, error, created_at, started_at = row
    return Job(
        id=id_,
        queue=queue,
        type=type_,
        data=data,
        status=JobStatus.RUNNING,
        priority=priority,
        attempts=attempts,
        max_retries=max_retries,
        execute_at=execute_at,
        error=error,
        created_at=created_at,
        updated_at=started_at,
        started_at=started_at,
        worker_id=worker_id,
    )
