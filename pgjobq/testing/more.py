"""Tests of the methods that a storage may add to the seven abstract ones: release, cancel, prune, counts, queues."""

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
        """A released job is due at once and keeps its data."""
        storage.enqueue("a", "t", {"n": 1})
        taken(storage, "a")
        storage.release("a")
        job = stored(storage, "a")
        same((job.status, job.data), (JobStatus.PENDING, {"n": 1}), "release: the job is pending again")
        taken(storage, "a", "release: the job is due at once")

    @needs("releases")
    def test_release_does_not_count_the_start(self, storage: BaseStorage) -> None:
        """A released start is not counted, because the handler was not run."""
        storage.enqueue("a", "t", {})
        for _ in range(3):
            same(taken(storage, "a").attempts, 1, "release: subtracts the start from attempts")
            storage.release("a")
            same(stored(storage, "a").attempts, 0, "release: subtracts the start from attempts")

    @needs("releases")
    def test_release_only_by_the_holder(self, storage: BaseStorage, other: BaseStorage) -> None:
        """Only the storage that holds a job can release it."""
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
        """A pending or running job becomes cancelled. A finished job does not change."""
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
            with unchanged(storage, name, "cancel: does not change a finished job"):
                promise(storage.cancel(name) is False, "cancel: of a finished job returns False", job=name)
        same(storage.dequeue(), None, "cancel: a cancelled job is not dequeued")
        with refused(JobNotFound, "unknown: cancel of an unknown id raises JobNotFound"):
            storage.cancel("nobody")

    @needs("cancels")
    def test_cancelled_job_is_lost_to_its_worker(self, storage: BaseStorage, other: BaseStorage) -> None:
        """A worker has lost a cancelled job, even after another worker has started the job again."""
        storage.enqueue("a", "t", {})
        held = taken(storage, "a")
        other.cancel("a")
        with unchanged(storage, "a", "fencing: the former holder does not change a cancelled job"):
            same(storage.complete_many([held]), [held], "fencing: the former holder has lost a cancelled job")
        other.retry("a", 0)
        same(taken(other, "a", "retry: a cancelled job is pending again").attempts, 2, "dequeue: counts each start")
        with (
            unchanged(storage, "a", "fencing: the first holder does not change a job that another storage has started"),
            refused(LostJob, "fencing: the first holder has lost a job that another storage has started"),
        ):
            storage.complete("a")
        other.complete("a")

    @needs("reasons")
    def test_cancel_stores_its_reason(self, storage: BaseStorage) -> None:
        """The reason becomes the job's error. Without a reason the job keeps its error."""
        for name in ("running", "failed", "pending"):
            storage.enqueue(name, "t", {})
        taken(storage, "running")
        taken(storage, "failed")
        storage.fail("failed", "boom")
        storage.retry("failed", 3600)
        for name in ("running", "pending"):
            with accepted("cancel: accepts a reason"):
                storage.cancel(name, "no longer needed: é")
            job = stored(storage, name)
            same(
                (job.status, job.error),
                (JobStatus.CANCELLED, "no longer needed: é"),
                "cancel: stores its reason as the error",
            )
        storage.cancel("failed")
        promise("boom" in (stored(storage, "failed").error or ""), "cancel: without a reason, the job keeps its error")
        bad: list[Any] = ["", "x" * 1001, 7, "a\0b"]
        for reason in bad:
            with refused(InvalidJob, "cancel: an invalid reason raises InvalidJob"):
                storage.cancel("nobody", reason)

    @needs("cancels_many")
    def test_cancel_jobs(self, storage: BaseStorage) -> None:
        """cancel_jobs cancels the pending and running jobs that match, the oldest first, and at most max_jobs."""
        for name in ("running", "done", "failed"):
            storage.enqueue(name, "mail", {})
            taken(storage, name)
        storage.complete("done")
        storage.fail("failed", "boom")
        for n in range(4):
            storage.enqueue(f"mail-{n}", "mail", {})
        storage.enqueue("later", "mail", {}, execute_at=FAR)
        storage.enqueue("other", "print", {})
        same(storage.cancel_jobs(Which(type="none")), 0, "cancel_jobs: does not cancel jobs of another type")
        same(storage.cancel_jobs(Which(created_before=PAST)), 0, "cancel_jobs: does not cancel younger jobs")
        same(storage.cancel_jobs(Which(type="mail"), 2, "too many"), 2, "cancel_jobs: returns how many it cancelled")
        cancelled = ids(storage.list_jobs("cancelled"))
        same(sorted(cancelled), ["mail-0", "running"], "cancel_jobs: cancels the oldest first, and at most max_jobs")
        same(stored(storage, "mail-0").error, "too many", "cancel_jobs: stores its reason as the error")
        same(storage.cancel_jobs(Which(type="mail", created_before=FAR)), 4, "cancel_jobs: cancels all jobs that match")
        same(stored(storage, "other").status, JobStatus.PENDING, "cancel_jobs: does not cancel jobs that do not match")
        same(stored(storage, "done").status, JobStatus.COMPLETED, "cancel_jobs: does not change finished jobs")
        for most in (0, -1, 1.5, True):
            with refused(InvalidJob, "cancel_jobs: max_jobs raises InvalidJob unless it is a whole number above 0"):
                storage.cancel_jobs(Which(type="print"), most)  # type: ignore[arg-type]  # some are not ints

    @needs("cancels_many", "queues", "batches")
    def test_cancel_jobs_of_a_queue(self, storage: BaseStorage) -> None:
        """cancel_jobs also cancels more jobs than fit into one batch."""
        new = [NewJob(type="t", queue=("mail", "default")[n % 2]) for n in range(3 * self.jobs)]
        with accepted("enqueue_many: accepts jobs of several queues"):
            storage.enqueue_many(new)
        found = storage.cancel_jobs(Which(queue="mail"))
        same(found, len(new[::2]), "cancel_jobs: cancels every job of the queue")
        left = {job.queue for job in storage.list_jobs("pending")}
        same(left, {"default"}, "cancel_jobs: does not cancel jobs of another queue")

    @needs("cancels", "notices")
    def test_maintain_finds_lost_jobs(self, storage: BaseStorage, other: BaseStorage) -> None:
        """maintain returns those of the worker's running jobs that the worker has lost."""
        storage.enqueue_many([NewJob(id=name, type="t") for name in "abc"])
        a, b, c = storage.dequeue_many(3)
        same(list(storage.maintain([a, b, c]).lost), [], "maintain: does not return a job that the storage holds")
        other.cancel("b")
        found = ids(storage.maintain([a, b, c]).lost)
        same(found, ["b"], "maintain: returns the running jobs that the worker has lost")
        if type(storage).lost is not BaseStorage.lost:
            same(ids(storage.lost([a, b, c])), ["b"], "lost: returns the running jobs that the worker has lost")

    @needs("prunes")
    def test_prune(self, storage: BaseStorage) -> None:
        """prune deletes jobs of the given statuses that finished long enough ago."""
        storage.enqueue_many([NewJob(id=name, type="t") for name in ("done", "failed", "running", "pending")])
        for name in ("done", "failed", "running"):
            taken(storage, name)
        storage.complete("done")
        storage.fail("failed", "boom")
        same(storage.prune(timedelta(hours=1)), 0, "prune: keeps jobs that finished more recently than older_than")
        same(storage.prune(timedelta(0)), 1, "prune: returns the number of deleted jobs")
        same(storage.get_job("done"), None, "prune: deletes completed jobs")
        found = sorted(ids(storage.list_jobs()))
        same(found, ["failed", "pending", "running"], "prune: deletes only jobs of the given statuses")
        same(storage.prune(timedelta(0), ["failed"]), 1, "prune: deletes failed jobs if the statuses include failed")
        same(sorted(ids(storage.list_jobs())), ["pending", "running"], "prune: does not delete unfinished jobs")
        storage.enqueue("done", "t", {})
        same(stored(storage, "done").attempts, 0, "prune: the id of a deleted job can be used again")

    @needs("prunes")
    def test_prune_refuses_invalid_arguments(self, storage: BaseStorage) -> None:
        """prune refuses an invalid age or status, and deletes nothing."""
        storage.enqueue_many([NewJob(id=name, type="t") for name in ("done", "pending")])
        taken(storage, "done")
        storage.complete("done")
        with refused(InvalidJob, "prune: a negative age raises InvalidJob"):
            storage.prune(timedelta(seconds=-1))
        for status in ("pending", "running", "finished"):
            with refused(InvalidJob, "prune: a status that is not final raises InvalidJob"):
                storage.prune(timedelta(0), ["completed", status])
        same(len(storage.list_jobs()), 2, "prune: a refused call deletes nothing")

    @needs("prunes", "queues")
    def test_prune_of_queues(self, storage: BaseStorage) -> None:
        """prune and prune_some delete only jobs of the given queues."""
        self.complete_in(storage, "ours", "theirs", "others")
        same(storage.prune(timedelta(0), queues=["ours"]), 1, "prune: returns the number of deleted jobs")
        sentence = "deletes only jobs of the given queues"
        same(sorted(ids(storage.list_jobs())), ["others", "theirs"], f"prune: {sentence}")
        same(storage.prune(timedelta(0), queues=[]), 0, "prune: deletes nothing if the list of queues is empty")
        eventually(
            lambda: storage.prune_some(timedelta(0), queues=["theirs"]).jobs, "prune_some: deletes jobs", self.patience
        )
        same(ids(storage.list_jobs()), ["others"], f"prune_some: {sentence}")
        same(storage.prune(timedelta(0)), 1, "prune: deletes jobs of every queue unless queues are given")

    @needs("prunes", "queues")
    def test_worker_prunes_the_queues_it_serves(self, storage: BaseStorage) -> None:
        """The workers of other queues decide how long the jobs of those queues are kept."""
        self.complete_in(storage, "ours", "theirs")
        worker = Worker(storage, queues=["ours"], registry=Registry(), keep=timedelta(0))
        worker.start()
        try:
            sentence = "worker: deletes old jobs of its queues"
            eventually(lambda: storage.get_job("ours") is None, sentence, self.patience)
        finally:
            worker.stop(grace=0)
        same(ids(storage.list_jobs()), ["theirs"], "worker: does not delete jobs of a queue that it does not serve")

    def complete_in(self, storage: BaseStorage, *queues: str) -> None:
        """Add a completed job to each of these queues. The id of the job is the name of the queue."""
        storage.enqueue_many([NewJob(id=queue, type="t", queue=queue) for queue in queues])
        jobs = storage.dequeue_many(len(queues))
        same(storage.complete_many(jobs), [], "complete_many: completes the jobs that the storage holds")
        sentence = "list_jobs: with the status completed, returns the completed jobs"
        eventually(lambda: len(storage.list_jobs("completed")) == len(queues), sentence, self.patience)

    def test_counts(self, storage: BaseStorage) -> None:
        """counts has an entry for every status."""
        same(storage.counts(), dict.fromkeys(JobStatus, 0), "counts: has an entry for every status, even if it is 0")
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
        """list_jobs and dequeue_many return jobs of the given queues, ordered by priority over all of these queues."""
        new = [("a5", "a", 5), ("b9", "b", 9), ("a7", "a", 7), ("c8", "c", 8)]
        storage.enqueue_many([NewJob(id=name, type="t", queue=queue, priority=p) for name, queue, p in new])
        list_jobs: Any = storage.list_jobs
        same(ids(list_jobs(queue="b")), ["b9"], "queues: list_jobs returns the jobs of the given queue")
        same(storage.dequeue_many(9, ["d"]), [], "queues: dequeue_many returns only jobs of the given queues")
        sentence = "queues: dequeue_many returns the jobs of the highest priority in all given queues"
        same(ids(storage.dequeue_many(2, ["a", "b"])), ["b9", "a7"], sentence)
        same(ids(storage.dequeue_many(9)), ["c8", "a5"], "queues: without queues, dequeue_many returns jobs of all")
        same(stored(storage, "c8").queue, "c", "queues: a job keeps its queue")

    @needs("queues")
    def test_an_id_is_unique_over_all_queues(self, storage: BaseStorage) -> None:
        """An id is unique over all queues, because get_job has no argument for the queue."""
        storage.enqueue_many([NewJob(id="a", type="t", queue="x")])
        with refused(DuplicateJob, "queues: an id that exists in another queue raises DuplicateJob"):
            storage.enqueue_many([NewJob(id="a", type="t", queue="y")])

    def test_wait_is_bounded(self, storage: BaseStorage) -> None:
        """wait does not last longer than its timeout, after which the caller claims again."""
        began = time.monotonic()
        storage.wait(0.2)
        waited = time.monotonic() - began
        promise(waited < self.patience / 3, "wait: does not last longer than its timeout", timeout=0.2, waited=waited)

    def test_ping_and_leave(self, storage: BaseStorage) -> None:
        """ping raises no error. leave releases the held jobs if the storage can rescue jobs."""
        storage.ping()
        storage.enqueue("a", "t", {})
        taken(storage, "a")
        storage.leave()
        if self.shows("rescues", storage):
            same(stored(storage, "a").status, JobStatus.PENDING, "leave: jobs that are still held become pending again")
            taken(storage, "a", "leave: the storage can dequeue jobs afterwards")
