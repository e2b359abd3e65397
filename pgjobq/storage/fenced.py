"""FencedStorage: the shared part of storages that fence every settle by its start.

The storage remembers the starts that it dequeued, so `complete(job_id)` is fenced, too. This module checks the
arguments of every call before the storage uses the database, so all storages raise the same errors.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pgjobq.arrival import FINISHED, final_statuses
from pgjobq.checks import (
    check_age,
    check_delay,
    check_name,
    check_names,
    check_reason,
    check_result,
    check_whole_number,
    is_name,
)
from pgjobq.errors import InvalidJob, JobNotFound, LostJob, Unsupported
from pgjobq.models import MAX_NAME, Job, JobStatus, NewJob, Which
from pgjobq.outcomes import Completed, Failed, Outcome, Pruned, Released, Retried
from pgjobq.redrive import Redrive
from pgjobq.storage.base import BaseStorage

OLDEST = timedelta(days=365_000)  # no job is older, and databases cannot represent earlier times


class FencedStorage(BaseStorage):
    """A storage that identifies each start, and settles a start only while its worker holds it.

    A subclass implements the methods below that begin with an underscore. They get only valid arguments, must be
    atomic, and must raise StorageUnavailable when the database does not answer.
    """

    max_result_bytes: int | None = 1_000_000  # of a result, as JSON; None: the database limits it

    def __init__(self) -> None:
        self._left_types: list[str] = []
        self._cancelled: Callable[[], None] = lambda: None

    # -- for subclasses --------------------------------------------------------------------------------

    @abstractmethod
    def _add(self, jobs: Sequence[NewJob]) -> None:
        """Add jobs in order, all or none. Raises DuplicateJob."""

    @abstractmethod
    def _dequeue(self, limit: int, queues: Sequence[str] | None) -> list[Job]:
        """Claim up to limit jobs of these queues (None: all), except those of _left_types. Remember the starts."""

    @abstractmethod
    def _held(self, job_id: str) -> Job | None:
        """Return the start of this job that this object holds, or None."""

    @abstractmethod
    def _settle(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Settle the starts that their workers still hold. Return the lost ones, whose jobs stay unchanged.

        Do not report a start as lost if an earlier call settled it in the same way, because only the answer of that
        call may have been lost.
        """

    @abstractmethod
    def _put_back(self, job_id: str, delay: float) -> bool:
        """Make a failed, cancelled or pending job pending, due after the delay. Return False for any other status."""

    @abstractmethod
    def _get(self, job_id: str) -> Job | None:
        """Return the job with this id, or None."""

    @abstractmethod
    def _list(self, status: JobStatus | None, limit: int | None, queue: str | None) -> list[Job]:
        """Return at most limit jobs, newest first, of one status and one queue or of all. limit is above 0."""

    @abstractmethod
    def _cancel(self, job_id: str, reason: str | None) -> bool | None:
        """Cancel a pending or running job. Return False if it was finished already, None if it does not exist.

        reason: the job's new error; None leaves the error unchanged.
        """

    def _cancel_jobs(self, which: Which, max_jobs: int | None, reason: str | None) -> int:
        """Cancel the jobs that match, the oldest first, and return how many. Here by a walk over all jobs."""
        if which.unique_key is not None:
            raise Unsupported(f"unique_key: {type(self).__name__} has no unique keys; leave it out")
        done = 0
        for job in (job for page in self.export_jobs() for job in page):
            if job.status not in FINISHED and which.matches(job):
                done += self._cancel(job.id, reason) is True
            if done == max_jobs:
                break
        return done

    @abstractmethod
    def _prune(self, older_than: timedelta, statuses: list[str], queues: list[str] | None, batch: int) -> int:
        """Delete old jobs of these final statuses and these queues (None: all). Return how many."""

    def _prune_some(self, older_than: timedelta, queues: list[str] | None, statuses: list[str]) -> Pruned:
        """Delete some of the jobs of these final statuses. A subclass may delete one batch at a time."""
        return Pruned(jobs=self.prune(older_than, statuses, queues=queues))

    # -- adding, starting and settling --------------------------------------------------------------------

    def enqueue(
        self,
        job_id: str,
        job_type: str,
        data: dict[str, Any],
        max_retries: int = 3,
        priority: int = 5,
        execute_at: datetime | None = None,
        queue: str = "default",
    ) -> None:
        """Add a pending job. Raises DuplicateJob for an id that exists, InvalidJob for an invalid value."""
        self.enqueue_many([NewJob.from_enqueue(job_id, job_type, data, max_retries, priority, execute_at, queue)])

    def enqueue_many(self, jobs: Sequence[NewJob], connection: Any = None) -> list[str]:
        """Add jobs, all or none, and return their ids in order."""
        if connection is not None:
            return super().enqueue_many(jobs, connection)
        if jobs:
            self._refuse_told(jobs)
            self._add(jobs)
        return [job.id for job in jobs]

    def dequeue(self) -> Job | None:
        """Claim the next due job of any queue. Return None if no job is due. The call makes this object a worker."""
        jobs = self.dequeue_many(1)
        return jobs[0] if jobs else None

    def dequeue_many(self, limit: int, queues: Sequence[str] | None = None) -> list[Job]:
        """Claim up to limit jobs of these queues (None: all), in the order in which they should run.

        If the answer is lost with the connection, the call raises StorageUnavailable, and the next call first releases
        the jobs of the lost one.
        """
        check_whole_number("limit", limit, 0, 2**31 - 1)
        check_names("queues", queues)
        return self._dequeue(limit, queues)

    def leave_types(self, types: Collection[str]) -> bool:
        """Claim no jobs of these types until the next call or leave(), so that they stay in line for other workers."""
        self._left_types = sorted(types)
        return True

    def complete(self, job_id: str) -> None:
        """Complete a running job that this object dequeued."""
        self._settle_held(job_id, Completed)

    def fail(self, job_id: str, error: str) -> None:
        """Fail a running job for good that this object dequeued."""
        if not isinstance(error, str):
            raise InvalidJob(f"error: {error!r} is not a string; use a string", field="error")
        self._settle_held(job_id, lambda job: Failed(job, error))

    def retry(self, job_id: str, delay_seconds: float) -> None:
        """Make a job pending that this object dequeued, or that is failed, cancelled or pending."""
        check_delay(delay_seconds, optional=False)
        can_be = self._can_be(job_id)
        if can_be and self._held(job_id) is not None:
            self._settle_held(job_id, lambda job: Retried(job, delay_seconds, None))
        elif not (can_be and self._put_back(job_id, float(delay_seconds))):
            raise self._not_held(job_id)

    def release(self, job_id: str) -> None:
        """Put back a job that was dequeued but not run. The start is not counted."""
        self._settle_held(job_id, Released)

    def settle(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Settle jobs. Return the outcomes whose job this worker has lost; those jobs are unchanged.

        After an error, it is safe to call this again: a job that is settled already does not count as lost and is not
        settled twice. On a database with row locks, raises JobsHeld if another transaction has locked some of the jobs;
        the others are settled. Raises InvalidJob for a result that is too large; nothing is settled then.
        """
        if self.max_result_bytes is not None:
            for outcome in outcomes:
                if isinstance(outcome, Completed) and outcome.result is not None:
                    check_result(outcome.result, self.max_result_bytes)
        return self._settle(outcomes) if outcomes else []

    def _settle_held(self, job_id: str, outcome: Callable[[Job], Outcome]) -> None:
        held = self._held(job_id) if self._can_be(job_id) else None
        if held is None or self.settle([outcome(held)]):
            raise self._not_held(job_id)

    def _not_held(self, job_id: str) -> JobNotFound | LostJob:
        found = self.get_job(job_id)
        if found is None:
            return _no_such_job(job_id)
        return LostJob(f"job {job_id!r} is {found.status} and not held by this worker; nothing was changed")

    # -- reading and maintenance -------------------------------------------------------------------------

    def get_job(self, job_id: str) -> Job | None:
        """Return the job with this id, or None."""
        return self._get(job_id) if self._can_be(job_id) else None

    def list_jobs(self, status: str | None = None, limit: int | None = None, queue: str | None = None) -> list[Job]:
        """Return at most limit jobs, newest first, of one status and one queue or of all."""
        wanted = None if status is None else JobStatus(status)
        if limit is not None:
            check_whole_number("limit", limit, 0, 2**31 - 1)
        if queue is not None:
            check_name("queue", queue, "the name of a queue", MAX_NAME)
        return [] if limit == 0 else self._list(wanted, limit, queue)

    def cancel(self, job_id: str, reason: str | None = None) -> bool:
        """Cancel a pending or running job. Return False if it was finished already. Raises JobNotFound.

        The worker of a running job stops its handler if it can. What the handler has done is not undone. On PostgreSQL
        the worker is notified at once. Elsewhere it finds out within about a second, or at once if it works on this
        object. reason: kept as the job's error.
        """
        check_reason(reason)
        done = self._cancel(job_id, reason) if self._can_be(job_id) else None
        if done is None:
            raise _no_such_job(job_id)
        if done:
            self._cancelled()
        return done

    def cancel_jobs(self, which: Which, max_jobs: int | None = None, reason: str | None = None) -> int:
        """Cancel the pending and running jobs that match, at most max_jobs, the oldest first; returns how many.

        Each job, or batch of jobs, is cancelled by itself. One that is just being claimed or settled may be skipped.
        """
        check_reason(reason)
        if max_jobs is not None:
            check_whole_number("max_jobs", max_jobs, 1, 2**31 - 1)
        done = self._cancel_jobs(which, max_jobs, reason)
        if done:
            self._cancelled()
        return done

    def retry_jobs(self, redrive: Redrive) -> int:
        """Retry the failed jobs that match, the oldest first; return how many. Here by a walk over all jobs."""
        for name in ("fingerprint", "data_patch"):
            if getattr(redrive, name) is not None:
                raise Unsupported(f"{name}: {type(self).__name__} has none; leave it out")
        found = [job.id for page in self.export_jobs() for job in page if redrive.matches(job)][: redrive.max_jobs]
        if redrive.dry_run:
            return len(found)
        begin = 0.0 if redrive.starting_at is None else (redrive.starting_at - datetime.now(UTC)).total_seconds()
        delays = (max(begin + redrive.spread * (n + 0.5) / len(found), 0.0) for n in range(len(found)))
        return sum(self._put_back(job_id, delay) for job_id, delay in zip(found, delays, strict=True))

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call back, in the thread that cancels, when a job was cancelled through this object."""
        self._cancelled = callback

    def prune(
        self,
        older_than: timedelta,
        statuses: Sequence[str] = ("completed", "cancelled"),
        batch: int = 1000,
        *,
        queues: Sequence[str] | None = None,
    ) -> int:
        """Delete jobs that finished longer ago than older_than, of these queues or of all. Return how many.

        batch: the largest number of jobs to delete in one step.
        """
        check_age(older_than)
        check_names("queues", queues)
        check_whole_number("batch", batch, 1, 2**31 - 1)
        final = final_statuses(statuses)
        return 0 if older_than > OLDEST else self._prune(older_than, final, _each_once(queues), batch)

    def prune_some(
        self,
        older_than: timedelta,
        queues: Sequence[str] | None = None,
        statuses: Sequence[str] = ("completed", "cancelled"),
    ) -> Pruned:
        """Delete some of the jobs of these final statuses that are older, for a worker's background pruning."""
        check_age(older_than)
        check_names("queues", queues)
        final = final_statuses(statuses)
        return Pruned() if older_than > OLDEST else self._prune_some(older_than, _each_once(queues), final)

    @staticmethod
    def _can_be(job_id: str) -> bool:
        """Return whether a job could have this id. For some invalid ids drivers would raise errors of their own."""
        return is_name("job_id", job_id, MAX_NAME)


def _each_once(names: Sequence[str] | None) -> list[str] | None:
    return None if names is None else list(dict.fromkeys(names))


def _no_such_job(job_id: str) -> JobNotFound:
    """Return the error for an id that does not exist."""
    return JobNotFound(f"there is no job {job_id!r}")
