"""BaseStorage: the seam between everything that handles jobs and the database that keeps them.

Seven abstract methods make a storage that a Worker runs on. The rest have defaults built on those seven,
which a storage overrides when its database can do better.

Semantics, the same for every storage:

- Higher priority first; then the time a job falls due; then the order of enqueueing. A job whose
  execute_at lies ahead is hidden until then.
- dequeue sets a job running and adds one to attempts, atomically: no two callers ever get the same start.
- complete and fail act only on a running job that this storage dequeued. An unknown id raises JobNotFound;
  a job that was given to another since, cancelled or settled otherwise raises LostJob. Nothing is changed then.
- An id that exists already raises DuplicateJob and changes nothing.
- Naive datetimes are rejected; results are aware, in UTC.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from pgjobq.errors import JobNotFound, LostJob, Unsupported
from pgjobq.models import Job, JobStatus, NewJob, Which
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


class BaseStorage(ABC):
    """Abstract base class of storages. See the module for the semantics that every storage keeps."""

    keep_completed = True  # False: delete a job when it is completed, where the storage can; a Worker may set it
    suspects_alone = False  # give out a job whose worker crashed only by itself, to a storage that holds no other job

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
        """Add a pending job. Raises DuplicateJob for an id that exists, InvalidJob for a value not allowed."""

    @abstractmethod
    def dequeue(self) -> Job | None:
        """Claim the next due job of any queue, atomically; None when there is none."""

    @abstractmethod
    def complete(self, job_id: str) -> None:
        """running -> completed. Raises JobNotFound or LostJob, and changes nothing then."""

    @abstractmethod
    def fail(self, job_id: str, error: str) -> None:
        """running -> failed for good, keeping the error. Raises JobNotFound or LostJob."""

    @abstractmethod
    def retry(self, job_id: str, delay_seconds: float) -> None:
        """Make a running or failed job pending again, due after the delay. Raises JobNotFound or LostJob."""

    @abstractmethod
    def get_job(self, job_id: str) -> Job | None:
        """The job with this id, or None."""

    @abstractmethod
    def list_jobs(self, status: str | None = None, limit: int | None = None) -> list[Job]:
        """Jobs, newest first, of one status or of all; at most limit."""

    # -- defaults, built on the seven ---------------------------------------------------------------

    def enqueue_many(self, jobs: Sequence[NewJob], connection: Any = None) -> list[str]:
        """Add jobs, in order; their ids. One by one here; all or none where the storage can.

        connection: add them in the transaction of this connection, where the storage can.
        """
        if connection is not None:
            raise Unsupported(f"{type(self).__name__} cannot enqueue on a connection of the caller's")
        self._refuse_told(jobs)
        for job in jobs:
            if job.queue != "default":
                raise Unsupported(f"queue: {type(self).__name__} has no queues; leave the queue out")
            execute_at = job.execute_at
            if job.delay is not None:
                execute_at = datetime.now().astimezone() + timedelta(seconds=job.delay)
            self.enqueue(job.id, job.type, job.data, job.max_retries, job.priority, execute_at)
        return [job.id for job in jobs]

    def _refuse_told(self, jobs: Sequence[NewJob]) -> None:
        """Raise Unsupported for a unique key or an expiry, in a storage that has neither."""
        for job in jobs:
            if job.unique_key is not None:
                raise Unsupported(f"unique_key: {type(self).__name__} has no unique keys; leave it out")
            if job.expires_at is not None:
                raise Unsupported(f"expires_at: {type(self).__name__} has no expiry; leave it out")

    async def enqueue_many_async(self, jobs: Sequence[NewJob], connection: Any = None) -> list[str]:
        """enqueue_many for an event loop, which it never blocks."""
        import asyncio  # here, for `import pgjobq` does without it

        return await asyncio.to_thread(self.enqueue_many, jobs, connection)

    def dequeue_many(self, limit: int, queues: Sequence[str] | None = None) -> list[Job]:
        """Claim up to limit jobs of these queues (None: all); a storage without queues ignores them."""
        jobs: list[Job] = []
        while len(jobs) < limit and (job := self.dequeue()) is not None:
            jobs.append(job)
        return jobs

    def settle(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Settle jobs that this storage dequeued; returns the outcomes whose job was lost (unchanged).

        Safe to repeat with the same outcomes after an error: what was settled then is not lost. JobsHeld says which are
        left, because another transaction holds their rows; the others are settled. After another error that is neither
        StorageUnavailable nor OSError a Worker settles parts of the batch, to find the outcome that causes it.
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
        """Complete jobs that this storage dequeued; returns those that were lost."""
        return [outcome.job for outcome in self.settle([Completed(job) for job in jobs])]

    def release(self, job_id: str) -> None:
        """Give back a job that was not started. Here it costs a try; a storage that can takes the start back."""
        self.retry(job_id, 0)

    def cancel(self, job_id: str, reason: str | None = None) -> bool:
        """pending or running -> cancelled; False when it was finished already. Raises JobNotFound.

        reason: kept as the job's error; None leaves the error as it is.
        """
        raise Unsupported(f"{type(self).__name__} cannot cancel jobs")

    def cancel_jobs(self, which: Which, max_jobs: int | None = None, reason: str | None = None) -> int:
        """Cancel the pending and running jobs that match, at most max_jobs, the oldest first; returns how many.

        Not all or none: each job, or batch of jobs, is cancelled by itself.
        """
        raise Unsupported(f"{type(self).__name__} cannot cancel jobs")

    def pause(self, kind: str, name: str, until: datetime | None = None, reason: str | None = None) -> None:
        """Start no more jobs of a queue or a type (kind), until resume or until a time. See JobQueue.pause_queue."""
        raise Unsupported(f"{type(self).__name__} cannot pause queues and types")

    def resume(self, kind: str, name: str) -> bool:
        """Start jobs of a queue or a type (kind) again; False when it was not paused."""
        raise Unsupported(f"{type(self).__name__} cannot pause queues and types")

    def pauses(self) -> list[dict[str, Any]]:
        """What is paused, a dict each: kind, name, paused_at, paused_until, paused_by, reason. Here nothing is."""
        return []

    def prune(
        self,
        older_than: timedelta,
        statuses: Sequence[str] = ("completed", "cancelled"),
        *,
        queues: Sequence[str] | None = None,
    ) -> int:
        """Delete jobs that finished longer ago than older_than, of these queues or of all; returns how many."""
        raise Unsupported(f"{type(self).__name__} cannot prune jobs")

    def prune_some(self, older_than: timedelta, queues: Sequence[str] | None = None) -> Pruned:
        """Delete some of the completed and cancelled jobs that are older, in the background of a worker. Here all.

        queues: those that the worker serves; jobs of others are not its to delete.
        """
        return Pruned(jobs=self.prune(older_than) if queues is None else self.prune(older_than, queues=queues))

    def rescue(self) -> int:
        """Put the jobs of dead workers back in line; returns how many. Here 0: it cannot know who is dead."""
        return 0

    def maintain(self, running: Sequence[Job]) -> Maintenance:
        """One round of maintenance for a worker that runs these jobs: rescue, and find out which it lost."""
        return Maintenance(rescued=self.rescue())

    def lost(self, running: Sequence[Job]) -> Sequence[Job]:
        """Which of these running jobs this worker has lost. Called when on_cancel's callback was."""
        return ()

    def counts(self) -> dict[JobStatus, int]:
        """How many jobs there are of each status, all statuses named; exact."""
        found = dict.fromkeys(JobStatus, 0)
        for job in self.list_jobs():
            found[job.status] += 1
        return found

    def export_jobs(self, batch: int = 1000) -> Iterator[list[Job]]:
        """Every job, oldest first, in batches. Here all are in memory at once; a storage that can reads them by pages.

        Jobs that are added meanwhile may be missing; those that change are as they were when they were read.
        """
        jobs = self.list_jobs()[::-1]
        for start in range(0, len(jobs), batch):
            yield jobs[start : start + batch]

    def import_jobs(self, jobs: Sequence[Job]) -> int:
        """Add jobs with their state, all or none; those whose id exists are left as they are. How many were added.

        A job that was running is running nowhere here: it is pending, with its attempts kept, or failed when its
        tries are used up. Raises InvalidJob for what this storage does not take.
        """
        raise Unsupported(f"{type(self).__name__} cannot take in jobs with their state")

    def stats(self) -> list[dict[str, Any]]:
        """Jobs by queue and status, a dict each: queue, status, jobs, estimated, oldest_due_age (seconds)."""
        return [
            {"queue": None, "status": str(status), "jobs": jobs, "estimated": False, "oldest_due_age": None}
            for status, jobs in self.counts().items()
            if jobs
        ]

    def workers(self) -> list[dict[str, Any]]:
        """Registered workers, a dict each: id, name, queues, started_at, alive, asleep, running. Here none."""
        return []

    def ping(self) -> None:
        """Connect, and see that this storage can work here. Raises StorageUnavailable, or what else is wrong."""
        self.list_jobs(limit=1)

    def wait(self, timeout: float, queues: Sequence[str] | None = None) -> bool | None:
        """Wait until there may be a job to claim, at most timeout seconds; may return early for no reason.

        False: there is surely nothing to claim. Anything else: the caller should look.
        """
        time.sleep(min(timeout, 0.5))
        return None

    def note_load(self, busy: bool, full: bool) -> None:
        """A worker's word to the others before it waits: it has been running jobs for some ms; it has no room."""

    def leave_types(self, types: Collection[str]) -> bool:
        """Give out no jobs of these types until the next call: they stay in line for other workers.

        False: this storage gives out jobs of every type. Then a Worker puts one back for a while by retry, which costs
        the job a try.
        """
        return False

    def unserved_types(self) -> list[dict[str, Any]]:
        """Types of due jobs that no live worker takes, a dict each: queue, type, jobs. Here none: it cannot know."""
        return []

    def wake(self) -> None:
        """Make a wait() in another thread return soon, where the storage can."""

    def on_watch(self, callback: Callable[[], None]) -> None:
        """Call back when another worker has a job, or asks to be looked after: maintain should run soon."""

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call back, in any thread, when a job that this worker runs may have been cancelled, where the storage can.

        Where it cannot, the worker finds out by maintain.
        """

    def hear_cancels(self, seconds: float) -> None:
        """Hear of cancels for so many seconds, also if no thread is in wait(): a job runs long, or there is no room."""

    def transaction(self, job: Job) -> JobTransaction:
        """A transaction that completes the job when it commits; see Job.transaction in the worker."""
        raise Unsupported(f"{type(self).__name__} has no transactions to settle a job in")

    def leave(self) -> None:
        """Stop being a worker, in good order: jobs still held go back in line."""

    def close(self) -> None:
        """Let go of every connection."""
