"""BaseStorage: the interface between the code that handles jobs and the database that stores them.

A storage must implement seven abstract methods. A Worker can run on it then. The other methods have defaults that use
those seven, and a storage overrides them if its database can do better.

Every storage keeps these rules:

- Jobs are claimed by priority, the highest first, then by the time at which they are due, then in the order in which
  they were enqueued. A job whose execute_at is in the future is not claimed before that time.
- dequeue sets a job running and adds one to its attempts, atomically. Two callers never get the same start.
- complete and fail change only a running job that this storage dequeued. They raise JobNotFound for an unknown id, and
  LostJob for a job that was given to another worker, cancelled or settled in the meantime. Then they change nothing.
- enqueue raises DuplicateJob for an id that exists, and changes nothing.
- Naive datetimes are rejected. Returned datetimes are aware, in UTC.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from pgjobq.errors import JobNotFound, LostJob, Unsupported
from pgjobq.models import Job, JobStatus, NewJob
from pgjobq.outcomes import (
    Completed,
    Failed,
    JobTransaction,
    Maintenance,
    Outcome,
    Pruned,
    Released,
    Retried,
    status_after,
)
from pgjobq.storage.history import OptionalHistory
from pgjobq.storage.optional import OptionalFeatures
from pgjobq.storage.scheduling import OptionalSchedules
from pgjobq.storage.waiting import Waits

__all__ = [
    "BaseStorage",
    "Completed",
    "Failed",
    "JobTransaction",
    "Maintenance",
    "Outcome",
    "Pruned",
    "Released",
    "Retried",
]


class BaseStorage(OptionalFeatures, OptionalHistory, OptionalSchedules, Waits, ABC):
    """Abstract base class of storages. The module's docstring has the rules that every storage keeps."""

    keep_completed = True  # False: delete completed jobs, if the storage supports that; a Worker may set it
    suspects_alone = False  # claim a job whose worker crashed only by itself, while this object holds no other job

    @abstractmethod
    def enqueue(
        self,
        job_id: str,
        job_type: str,
        data: dict[str, Any],
        max_retries: int = 3,
        priority: int = 5,
        execute_at: datetime | None = None,
    ) -> None:
        """Add a pending job. Raises DuplicateJob for an id that exists, InvalidJob for an invalid value."""

    @abstractmethod
    def dequeue(self) -> Job | None:
        """Claim the next due job of any queue, atomically. Return None if no job is due."""

    @abstractmethod
    def complete(self, job_id: str) -> None:
        """Complete a running job. Raises JobNotFound or LostJob, and changes nothing in that case."""

    @abstractmethod
    def fail(self, job_id: str, error: str) -> None:
        """Fail a running job for good, and store the error. Raises JobNotFound or LostJob."""

    @abstractmethod
    def retry(self, job_id: str, delay_seconds: float) -> None:
        """Make a running or failed job pending, due after the delay. Raises JobNotFound or LostJob."""

    @abstractmethod
    def get_job(self, job_id: str) -> Job | None:
        """Return the job with this id, or None."""

    @abstractmethod
    def list_jobs(self, status: str | None = None, limit: int | None = None) -> list[Job]:
        """Return at most limit jobs, newest first, of one status or of all."""

    # -- defaults, built on the seven ---------------------------------------------------------------

    def enqueue_many(self, jobs: Sequence[NewJob], connection: Any = None) -> list[str]:
        """Add jobs in order, and return their ids. The default adds them one by one; a better storage adds all or none.

        connection: add the jobs in the transaction of this connection. The default raises Unsupported.
        """
        if connection is not None:
            raise Unsupported(f"{type(self).__name__} cannot enqueue on the caller's connection; leave out connection")
        self._refuse_told(jobs)
        for job in jobs:
            if job.queue != "default":
                raise Unsupported(f"queue: {type(self).__name__} has no queues; leave the queue out")
            execute_at = job.execute_at
            if job.delay is not None:
                execute_at = datetime.now().astimezone() + timedelta(seconds=job.delay)
            self.enqueue(job.id, job.type, job.data, job.max_retries, job.priority, execute_at)
        return [job.id for job in jobs]

    async def enqueue_many_async(self, jobs: Sequence[NewJob], connection: Any = None) -> list[str]:
        """Do what enqueue_many does, without blocking the event loop."""
        import asyncio  # imported here, because `import pgjobq` does not need it

        return await asyncio.to_thread(self.enqueue_many, jobs, connection)

    def dequeue_many(self, limit: int, queues: Sequence[str] | None = None) -> list[Job]:
        """Claim up to limit jobs of these queues (None: all). A storage without queues ignores queues."""
        jobs: list[Job] = []
        while len(jobs) < limit and (job := self.dequeue()) is not None:
            jobs.append(job)
        return jobs

    def settle(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Settle jobs that this storage dequeued. Return the outcomes whose job was lost; those jobs are unchanged.

        After an error, it is safe to call this again with the same outcomes: jobs that are settled already do not count
        as lost. JobsHeld names the jobs that are left because another transaction has locked their rows; the others
        are settled. After any other error, except StorageUnavailable and OSError, a Worker settles parts of the batch
        to find the outcome that causes the error.
        """
        lost: list[Outcome] = []
        for outcome in outcomes:
            try:
                self._settle_one(outcome)
            except JobNotFound:
                lost.append(outcome)
            except LostJob:
                if not self._is_settled(outcome):
                    lost.append(outcome)
        return lost

    def _is_settled(self, outcome: Outcome) -> bool:
        found = self.get_job(outcome.job.id)
        end = (status_after(outcome), outcome.job.attempts)
        return found is not None and (found.status, found.attempts) == end

    def _settle_one(self, outcome: Outcome) -> None:
        match outcome:
            case Completed(job):
                self.complete(job.id)
            case Failed(job, error):
                self.fail(job.id, error)
            case Retried(job, delay, _):
                self.retry(job.id, delay)
            case Released(job, 0):
                self.release(job.id)
            case Released(job, delay):
                self.retry(job.id, delay)

    def complete_many(self, jobs: Sequence[Job]) -> list[Job]:
        """Complete jobs that this storage dequeued. Return those that were lost."""
        return [outcome.job for outcome in self.settle([Completed(job) for job in jobs])]

    def release(self, job_id: str) -> None:
        """Put back a claimed job that was not run. The default costs the job a try; a better storage does not."""
        self.retry(job_id, 0)

    def rescue(self) -> int:
        """Put the jobs of dead workers back in line. Return how many.

        The default does nothing and returns 0, because it cannot detect dead workers.
        """
        return 0

    def maintain(self, running: Sequence[Job]) -> Maintenance:
        """Do one round of maintenance for a worker that runs these jobs: rescue, and report the jobs that it lost."""
        return Maintenance(rescued=self.rescue())

    def lost(self, running: Sequence[Job]) -> Sequence[Job]:
        """Which of these running jobs this worker has lost. Called when on_cancel's callback was."""
        return ()

    def counts(self) -> dict[JobStatus, int]:
        """Return the exact number of jobs of each status. Every status has an entry."""
        found = dict.fromkeys(JobStatus, 0)
        for job in self.list_jobs():
            found[job.status] += 1
        return found

    def export_jobs(self, batch: int = 1000) -> Iterator[list[Job]]:
        """Yield every job, oldest first, in batches. The default reads all jobs at once; a better storage reads pages.

        Jobs that are added in the meantime may be missing. Each job is as it was when it was read.
        """
        jobs = self.list_jobs()[::-1]
        for start in range(0, len(jobs), batch):
            yield jobs[start : start + batch]

    def stats(self) -> list[dict[str, Any]]:
        """Return a dict for each queue and status: queue, status, jobs, estimated, oldest_due_age (seconds)."""
        return [
            {"queue": None, "status": str(status), "jobs": jobs, "estimated": False, "oldest_due_age": None}
            for status, jobs in self.counts().items()
            if jobs
        ]

    def ping(self) -> None:
        """Connect, and check that the storage can work. Raises StorageUnavailable, or the error that prevents it."""
        self.list_jobs(limit=1)

    def wait(self, timeout: float, queues: Sequence[str] | None = None) -> bool | None:
        """Wait until there may be a job to claim, at most timeout seconds. The call may return early for no reason.

        Return False only if there is certainly no job to claim. After any other value the caller should claim.
        """
        time.sleep(min(timeout, 0.5))
        return None

    def note_load(self, busy: bool, full: bool) -> None:
        """Tell other workers, before this one waits, whether it has been running jobs for some ms, and has no room."""

    def leave_types(self, types: Collection[str]) -> bool:
        """Claim no jobs of these types until the next call, so that they stay in line for other workers.

        Return False if the storage cannot do this. A Worker then puts these jobs back with retry, which costs a try.
        """
        return False

    def wake(self) -> None:
        """Make a wait() in another thread return soon, if the storage supports that."""

    def on_watch(self, callback: Callable[[], None]) -> None:
        """Register a callback for when another worker has a job or asks to be watched, so maintain should run soon."""

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call back, in any thread, when a job that this worker runs may have been cancelled, where the storage can.

        Where it cannot, the worker finds out by maintain.
        """

    def hear_cancels(self, seconds: float) -> None:
        """Listen for cancels for this many seconds, even if no thread is in wait() because a job runs long."""

    def reopener(self) -> Callable[[], BaseStorage] | None:
        """Return a function that pickle can carry and that opens this storage in another process. None: it cannot.

        The process of an isolated handler calls it for job.transaction().
        """
        return None

    def leave(self) -> None:
        """Stop being a worker, and put the jobs that are still held back in line."""

    def close(self) -> None:
        """Close every connection."""
