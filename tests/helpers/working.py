"""Shared helpers for the tests of the worker."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from helpers.until import until
from pgjobq import Job, JobQueue, JobStatus

ENDS = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)


def finished(queue: JobQueue, job_id: str) -> Job:
    """Wait until the job has finished, and return it."""

    def look() -> Job | None:
        found = queue.get_job(job_id)
        assert found is not None
        return found if found.status in ENDS else None

    found = until(look)
    assert isinstance(found, Job)
    return found


def status(conn: psycopg.Connection[Any], job_id: str) -> Any:
    """Return (status, attempts) of a job."""
    return conn.execute("select status, attempts from pgjobq.jobs where id = %s", [job_id]).fetchone()


def logged(caplog: pytest.LogCaptureFixture, event: str) -> list[Any]:
    """Return the log records of this event."""
    return [record for record in caplog.records if getattr(record, "event", "") == event]
