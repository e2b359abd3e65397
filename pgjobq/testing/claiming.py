"""Tests of dequeue, complete, fail and retry: the order of jobs, and the rule that only the holder settles a job."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from pgjobq.errors import InvalidJob, JobNotFound, LostJob
from pgjobq.models import JobStatus
from pgjobq.storage.base import BaseStorage
from pgjobq.testing.features import StorageTests
from pgjobq.testing.promises import accepted, eventually, promise, refused, same, stored, taken, unchanged

FAR = datetime(2100, 1, 1, tzinfo=UTC)
CALLS: dict[str, Callable[[BaseStorage, str], None]] = {
    "complete": lambda storage, job_id: storage.complete(job_id),
    "fail": lambda storage, job_id: storage.fail(job_id, "boom"),
    "retry": lambda storage, job_id: storage.retry(job_id, 0),
}


class ClaimingTests(StorageTests):
    """Part of StorageContract."""

    def test_higher_priority_first(self, storage: BaseStorage) -> None:
        """Jobs are ordered by priority over its whole range."""
        for priority in (5, 1, 9, -7, 100, 0, 2**31 - 1, -(2**31), 7):
            storage.enqueue(f"p{priority}", "t", {}, priority=priority)
        for priority in (2**31 - 1, 100, 9, 7, 5, 1, 0, -7, -(2**31)):
            sentence = "order: a job of higher priority is dequeued first, in whatever order the jobs were enqueued"
            taken(storage, f"p{priority}", sentence)

    def test_order_of_enqueueing(self, storage: BaseStorage) -> None:
        """Jobs of one priority are dequeued in the order of enqueueing, whatever their ids are."""
        names = ["m", "z", "a", "k", "b", "y", "c", "x"]
        for name in names:
            storage.enqueue(name, "t", {})
        for name in names:
            taken(storage, name, "order: jobs of one priority are dequeued in the order in which they were enqueued")

    def test_future_job_is_hidden(self, storage: BaseStorage) -> None:
        """A job whose execute_at is in the future is not dequeued, whatever its priority is."""
        storage.enqueue("later", "t", {}, priority=9, execute_at=FAR)
        same(storage.dequeue(), None, "due: a job whose execute_at is in the future is not dequeued")
        storage.enqueue("now", "t", {}, priority=1)
        taken(storage, "now", "due: a job whose execute_at is in the future does not delay jobs that are due")
        same(storage.dequeue(), None, "due: a job whose execute_at is in the future is not dequeued")
        same(stored(storage, "later").status, JobStatus.PENDING, "due: a job with a future execute_at is pending")

    def test_past_job_is_due(self, storage: BaseStorage) -> None:
        """A job whose execute_at is long past is due."""
        storage.enqueue("past", "t", {}, execute_at=datetime(1999, 12, 31, tzinfo=UTC))
        taken(storage, "past", "due: a job whose execute_at has passed is due at once")

    def test_future_job_falls_due(self, storage: BaseStorage) -> None:
        """A job falls due without any other call."""
        due = datetime.now(UTC) + timedelta(seconds=0.5)
        storage.enqueue("soon", "t", {}, execute_at=due)
        job = eventually(storage.dequeue, "due: a job is dequeued when its execute_at has passed", self.patience)
        same(job.id, "soon", "due: a job is dequeued when its execute_at has passed")
        promise(
            datetime.now(UTC) > due - timedelta(seconds=0.1),
            "due: a job is not dequeued before its execute_at",
            expected=due,
            found=datetime.now(UTC),
        )

    def test_earlier_due_time_first(self, storage: BaseStorage) -> None:
        """Scheduled jobs of one priority are dequeued in the order of their due times."""
        now = datetime.now(UTC)
        storage.enqueue("second", "t", {}, execute_at=now + timedelta(seconds=0.4))
        storage.enqueue("first", "t", {}, execute_at=now + timedelta(seconds=0.2))
        storage.enqueue("third", "t", {}, priority=1, execute_at=now + timedelta(seconds=0.1))
        time.sleep(0.6)  # all three are due now; if one were not, the order would still be the same
        sentence = "order: scheduled jobs of one priority are dequeued in the order of their due times"
        found = [eventually(storage.dequeue, sentence, self.patience).id for _ in range(3)]
        same(found, ["first", "second", "third"], sentence)

    def test_dequeue_starts_the_job(self, storage: BaseStorage) -> None:
        """A job that is dequeued is running and has one attempt."""
        storage.enqueue("a", "t", {})
        sentence = "dequeue: sets the job to running and adds 1 to attempts"
        for job in (taken(storage, "a"), stored(storage, "a")):
            same((job.status, job.attempts), (JobStatus.RUNNING, 1), sentence)
        same(storage.dequeue(), None, "dequeue: does not return a job that is running")

    def test_empty_storage_returns_none(self, storage: BaseStorage) -> None:
        """An empty storage has no job to return."""
        same(storage.dequeue(), None, "dequeue: returns None when there is no job")

    def test_complete(self, storage: BaseStorage) -> None:
        """A running job becomes completed."""
        storage.enqueue("a", "t", {"n": 1})
        taken(storage, "a")
        storage.complete("a")
        job = stored(storage, "a")
        same((job.status, job.attempts), (JobStatus.COMPLETED, 1), "complete: sets the status and keeps the attempts")
        same(job.data, {"n": 1}, "complete: the job keeps its data")
        same(storage.dequeue(), None, "complete: a completed job is not dequeued again")

    def test_fail(self, storage: BaseStorage) -> None:
        """A running job becomes failed and keeps the whole error."""
        error = 'ValueError: "bäd" 🎉\n  File "x.py", line 1\n' + "x" * 20_000
        storage.enqueue("a", "t", {})
        taken(storage, "a")
        storage.fail("a", error)
        job = stored(storage, "a")
        same((job.status, job.attempts), (JobStatus.FAILED, 1), "fail: sets the status and keeps the attempts")
        same(job.error, error, "fail: stores the whole error")
        same(storage.dequeue(), None, "fail: a failed job is not dequeued again")

    @pytest.mark.parametrize("error", ["", "a\0b", "a\ud800b"], ids=["empty", "NUL", "half a surrogate pair"])
    def test_fail_takes_any_text(self, storage: BaseStorage, error: str) -> None:
        """An error may contain any text. The storage may replace only the characters that its database cannot store."""
        storage.enqueue("a", "t", {})
        taken(storage, "a")
        with accepted(f"fail: accepts any text as an error, such as {error!r}"):
            storage.fail("a", error)
        job = stored(storage, "a")
        same(job.status, JobStatus.FAILED, f"fail: accepts any text as an error, such as {error!r}")
        kept = job.error or ""
        rest = "fail: stores the characters around one that cannot be stored"
        promise(kept[:1] == error[:1] and kept[-1:] == error[-1:], rest, found=kept)

    def test_retry_of_a_running_job(self, storage: BaseStorage) -> None:
        """A retried job is pending, and its next start adds 1 to attempts."""
        storage.enqueue("a", "t", {}, max_retries=0)
        for attempt in (1, 2, 3):
            sentence = "retry: makes the job due again, even after max_retries tries (the worker counts them)"
            same(taken(storage, "a", sentence).attempts, attempt, sentence)
            storage.retry("a", 0)
            job = stored(storage, "a")
            same((job.status, job.attempts), (JobStatus.PENDING, attempt), "retry: sets the status, keeps attempts")

    def test_retry_of_a_failed_job(self, storage: BaseStorage, other: BaseStorage) -> None:
        """Any storage may retry a failed job, because no storage holds it."""
        storage.enqueue("a", "t", {})
        taken(storage, "a")
        storage.fail("a", "boom")
        with accepted("retry: a failed job can be retried by any storage"):
            other.retry("a", 0)
        same(stored(storage, "a").status, JobStatus.PENDING, "retry: a failed job is pending again")
        same(taken(storage, "a").attempts, 2, "retry: a failed job keeps its attempts, and the next start adds 1")
        storage.complete("a")

    def test_retry_delay(self, storage: BaseStorage) -> None:
        """A retried job is not dequeued before its delay has passed."""
        for name in ("long", "short"):
            storage.enqueue(name, "t", {})
            taken(storage, name)
        storage.retry("long", 3600)
        before = datetime.now(UTC)
        storage.retry("short", 0.5)
        same(storage.dequeue(), None, "retry: the job is not dequeued before the delay has passed")
        job = eventually(storage.dequeue, "retry: the job is due when the delay has passed", self.patience)
        same(job.id, "short", "retry: the job is due when the delay has passed")
        waited = datetime.now(UTC) - before
        early = "retry: the job is not dequeued before the delay has passed"
        promise(waited > timedelta(seconds=0.4), early, found=waited)
        same(storage.dequeue(), None, early)

    def test_retried_job_is_ordered_by_priority(self, storage: BaseStorage) -> None:
        """Among jobs of its priority, it comes after those that fell due before it."""
        storage.enqueue("a", "t", {}, priority=5)
        taken(storage, "a")
        for name, priority in (("b", 5), ("low", 1)):
            storage.enqueue(name, "t", {}, priority=priority)
        time.sleep(0.003)  # so that databases that store milliseconds can distinguish the due times
        storage.retry("a", 0)
        for name in ("b", "a", "low"):
            taken(storage, name, "order: a retried job is ordered by its priority, then by its new due time")

    @pytest.mark.parametrize("delay", [-1, float("nan"), float("inf")])
    def test_retry_refuses_an_invalid_delay(self, storage: BaseStorage, delay: float) -> None:
        """The job does not change."""
        storage.enqueue("a", "t", {})
        taken(storage, "a")
        with (
            unchanged(storage, "a", "retry: an invalid delay changes nothing"),
            refused(InvalidJob, f"retry: a delay of {delay} seconds raises InvalidJob"),
        ):
            storage.retry("a", delay)

    @pytest.mark.parametrize("call", CALLS)
    def test_unknown_id(self, storage: BaseStorage, call: str) -> None:
        """An unknown id raises JobNotFound."""
        with refused(JobNotFound, f"unknown: {call} of an unknown id raises JobNotFound"):
            CALLS[call](storage, "nobody")
        same(storage.get_job("nobody"), None, f"unknown: {call} of an unknown id does not create a job")

    @pytest.mark.parametrize("call", ["complete", "fail"])
    def test_job_that_is_not_running_cannot_be_settled(self, storage: BaseStorage, call: str) -> None:
        """Only a running job can be completed or failed."""
        storage.enqueue("done", "t", {})
        taken(storage, "done")
        storage.complete("done")
        storage.enqueue("failed", "t", {})
        taken(storage, "failed")
        storage.fail("failed", "first")
        storage.enqueue("again", "t", {})
        taken(storage, "again")
        storage.retry("again", 3600)
        storage.enqueue("waiting", "t", {})
        storage.enqueue("scheduled", "t", {}, execute_at=FAR)
        for name in ("done", "failed", "again", "waiting", "scheduled"):
            state = stored(storage, name).status
            self._refuses(storage, storage, name, call, f"{call}: of a job that is {state}")

    def test_completed_job_is_not_retried(self, storage: BaseStorage) -> None:
        """A completed job cannot become pending again."""
        storage.enqueue("done", "t", {})
        taken(storage, "done")
        storage.complete("done")
        self._refuses(storage, storage, "done", "retry", "retry: of a job that is completed")
        same(storage.dequeue(), None, "retry: a completed job is not dequeued again")

    @pytest.mark.parametrize("call", CALLS)
    def test_only_the_holder_settles(self, storage: BaseStorage, other: BaseStorage, call: str) -> None:
        """A storage that did not dequeue the job cannot settle it."""
        storage.enqueue("a", "t", {})
        taken(storage, "a")
        self._refuses(storage, other, "a", call, f"fencing: {call} by a storage that did not dequeue the job")
        storage.complete("a")
        same(stored(storage, "a").status, JobStatus.COMPLETED, "fencing: the storage that holds the job can settle it")

    @pytest.mark.parametrize("call", CALLS)
    def test_late_settle_is_refused(self, storage: BaseStorage, other: BaseStorage, call: str) -> None:
        """The storage has given the job back, and another storage holds it now."""
        storage.enqueue("a", "t", {})
        taken(storage, "a")
        storage.retry("a", 0)
        same(taken(other, "a").attempts, 2, "fencing: another storage can dequeue a job that was given back")
        self._refuses(storage, storage, "a", call, f"fencing: {call} by a storage that has lost the job to another")
        other.complete("a")
        same(stored(storage, "a").status, JobStatus.COMPLETED, "fencing: the storage that holds the job can settle it")

    @staticmethod
    def _refuses(storage: BaseStorage, caller: BaseStorage, job_id: str, call: str, what: str) -> None:
        __tracebackhide__ = True
        with unchanged(storage, job_id, f"{what} changes nothing"), refused(LostJob, f"{what} raises LostJob"):
            CALLS[call](caller, job_id)
