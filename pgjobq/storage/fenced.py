"""FencedStorage: what storages share whose settles are fenced, each by the start that it belongs to.

Such a storage remembers the starts that it dequeued, so that `complete(job_id)` is fenced, too. The arguments of every
call are checked here, in the same words for all, before anything is asked of the database.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from pgjobq.arrival import FINISHED
from pgjobq.checks import check_age, check_delay, check_name, check_names, check_reason, check_whole_number, is_name
from pgjobq.errors import InvalidJob, JobNotFound, LostJob
from pgjobq.models import MAX_NAME, Job, JobStatus, NewJob, Which
from pgjobq.outcomes import Completed, Failed, Outcome, Pruned, Released, Retried
from pgjobq.storage.base import BaseStorage

OLDEST = timedelta(days=365_000)  # no job is older, and no database's time goes back further


class FencedStorage(BaseStorage):
    """A storage that tells each start from every other, and settles it while it is held.

    A subclass has dequeue_many, and the methods below that begin with an underscore: they are given nothing but what is
    allowed, do their work atomically, and raise StorageUnavailable when their database does not answer.
    """

    def __init__(self) -> None:
        self._left_types: list[str] = []
        self._cancelled: Callable[[], None] = lambda: None

    # -- what a subclass does --------------------------------------------------------------------------

    @abstractmethod
    def _add(self, jobs: Sequence[NewJob]) -> None:
        """Add jobs in order, all or none. Raises DuplicateJob."""

    @abstractmethod
    def _dequeue(self, limit: int, queues: Sequence[str] | None) -> list[Job]:
        """Claim up to limit jobs of these queues (None: all), not of _left_types, and remember the starts."""

    @abstractmethod
    def _held(self, job_id: str) -> Job | None:
        """The start of this job that this object holds, or None."""

    @abstractmethod
    def _settle(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Settle the starts that their workers still hold; those that were lost, unchanged.

        A start that was settled the same way before is not lost: the answer may have been.
        """

    @abstractmethod
    def _put_back(self, job_id: str, delay: float) -> bool:
        """failed, cancelled or pending -> pending, due after the delay; False when it is in no such state."""

    @abstractmethod
    def _get(self, job_id: str) -> Job | None:
        """The job with this id, or None."""

    @abstractmethod
    def _list(self, status: JobStatus | None, limit: int | None, queue: str | None) -> list[Job]:
        """Jobs, newest first, of one status and one queue or of all; at most limit, which is above 0."""

    @abstractmethod
    def _cancel(self, job_id: str, reason: str | None) -> bool | None:
        """pending or running -> cancelled; False when it was finished already, None when it is not there.

        reason: the job's error from now on; None leaves the error as it is.
        """

    def _cancel_jobs(self, which: Which, max_jobs: int | None, reason: str | None) -> int:
        """Cancel the jobs that match, the oldest first; how many. Here one by one, by a walk over all jobs."""
        done = 0
        for job in (job for page in self.export_jobs() for job in page):
            if job.status not in FINISHED and which.matches(job):
                done += self._cancel(job.id, reason) is True
            if done == max_jobs:
                break
        return done

    @abstractmethod
    def _prune(self, older_than: timedelta, statuses: list[str], queues: list[str] | None, batch: int) -> int:
        """Delete jobs of these statuses, which are final, and queues (None: all); how many."""

    def _prune_some(self, older_than: timedelta, queues: list[str] | None) -> Pruned:
        """Delete some of the completed and cancelled jobs. A subclass may do it bit by bit."""
        return Pruned(jobs=self.prune(older_than, queues=queues))

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
        """Add a pending job. Raises DuplicateJob for an id that exists, InvalidJob for a value not allowed."""
        self.enqueue_many([NewJob.from_enqueue(job_id, job_type, data, max_retries, priority, execute_at, queue)])

    def enqueue_many(self, jobs: Sequence[NewJob], connection: Any = None) -> list[str]:
        """Add jobs, all or none; their ids, in order."""
        if connection is not None:
            return super().enqueue_many(jobs, connection)
        if jobs:
            self._refuse_told(jobs)
            self._add(jobs)
        return [job.id for job in jobs]

    def dequeue(self) -> Job | None:
        """Claim the next due job of any queue; None when there is none. Makes this object a worker."""
        jobs = self.dequeue_many(1)
        return jobs[0] if jobs else None

    def dequeue_many(self, limit: int, queues: Sequence[str] | None = None) -> list[Job]:
        """Claim up to limit jobs of these queues (None: all), in the order in which they should run.

        When the answer is lost with the connection, StorageUnavailable is raised, and the next call first gives
        back what the lost one may have claimed.
        """
        check_whole_number("limit", limit, 0, 2**31 - 1)
        check_names("queues", queues)
        return self._dequeue(limit, queues)

    def leave_types(self, types: Collection[str]) -> bool:
        """Give out no jobs of these types until the next call, or leave(): they stay in line for other workers."""
        self._left_types = sorted(types)
        return True

    def complete(self, job_id: str) -> None:
        """running -> completed, for a job that this object dequeued."""
        self._settle_held(job_id, Completed)

    def fail(self, job_id: str, error: str) -> None:
        """running -> failed for good, for a job that this object dequeued."""
        if not isinstance(error, str):
            raise InvalidJob(f"error: {error!r} is not a string; use a string", field="error")
        self._settle_held(job_id, lambda job: Failed(job, error))

    def retry(self, job_id: str, delay_seconds: float) -> None:
        """Make a job pending again: one that this object dequeued, or one that is failed, cancelled or pending."""
        check_delay(delay_seconds, optional=False)
        can_be = self._can_be(job_id)
        if can_be and self._held(job_id) is not None:
            self._settle_held(job_id, lambda job: Retried(job, delay_seconds, None))
        elif not (can_be and self._put_back(job_id, float(delay_seconds))):
            raise self._not_held(job_id)

    def release(self, job_id: str) -> None:
        """Give back a job that was dequeued but not started; the start is not counted."""
        self._settle_held(job_id, Released)

    def settle(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Settle jobs; returns the outcomes whose job this worker has lost (unchanged).

        Safe to repeat after an error: what was settled before is not lost, and not settled twice. Raises JobsHeld,
        where the database has row locks, when another transaction holds some of the jobs; the others are settled.
        """
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

    # -- looking after jobs ------------------------------------------------------------------------------

    def get_job(self, job_id: str) -> Job | None:
        """The job with this id, or None."""
        return self._get(job_id) if self._can_be(job_id) else None

    def list_jobs(self, status: str | None = None, limit: int | None = None, queue: str | None = None) -> list[Job]:
        """Jobs, newest first, of one status and one queue or of all; at most limit."""
        wanted = None if status is None else JobStatus(status)
        if limit is not None:
            check_whole_number("limit", limit, 0, 2**31 - 1)
        if queue is not None:
            check_name("queue", queue, "the name of a queue", MAX_NAME)
        return [] if limit == 0 else self._list(wanted, limit, queue)

    def cancel(self, job_id: str, reason: str | None = None) -> bool:
        """pending or running -> cancelled; False when it was finished already. Raises JobNotFound.

        The worker of a running job stops its handler if it can; what that did so far stays done. On PostgreSQL it is
        notified at once. Elsewhere it finds out within about a second, and at once if it works on this object. reason:
        kept as the job's error.
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
        """Delete jobs that finished longer ago than older_than, of these queues or of all; returns how many.

        batch: at most so many are deleted in one step.
        """
        check_age(older_than)
        check_names("queues", queues)
        check_whole_number("batch", batch, 1, 2**31 - 1)
        final = _final_statuses(statuses)
        return 0 if older_than > OLDEST else self._prune(older_than, final, _each_once(queues), batch)

    def prune_some(self, older_than: timedelta, queues: Sequence[str] | None = None) -> Pruned:
        """Delete some of the completed and cancelled jobs that are older, in the background of a worker."""
        check_age(older_than)
        check_names("queues", queues)
        return Pruned() if older_than > OLDEST else self._prune_some(older_than, _each_once(queues))

    @staticmethod
    def _can_be(job_id: str) -> bool:
        """Whether a job could have this id; drivers refuse some others in words of their own."""
        return is_name("job_id", job_id, MAX_NAME)


def _each_once(names: Sequence[str] | None) -> list[str] | None:
    return None if names is None else list(dict.fromkeys(names))


def _final_statuses(statuses: Sequence[str]) -> list[str]:
    """The statuses of jobs to prune, each once. Raises InvalidJob for one that is not final."""
    check_names("statuses", statuses)
    found = [JobStatus(status) for status in dict.fromkeys(statuses)]
    for status in found:
        if status not in FINISHED:
            raise InvalidJob(
                f"statuses: {str(status)!r} is not final; give some of {', '.join(FINISHED)}", field="statuses"
            )
    return [str(status) for status in found]


def _no_such_job(job_id: str) -> JobNotFound:
    """The error for an id that is not there."""
    return JobNotFound(f"there is no job {job_id!r}")
