"""Tests of the methods beyond the seven abstract ones: release, cancel, prune, counts, queues."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from pgjobq.errors import DuplicateJob, InvalidJob, JobNotFound, LostJob
from pgjobq.handlers import Registry
from pgjobq.models import JobStatus, NewJob, Which
from pgjobq.storage.base import BaseStorage
from pgjobq.testing.features import StorageTests, needs
from pgjobq.testing.promises import accepted, eventually, ids, promise, refused, same, stored, taken, unchanged
from pgjobq.worker import Worker

FAR, PAST = datetime(2100, 1, 1, tzinfo=UTC), datetime(2001, 1, 1, tzinfo=UTC)


class MoreTests(StorageTests):
    """Part of StorageContract."""

    def test_release(self, storage: BaseStorage) -> None:
        """The job is due again at once, with what it had."""
        storage.enqueue("a", "t", {"n": 1})
        taken(storage, "a")
        storage.release("a")
        job = stored(storage, "a")
        same((job.status, job.data), (JobStatus.PENDING, {"n": 1}), "release: the job is pending again")
        taken(storage, "a", "release: the job is due at once")

    @needs("releases")
    def test_release_takes_the_start_back(self, storage: BaseStorage) -> None:
        """It was never run."""
        storage.enqueue("a", "t", {})
        for _ in range(3):
            same(taken(storage, "a").attempts, 1, "release: the start is not counted")
            storage.release("a")
            same(stored(storage, "a").attempts, 0, "release: the start is not counted")

    @needs("releases")
    def test_release_only_by_the_holder(self, storage: BaseStorage, other: BaseStorage) -> None:
        """A job that is not held is not given back."""
        with refused(JobNotFound, "unknown: release of an unknown id raises JobNotFound"):
            storage.release("nobody")
        storage.enqueue("a", "t", {})
        with refused(LostJob, "release: of a job that is pending raises LostJob"):
            storage.release("a")
        taken(storage, "a")
        with (
            unchanged(storage, "a", "fencing: release by a storage that did not dequeue the job changes nothing"),
            refused(LostJob, "fencing: release by a storage that did not dequeue the job raises LostJob"),
        ):
            other.release("a")

    @needs("cancels")
    def test_cancel(self, storage: BaseStorage) -> None:
        """A pending or running job becomes cancelled. A finished job is unchanged."""
        storage.enqueue_many([NewJob(id=name, type="t") for name in ("running", "done", "failed", "pending")])
        storage.enqueue("scheduled", "t", {}, execute_at=FAR)
        for name in ("running", "done", "failed"):
            taken(storage, name)
        storage.complete("done")
        storage.fail("failed", "boom")
        for name in ("pending", "scheduled", "running"):
            promise(storage.cancel(name) is True, f"cancel: of a job that is {name} returns True")
            same(stored(storage, name).status, JobStatus.CANCELLED, f"cancel: a job that was {name} is cancelled")
        for name in ("done", "failed", "pending"):
            with unchanged(storage, name, "cancel: a job that was finished stays as it is"):
                promise(storage.cancel(name) is False, "cancel: of a job that was finished returns False", job=name)
        same(storage.dequeue(), None, "cancel: a cancelled job is not dequeued")
        with refused(JobNotFound, "unknown: cancel of an unknown id raises JobNotFound"):
            storage.cancel("nobody")

    @needs("cancels")
    def test_cancelled_job_is_lost_to_its_worker(self, storage: BaseStorage, other: BaseStorage) -> None:
        """Also when another has started it since."""
        storage.enqueue("a", "t", {})
        held = taken(storage, "a")
        other.cancel("a")
        with unchanged(storage, "a", "fencing: a job that was cancelled is not changed by its worker"):
            same(storage.complete_many([held]), [held], "fencing: a job that was cancelled is lost to its worker")
        other.retry("a", 0)
        same(taken(other, "a", "retry: a cancelled job is pending again").attempts, 2, "retry: each start counts")
        with (
            unchanged(storage, "a", "fencing: a job that another has started is not changed by its first worker"),
            refused(LostJob, "fencing: a job that another has started is lost to its first worker"),
        ):
            storage.complete("a")
        other.complete("a")

    @needs("reasons")
    def test_cancel_keeps_its_reason(self, storage: BaseStorage) -> None:
        """As the job's error; without one the error stays as it was."""
        for name in ("running", "failed", "pending"):
            storage.enqueue(name, "t", {})
        taken(storage, "running")
        taken(storage, "failed")
        storage.fail("failed", "boom")
        storage.retry("failed", 3600)
        for name in ("running", "pending"):
            with accepted("cancel: takes a reason"):
                storage.cancel(name, "wanted no more: é")
            job = stored(storage, name)
            same(
                (job.status, job.error),
                (JobStatus.CANCELLED, "wanted no more: é"),
                "cancel: keeps its reason as the error",
            )
        storage.cancel("failed")
        promise("boom" in (stored(storage, "failed").error or ""), "cancel: without a reason the error stays as it was")
        bad: list[Any] = ["", "x" * 1001, 7, "a\0b"]
        for reason in bad:
            with refused(InvalidJob, "cancel: a reason that is no text of 1 to 1000 characters raises InvalidJob"):
                storage.cancel("nobody", reason)

    @needs("cancels_many")
    def test_cancel_jobs(self, storage: BaseStorage) -> None:
        """Pending and running jobs that match, the oldest first; at most so many."""
        for name in ("running", "done", "failed"):
            storage.enqueue(name, "mail", {})
            taken(storage, name)
        storage.complete("done")
        storage.fail("failed", "boom")
        for n in range(4):
            storage.enqueue(f"mail-{n}", "mail", {})
        storage.enqueue("later", "mail", {}, execute_at=FAR)
        storage.enqueue("other", "print", {})
        same(storage.cancel_jobs(Which(type="none")), 0, "cancel_jobs: cancels no job of another type")
        same(storage.cancel_jobs(Which(created_before=PAST)), 0, "cancel_jobs: cancels no job that is too young")
        same(storage.cancel_jobs(Which(type="mail"), 2, "too many"), 2, "cancel_jobs: returns how many it cancelled")
        cancelled = ids(storage.list_jobs("cancelled"))
        same(sorted(cancelled), ["mail-0", "running"], "cancel_jobs: cancels the oldest first, and at most max_jobs")
        same(stored(storage, "mail-0").error, "too many", "cancel_jobs: keeps its reason as the error")
        same(storage.cancel_jobs(Which(type="mail", created_before=FAR)), 4, "cancel_jobs: cancels all that match")
        same(stored(storage, "other").status, JobStatus.PENDING, "cancel_jobs: leaves what does not match")
        same(stored(storage, "done").status, JobStatus.COMPLETED, "cancel_jobs: leaves what has finished")
        for most in (0, -1, 1.5, True):
            with refused(InvalidJob, "cancel_jobs: a max_jobs that is no whole number above 0 raises InvalidJob"):
                storage.cancel_jobs(Which(type="print"), most)  # type: ignore[arg-type]  # some are no int

    @needs("cancels_many", "queues", "batches")
    def test_cancel_jobs_of_a_queue(self, storage: BaseStorage) -> None:
        """More than a batch of them."""
        new = [NewJob(type="t", queue=("mail", "default")[n % 2]) for n in range(3 * self.jobs)]
        with accepted("enqueue_many"):
            storage.enqueue_many(new)
        found = storage.cancel_jobs(Which(queue="mail"))
        same(found, len(new[::2]), "cancel_jobs: cancels every job of a queue")
        left = {job.queue for job in storage.list_jobs("pending")}
        same(left, {"default"}, "cancel_jobs: of a queue cancels no job of another")

    @needs("cancels", "notices")
    def test_maintain_finds_what_was_lost(self, storage: BaseStorage, other: BaseStorage) -> None:
        """Among the jobs that a worker says it runs."""
        storage.enqueue_many([NewJob(id=name, type="t") for name in "abc"])
        a, b, c = storage.dequeue_many(3)
        same(list(storage.maintain([a, b, c]).lost), [], "maintain: a job that is held is not lost")
        other.cancel("b")
        found = ids(storage.maintain([a, b, c]).lost)
        same(found, ["b"], "maintain: tells a worker which of its running jobs it has lost")
        if type(storage).lost is not BaseStorage.lost:
            same(ids(storage.lost([a, b, c])), ["b"], "lost: tells a worker which of its running jobs it has lost")

    @needs("prunes")
    def test_prune(self, storage: BaseStorage) -> None:
        """Jobs that finished long enough ago, of the statuses asked for."""
        storage.enqueue_many([NewJob(id=name, type="t") for name in ("done", "failed", "running", "pending")])
        for name in ("done", "failed", "running"):
            taken(storage, name)
        storage.complete("done")
        storage.fail("failed", "boom")
        same(storage.prune(timedelta(hours=1)), 0, "prune: keeps what finished more recently than older_than")
        same(storage.prune(timedelta(0)), 1, "prune: returns how many jobs were deleted")
        same(storage.get_job("done"), None, "prune: deletes completed jobs")
        found = sorted(ids(storage.list_jobs()))
        same(found, ["failed", "pending", "running"], "prune: deletes nothing of other statuses than those named")
        same(storage.prune(timedelta(0), ["failed"]), 1, "prune: deletes failed jobs when they are named")
        same(sorted(ids(storage.list_jobs())), ["pending", "running"], "prune: never deletes what is not finished")
        storage.enqueue("done", "t", {})
        same(stored(storage, "done").attempts, 0, "prune: the id of a job that was deleted is free again")

    @needs("prunes")
    def test_prune_refuses_what_it_cannot_mean(self, storage: BaseStorage) -> None:
        """And deletes nothing."""
        storage.enqueue_many([NewJob(id=name, type="t") for name in ("done", "pending")])
        taken(storage, "done")
        storage.complete("done")
        with refused(InvalidJob, "prune: an age below 0 raises InvalidJob"):
            storage.prune(timedelta(seconds=-1))
        for status in ("pending", "running", "finished"):
            with refused(InvalidJob, "prune: a status that is not final raises InvalidJob"):
                storage.prune(timedelta(0), ["completed", status])
        same(len(storage.list_jobs()), 2, "prune: a call that is refused deletes nothing")

    @needs("prunes", "queues")
    def test_prune_of_queues(self, storage: BaseStorage) -> None:
        """Only those that are named."""
        self.complete_in(storage, "ours", "theirs", "others")
        same(storage.prune(timedelta(0), queues=["ours"]), 1, "prune: returns how many jobs were deleted")
        left = "prune: deletes jobs of the queues that are named, and no others"
        same(sorted(ids(storage.list_jobs())), ["others", "theirs"], left)
        same(storage.prune(timedelta(0), queues=[]), 0, "prune: without any queue nothing is deleted")
        eventually(
            lambda: storage.prune_some(timedelta(0), queues=["theirs"]).jobs, "prune_some: deletes jobs", self.patience
        )
        same(ids(storage.list_jobs()), ["others"], f"prune_some: {left}")
        same(storage.prune(timedelta(0)), 1, "prune: without queues those of all are deleted")

    @needs("prunes", "queues")
    def test_worker_prunes_what_it_serves(self, storage: BaseStorage) -> None:
        """The workers of other queues decide how long the jobs of those queues are kept."""
        self.complete_in(storage, "ours", "theirs")
        worker = Worker(storage, queues=["ours"], registry=Registry(), keep=timedelta(0))
        worker.start()
        try:
            sentence = "worker: deletes the jobs of its queues that are past their age"
            eventually(lambda: storage.get_job("ours") is None, sentence, self.patience)
        finally:
            worker.stop(grace=0)
        same(ids(storage.list_jobs()), ["theirs"], "worker: deletes no job of a queue that it does not serve")

    def complete_in(self, storage: BaseStorage, *queues: str) -> None:
        """A completed job in each of these queues, with its name."""
        storage.enqueue_many([NewJob(id=queue, type="t", queue=queue) for queue in queues])
        jobs = storage.dequeue_many(len(queues))
        same(storage.complete_many(jobs), [], "complete_many: completes what is held")
        sentence = "list_jobs: completed gives the jobs of that status"
        eventually(lambda: len(storage.list_jobs("completed")) == len(queues), sentence, self.patience)

    def test_counts(self, storage: BaseStorage) -> None:
        """Every status is named."""
        same(storage.counts(), dict.fromkeys(JobStatus, 0), "counts: names every status, with 0 where there is none")
        storage.enqueue_many([NewJob(id=name, type="t") for name in "abcde"])
        storage.enqueue("later", "t", {}, execute_at=FAR)
        for name in "abc":
            taken(storage, name)
        storage.complete("a")
        storage.fail("b", "boom")
        expected = {"pending": 3, "running": 1, "completed": 1, "failed": 1, "cancelled": 0}
        same({str(status): n for status, n in storage.counts().items()}, expected, "counts: counts each job once")

    @needs("queues")
    def test_queues(self, storage: BaseStorage) -> None:
        """Only those asked for; priority holds over all of them."""
        new = [("a5", "a", 5), ("b9", "b", 9), ("a7", "a", 7), ("c8", "c", 8)]
        storage.enqueue_many([NewJob(id=name, type="t", queue=queue, priority=p) for name, queue, p in new])
        list_jobs: Any = storage.list_jobs
        same(ids(list_jobs(queue="b")), ["b9"], "queues: list_jobs gives the jobs of one queue")
        same(storage.dequeue_many(9, ["d"]), [], "queues: dequeue_many gives jobs of the queues asked for alone")
        sentence = "queues: dequeue_many gives jobs of the queues asked for alone, the highest priority of all first"
        same(ids(storage.dequeue_many(2, ["a", "b"])), ["b9", "a7"], sentence)
        same(ids(storage.dequeue_many(9)), ["c8", "a5"], "queues: None stands for all of them")
        same(stored(storage, "c8").queue, "c", "queues: a job keeps its queue")

    @needs("queues")
    def test_an_id_is_unique_over_all_queues(self, storage: BaseStorage) -> None:
        """get_job knows no queue."""
        storage.enqueue_many([NewJob(id="a", type="t", queue="x")])
        with refused(DuplicateJob, "queues: an id that exists in another queue raises DuplicateJob"):
            storage.enqueue_many([NewJob(id="a", type="t", queue="y")])

    def test_wait_is_bounded(self, storage: BaseStorage) -> None:
        """wait returns after its timeout at the latest, and the caller claims again."""
        began = time.monotonic()
        storage.wait(0.2)
        waited = time.monotonic() - began
        promise(waited < self.patience / 3, "wait: returns after its timeout at the latest", timeout=0.2, waited=waited)

    def test_ping_and_leave(self, storage: BaseStorage) -> None:
        """ping raises nothing if the storage works, and leave puts back the held jobs if the storage can."""
        storage.ping()
        storage.enqueue("a", "t", {})
        taken(storage, "a")
        storage.leave()
        if self.shows("rescues", storage):
            same(stored(storage, "a").status, JobStatus.PENDING, "leave: jobs still held go back in line")
            taken(storage, "a", "leave: a storage that left can dequeue again")
