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
        """Over the whole range."""
        for priority in (5, 1, 9, -7, 100, 0, 2**31 - 1, -(2**31), 7):
            storage.enqueue(f"p{priority}", "t", {}, priority=priority)
        for priority in (2**31 - 1, 100, 9, 7, 5, 1, 0, -7, -(2**31)):
            sentence = "order: a job of higher priority is dequeued first, whatever was enqueued first"
            taken(storage, f"p{priority}", sentence)

    def test_order_of_enqueueing(self, storage: BaseStorage) -> None:
        """Among jobs of one priority; ids do not matter."""
        names = ["m", "z", "a", "k", "b", "y", "c", "x"]
        for name in names:
            storage.enqueue(name, "t", {})
        for name in names:
            taken(storage, name, "order: of jobs of one priority, the one enqueued first is dequeued first")

    def test_future_job_is_hidden(self, storage: BaseStorage) -> None:
        """Whatever its priority."""
        storage.enqueue("later", "t", {}, priority=9, execute_at=FAR)
        same(storage.dequeue(), None, "due: a job whose execute_at lies ahead is not dequeued")
        storage.enqueue("now", "t", {}, priority=1)
        taken(storage, "now", "due: a job whose execute_at lies ahead does not stand before those that are due")
        same(storage.dequeue(), None, "due: a job whose execute_at lies ahead is not dequeued")
        same(stored(storage, "later").status, JobStatus.PENDING, "due: a job that waits for its time is pending")

    def test_past_job_is_due(self, storage: BaseStorage) -> None:
        """However long ago."""
        storage.enqueue("past", "t", {}, execute_at=datetime(1999, 12, 31, tzinfo=UTC))
        taken(storage, "past", "due: a job whose execute_at has passed is due at once")

    def test_future_job_falls_due(self, storage: BaseStorage) -> None:
        """Nobody has to touch it."""
        due = datetime.now(UTC) + timedelta(seconds=0.5)
        storage.enqueue("soon", "t", {}, execute_at=due)
        job = eventually(storage.dequeue, "due: a job is dequeued once its execute_at has passed", self.patience)
        same(job.id, "soon", "due: a job is dequeued once its execute_at has passed")
        promise(
            datetime.now(UTC) > due - timedelta(seconds=0.1),
            "due: a job is not dequeued before its execute_at",
            expected=due,
            found=datetime.now(UTC),
        )

    def test_earlier_due_time_first(self, storage: BaseStorage) -> None:
        """Among jobs of one priority that waited for their time."""
        now = datetime.now(UTC)
        storage.enqueue("second", "t", {}, execute_at=now + timedelta(seconds=0.4))
        storage.enqueue("first", "t", {}, execute_at=now + timedelta(seconds=0.2))
        storage.enqueue("third", "t", {}, priority=1, execute_at=now + timedelta(seconds=0.1))
        time.sleep(0.6)  # both are due then; even if not, the earlier one would come first
        sentence = "order: of jobs of one priority that waited for their time, the one due earlier is dequeued first"
        found = [eventually(storage.dequeue, sentence, self.patience).id for _ in range(3)]
        same(found, ["first", "second", "third"], sentence)

    def test_dequeue_starts_the_job(self, storage: BaseStorage) -> None:
        """It is running, with the start counted."""
        storage.enqueue("a", "t", {})
        sentence = "dequeue: sets the job running and adds one to attempts"
        for job in (taken(storage, "a"), stored(storage, "a")):
            same((job.status, job.attempts), (JobStatus.RUNNING, 1), sentence)
        same(storage.dequeue(), None, "dequeue: a running job is given to nobody else")

    def test_empty_storage_gives_none(self, storage: BaseStorage) -> None:
        """At once."""
        same(storage.dequeue(), None, "dequeue: gives None when there is no job")

    def test_complete(self, storage: BaseStorage) -> None:
        """A running job becomes completed."""
        storage.enqueue("a", "t", {"n": 1})
        taken(storage, "a")
        storage.complete("a")
        job = stored(storage, "a")
        same((job.status, job.attempts), (JobStatus.COMPLETED, 1), "complete: the job is completed, attempts stay")
        same(job.data, {"n": 1}, "complete: the data stays")
        same(storage.dequeue(), None, "complete: a completed job is not dequeued again")

    def test_fail(self, storage: BaseStorage) -> None:
        """A running job becomes failed, with the complete error."""
        error = 'ValueError: "bäd" 🎉\n  File "x.py", line 1\n' + "x" * 20_000
        storage.enqueue("a", "t", {})
        taken(storage, "a")
        storage.fail("a", error)
        job = stored(storage, "a")
        same((job.status, job.attempts), (JobStatus.FAILED, 1), "fail: the job is failed, attempts stay")
        same(job.error, error, "fail: the error is kept whole")
        same(storage.dequeue(), None, "fail: a failed job is not dequeued again")

    @pytest.mark.parametrize("error", ["", "a\0b", "a\ud800b"], ids=["empty", "NUL", "half a surrogate pair"])
    def test_fail_takes_any_text(self, storage: BaseStorage, error: str) -> None:
        """An error may contain any text. Characters that the database cannot store are replaced."""
        storage.enqueue("a", "t", {})
        taken(storage, "a")
        with accepted(f"fail: any text may be an error, {error!r} too"):
            storage.fail("a", error)
        job = stored(storage, "a")
        same(job.status, JobStatus.FAILED, f"fail: any text may be an error, {error!r} too")
        kept = job.error or ""
        promise(kept[:1] == error[:1] and kept[-1:] == error[-1:], "fail: the rest of an error is kept", found=kept)

    def test_retry_of_a_running_job(self, storage: BaseStorage) -> None:
        """Its next start counts one more."""
        storage.enqueue("a", "t", {}, max_retries=0)
        for attempt in (1, 2, 3):
            sentence = "retry: the job is due again, and each start counts (whether tries are left, Worker decides)"
            same(taken(storage, "a", sentence).attempts, attempt, sentence)
            storage.retry("a", 0)
            job = stored(storage, "a")
            same((job.status, job.attempts), (JobStatus.PENDING, attempt), "retry: the job is pending, attempts stay")

    def test_retry_of_a_failed_job(self, storage: BaseStorage, other: BaseStorage) -> None:
        """Any storage may do this, because no storage holds the job."""
        storage.enqueue("a", "t", {})
        taken(storage, "a")
        storage.fail("a", "boom")
        with accepted("retry: a failed job can be retried by any storage"):
            other.retry("a", 0)
        same(stored(storage, "a").status, JobStatus.PENDING, "retry: a failed job is pending again")
        same(taken(storage, "a").attempts, 2, "retry: a failed job keeps its attempts, the next start adds one")
        storage.complete("a")

    def test_retry_delay(self, storage: BaseStorage) -> None:
        """Hidden until the delay has passed."""
        for name in ("long", "short"):
            storage.enqueue(name, "t", {})
            taken(storage, name)
        storage.retry("long", 3600)
        before = datetime.now(UTC)
        storage.retry("short", 0.5)
        same(storage.dequeue(), None, "retry: the job is hidden until the delay has passed")
        job = eventually(storage.dequeue, "retry: the job is due once the delay has passed", self.patience)
        same(job.id, "short", "retry: the job is due once the delay has passed")
        waited = datetime.now(UTC) - before
        promise(waited > timedelta(seconds=0.4), "retry: the job is hidden until the delay has passed", found=waited)
        same(storage.dequeue(), None, "retry: the job is hidden until the delay has passed")

    def test_retried_job_takes_its_place_by_priority(self, storage: BaseStorage) -> None:
        """And behind those of its priority that are due already."""
        storage.enqueue("a", "t", {}, priority=5)
        taken(storage, "a")
        for name, priority in (("b", 5), ("low", 1)):
            storage.enqueue(name, "t", {}, priority=priority)
        time.sleep(0.003)  # so that databases that store milliseconds can distinguish the due times
        storage.retry("a", 0)
        for name in ("b", "a", "low"):
            taken(storage, name, "order: a retried job stands by its priority, then by its new due time")

    @pytest.mark.parametrize("delay", [-1, float("nan"), float("inf")])
    def test_retry_refuses_what_is_no_delay(self, storage: BaseStorage, delay: float) -> None:
        """And the job stays as it is."""
        storage.enqueue("a", "t", {})
        taken(storage, "a")
        with (
            unchanged(storage, "a", "retry: a delay that is refused changes nothing"),
            refused(InvalidJob, f"retry: a delay of {delay} seconds raises InvalidJob"),
        ):
            storage.retry("a", delay)

    @pytest.mark.parametrize("call", CALLS)
    def test_unknown_id(self, storage: BaseStorage, call: str) -> None:
        """It cannot be settled."""
        with refused(JobNotFound, f"unknown: {call} of an unknown id raises JobNotFound"):
            CALLS[call](storage, "nobody")
        same(storage.get_job("nobody"), None, f"unknown: {call} of an unknown id makes no job")

    @pytest.mark.parametrize("call", ["complete", "fail"])
    def test_job_that_does_not_run_is_not_settled(self, storage: BaseStorage, call: str) -> None:
        """Pending, scheduled, completed, failed, or pending again."""
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
            self._refuses(storage, storage, name, call, f"{call}: of a job that is {state}, not running")

    def test_completed_job_is_not_retried(self, storage: BaseStorage) -> None:
        """It is done."""
        storage.enqueue("done", "t", {})
        taken(storage, "done")
        storage.complete("done")
        self._refuses(storage, storage, "done", "retry", "retry: of a job that is completed")
        same(storage.dequeue(), None, "retry: a completed job is not dequeued again")

    @pytest.mark.parametrize("call", CALLS)
    def test_only_the_holder_settles(self, storage: BaseStorage, other: BaseStorage, call: str) -> None:
        """Another storage did not dequeue the job."""
        storage.enqueue("a", "t", {})
        taken(storage, "a")
        self._refuses(storage, other, "a", call, f"fencing: {call} by a storage that did not dequeue the job")
        storage.complete("a")
        same(stored(storage, "a").status, JobStatus.COMPLETED, "fencing: the holder settles its job")

    @pytest.mark.parametrize("call", CALLS)
    def test_late_settle_is_refused(self, storage: BaseStorage, other: BaseStorage, call: str) -> None:
        """The job was given back, and another storage has it now."""
        storage.enqueue("a", "t", {})
        taken(storage, "a")
        storage.retry("a", 0)
        same(taken(other, "a").attempts, 2, "fencing: a job that was given back is dequeued by another storage")
        self._refuses(storage, storage, "a", call, f"fencing: {call} by a storage that has lost the job to another")
        other.complete("a")
        same(stored(storage, "a").status, JobStatus.COMPLETED, "fencing: the holder settles its job")

    @staticmethod
    def _refuses(storage: BaseStorage, caller: BaseStorage, job_id: str, call: str, what: str) -> None:
        __tracebackhide__ = True
        with unchanged(storage, job_id, f"{what}, changes nothing"), refused(LostJob, f"{what}, raises LostJob"):
            CALLS[call](caller, job_id)
