"""What one call waits for: jobs, and until when."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pgjobq.arrival import FINISHED
from pgjobq.checks import check_name, check_names
from pgjobq.errors import MAX_DELAY, InvalidJob, JobNotFound, WaitTimeout
from pgjobq.events import current_job
from pgjobq.models import MAX_NAME, Job

LOOK_MIN, LOOK_MAX = 0.005, 0.5  # seconds between two looks, where nothing notifies


class Awaited:
    """The jobs of one wait, and those that have ended. Raises InvalidJob for invalid arguments."""

    def __init__(self, ids: Sequence[str], timeout: float) -> None:
        check_names("ids", ids)
        for job_id in ids:
            if not isinstance(job_id, str):
                check_name("job_id", job_id, "the id of a job", MAX_NAME)
        number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
        if not number or not 0 <= timeout <= MAX_DELAY:
            raise InvalidJob(
                f"timeout: {timeout!r} is not allowed; use seconds from 0 to {MAX_DELAY:.0f}", field="timeout"
            )
        self.ids, self.timeout = list(ids), timeout
        self._deadline = time.monotonic() + timeout
        self._ended: dict[str, Job] = {}
        self._pause = LOOK_MIN

    @property
    def waiting(self) -> list[str]:
        """The ids of the jobs that have not ended."""
        return [job_id for job_id in dict.fromkeys(self.ids) if job_id not in self._ended]

    @property
    def jobs(self) -> list[Job]:
        """The jobs that have ended, in the order of the ids."""
        return [self._ended[job_id] for job_id in self.ids if job_id in self._ended]

    @property
    def left(self) -> float:
        """The seconds that are left, at least 0."""
        return max(0.0, self._deadline - time.monotonic())

    def found(self, job_id: str, job: Job | None) -> None:
        """Take note of a job. Raises JobNotFound if it does not exist."""
        if job is None:
            raise no_such_job(job_id)
        if job.status in FINISHED:
            self._ended[job_id] = job

    def pause(self) -> float:
        """Return the seconds until the next look. Raises WaitTimeout if the time is over."""
        if not (left := self.left):
            raise self.timed_out()
        pause = min(self._pause, left)
        self._pause = min(self._pause * 2, LOOK_MAX)
        return pause

    def timed_out(self, why: str = "") -> WaitTimeout:
        """Return the error for the end of the time."""
        first, *others = self.waiting
        more = f" and {len(others)} more" if others else ""
        if current_job() is not None:
            why += "; a handler that waits for a job of its own worker needs a free slot there"
        return WaitTimeout(
            f"job {first!r}{more} did not end within {self.timeout:g} seconds{why}",
            ended=self.jobs,
            waiting=self.waiting,
        )


def no_such_job(job_id: str) -> JobNotFound:
    """Return the error for a job that does not exist, or is deleted while a call waits for it."""
    return JobNotFound(
        f"there is no job {job_id!r}: it was not enqueued, or not committed yet, or it was deleted, as a worker with"
        " keep=0 deletes each job that completes"
    )
