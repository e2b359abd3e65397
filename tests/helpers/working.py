"""What tests of the worker share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pgjobq import Job, JobQueue, JobStatus

ENDS = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)


def eventually(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Wait until a condition holds; its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.01)
    return value


def finished(queue: JobQueue, job_id: str) -> Job:
    """The job, when it has come to its end."""

    def look() -> Job | None:
        found = queue.get_job(job_id)
        assert found is not None
        return found if found.status in ENDS else None

    found = eventually(look)
    assert isinstance(found, Job)
    return found
