"""Tests of many jobs in one call: enqueue_many, dequeue_many, settle, complete_many."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from pgjobq.errors import DuplicateJob, Unsupported
from pgjobq.models import JobStatus, NewJob, Which
from pgjobq.storage.base import BaseStorage, Completed, Failed, Outcome, Released, Retried
from pgjobq.testing.features import StorageTests, needs
from pgjobq.testing.promises import accepted, ids, promise, refused, same, stored, taken, unchanged


class BatchingTests(StorageTests):
    """Part of StorageContract."""

    def test_enqueue_many(self, storage: BaseStorage) -> None:
        """In order, with every field; a delay counts from now."""
        new = [
            NewJob(id="b", type="t", data={"n": 1}, max_retries=0),
            NewJob(id="a", type="u", data={"n": 2}),
            NewJob(id="high", type="t", priority=9),
            NewJob(id="later", type="t", priority=9, delay=3600),
        ]
        same(storage.enqueue_many(new), ["b", "a", "high", "later"], "enqueue_many: gives the ids, in order")
        same(storage.enqueue_many([]), [], "enqueue_many: no jobs, no ids")
        due = stored(storage, "later").execute_at
        promise(
            due is not None and abs(due - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=5),
            "enqueue_many: a delay in seconds counts from now",
            found=due,
        )
        taken(storage, "high", "enqueue_many: priorities hold")
        job = taken(storage, "b", "enqueue_many: the jobs stand in line in the order in which they were given")
        same((job.type, job.data, job.max_retries), ("t", {"n": 1}, 0), "enqueue_many: keeps every field")
        taken(storage, "a", "enqueue_many: the jobs stand in line in the order in which they were given")
        same(storage.dequeue(), None, "enqueue_many: a delayed job is hidden")

    def test_enqueue_many_async(self, storage: BaseStorage) -> None:
        """The same is true of enqueue_many_async in an event loop."""
        new = [NewJob(id=name, type="t") for name in ("b", "a")]
        same(asyncio.run(storage.enqueue_many_async(new)), ["b", "a"], "enqueue_many_async: gives the ids, in order")
        same(ids(storage.dequeue_many(9)), ["b", "a"], "enqueue_many_async: the jobs stand in line in their order")

    def test_unique_key_is_kept_or_refused(self, storage: BaseStorage) -> None:
        """A storage that has no unique keys says Unsupported, and does not add a second job."""
        try:
            (first,) = storage.enqueue_many([NewJob(id="a", type="t", unique_key="k")])
        except Unsupported as error:
            promise("unique_key" in str(error), "enqueue_many: Unsupported names unique_key", message=str(error))
            same(ids(storage.list_jobs()), [], "enqueue_many: a job that was refused for its key is not there")
            return
        again = storage.enqueue_many([NewJob(id="b", type="t", unique_key="k")])
        same(again, [first], "enqueue_many: a unique key that another job has gives the id of that job, or Unsupported")
        same(ids(storage.list_jobs()), [first], "enqueue_many: a unique key that another job has adds no second job")

    @needs("batches", "cancels_many")
    def test_cancel_jobs_of_a_unique_key(self, storage: BaseStorage) -> None:
        """A storage that has no unique keys says Unsupported, and cancels nothing."""
        storage.enqueue("plain", "t", {})
        try:
            found = storage.cancel_jobs(Which(unique_key="k"))
        except Unsupported as error:
            promise("unique_key" in str(error), "cancel_jobs: Unsupported names unique_key", message=str(error))
        else:
            same(found, 0, "cancel_jobs: cancels only jobs with the unique key")
            storage.enqueue_many([NewJob(id="keyed", type="t", unique_key="k")])
            same(storage.cancel_jobs(Which(unique_key="k")), 1, "cancel_jobs: cancels the job with the unique key")
        same(stored(storage, "plain").status, JobStatus.PENDING, "cancel_jobs: leaves a job without the unique key")

    @needs("batches")
    def test_enqueue_many_adds_all_or_none(self, storage: BaseStorage) -> None:
        """An id that exists, or is twice in the batch, causes the whole batch to be refused."""
        storage.enqueue("there", "t", {"v": 1})
        batches = {"exists": ["new", "there", "newer"], "is given twice": ["new", "newer", "new"]}
        for what, names in batches.items():
            with (
                unchanged(storage, "there", "enqueue_many: the job that exists is left as it is"),
                refused(DuplicateJob, f"enqueue_many: an id that {what} raises DuplicateJob"),
            ):
                storage.enqueue_many([NewJob(id=name, type="t", data={"v": 2}) for name in names])
            found = ids(storage.list_jobs())
            same(found, ["there"], f"enqueue_many: when an id {what}, none of the jobs is added")
        same(ids(storage.dequeue_many(9)), ["there"], "enqueue_many: jobs that were refused are not dequeued")

    def test_dequeue_many(self, storage: BaseStorage) -> None:
        """Up to the limit, in order, each started once."""
        storage.enqueue_many([NewJob(id=f"p{n}", type="t", priority=n) for n in (3, 1, 4, 0, 2)])
        storage.enqueue_many([NewJob(id="later", type="t", priority=9, delay=3600)])
        sentence = "dequeue_many: gives up to limit due jobs, in the order in which dequeue would"
        first = storage.dequeue_many(2)
        same(ids(first), ["p4", "p3"], sentence)
        same([(job.status, job.attempts) for job in first], [("running", 1)] * 2, "dequeue_many: starts each job once")
        same(ids(storage.dequeue_many(9)), ["p2", "p1", "p0"], sentence)
        same(storage.dequeue_many(9), [], "dequeue_many: gives nothing when nothing is due")

    def test_large_batches(self, storage: BaseStorage) -> None:
        """As large as one pleases."""
        names = [f"{n:05d}" for n in range(self.batch)]
        names = names[1::2] + names[::2]  # so that the order of the ids is not the order of enqueueing
        given = storage.enqueue_many([NewJob(id=name, type="t", data={"of": name}) for name in names])
        same(given, names, f"enqueue_many: takes {self.batch} jobs, and gives their ids in order")
        jobs = storage.dequeue_many(self.batch - 1) + storage.dequeue_many(self.batch)
        same(ids(jobs), names, f"dequeue_many: gives up to {self.batch} jobs, in the order in which they were given")
        promise(all(job.data == {"of": job.id} for job in jobs), "dequeue_many: each job has its own data")
        same(storage.complete_many(jobs), [], f"complete_many: takes {self.batch} jobs")
        found = len(storage.list_jobs("completed"))
        same(found, self.batch, f"complete_many: completes all of {self.batch} jobs")

    def test_complete_many(self, storage: BaseStorage, other: BaseStorage) -> None:
        """All that are held; those that are not come back."""
        storage.enqueue_many([NewJob(id=name, type="t") for name in "abc"])
        a, b, c = storage.dequeue_many(3)
        storage.retry("b", 0)
        taken(other, "b")
        same(ids(storage.complete_many([a, b, c])), ["b"], "complete_many: gives back the jobs that were lost")
        found = [stored(storage, name).status for name in "abc"]
        expected = [JobStatus.COMPLETED, JobStatus.RUNNING, JobStatus.COMPLETED]
        same(found, expected, "complete_many: completes what is held, and changes nothing else")
        same(storage.complete_many([]), [], "complete_many: no jobs, none lost")

    def test_settle(self, storage: BaseStorage, other: BaseStorage) -> None:
        """Outcomes of every kind in one call; those of lost jobs come back."""
        storage.enqueue_many([NewJob(id=name, type="t") for name in "abcdef"])
        held = {job.id: job for job in storage.dequeue_many(6)}
        storage.retry("e", 0)
        taken(other, "e")
        storage.complete("f")
        outcomes: list[Outcome] = [
            Completed(held["a"]),
            Failed(held["b"], "boom"),
            Retried(held["c"], 3600.0, "again"),
            Released(held["d"]),
            Failed(held["e"], "late"),
            Failed(held["f"], "late"),
        ]
        with (
            unchanged(storage, "e", "settle: a lost job is not changed"),
            unchanged(storage, "f", "settle: a job settled otherwise is not changed"),
        ):
            lost = storage.settle(outcomes)
        same(sorted(outcome.job.id for outcome in lost), ["e", "f"], "settle: gives back the outcomes of lost jobs")
        found = [str(stored(storage, name).status) for name in "abcd"]
        expected = ["completed", "failed", "pending", "pending"]
        same(found, expected, "settle: completes, fails, retries and releases")
        same(stored(storage, "b").error, "boom", "settle: keeps the error of a job that failed")
        same(
            ids(storage.dequeue_many(9)), ["d"], "settle: a released job is due at once, a retried one after its delay"
        )
        same(storage.settle([]), [], "settle: nothing to settle, nothing lost")

    def test_settle_takes_any_text(self, storage: BaseStorage) -> None:
        """An error that the database cannot store unchanged must not block the other outcomes."""
        storage.enqueue_many([NewJob(id=name, type="t") for name in "abcd"])
        a, b, c, d = storage.dequeue_many(4)
        error = "a\0b \ud800 \N{PARTY POPPER} \x1b[31m" + "x" * 200_000
        outcomes: list[Outcome] = [Completed(a), Failed(b, error), Retried(c, 3600.0, error), Completed(d)]
        sentence = "settle: any text may be an error, and the outcomes beside it are settled"
        with accepted(sentence):
            lost = storage.settle(outcomes)
        same(lost, [], sentence)
        found = [str(stored(storage, name).status) for name in "abcd"]
        same(found, ["completed", "failed", "pending", "completed"], sentence)

    @needs("settles")
    def test_settle_is_for_the_start_it_names(self, storage: BaseStorage) -> None:
        """Not for a later start of the same job, even by the same storage."""
        storage.enqueue("a", "t", {})
        first = taken(storage, "a")
        storage.retry("a", 0)
        second = taken(storage, "a")
        late: list[Outcome] = [Completed(first), Failed(first, "late"), Retried(first, 9, "late"), Released(first, 9)]
        for outcome in late:
            with unchanged(storage, "a", "settle: an outcome of an earlier start changes nothing"):
                lost = storage.settle([outcome])
            same(lost, [outcome], "settle: an outcome of an earlier start of the job comes back as lost")
        same(storage.settle([Completed(second)]), [], "settle: the outcome of the start that is held is taken")
        same(stored(storage, "a").status, JobStatus.COMPLETED, "settle: the outcome of the start that is held is taken")

    @needs("settles")
    def test_settle_can_be_repeated(self, storage: BaseStorage) -> None:
        """After an error the caller does not know whether the first call took effect, so it repeats the call."""
        storage.enqueue_many([NewJob(id=name, type="t") for name in "abcd"])
        held = {job.id: job for job in storage.dequeue_many(4)}
        outcomes: list[Outcome] = [
            Completed(held["a"]),
            Failed(held["b"], "boom"),
            Retried(held["c"], 3600.0, "again"),
            Released(held["d"], 3600.0),
        ]
        for _ in range(2):
            same(storage.settle(outcomes), [], "settle: can be repeated; what was settled before is not lost")
            found = [(str(job.status), job.attempts) for name in "abcd" for job in [stored(storage, name)]]
            expected = [("completed", 1), ("failed", 1), ("pending", 1), ("pending", 0)]
            same(found, expected, "settle: when it is repeated, nothing is settled twice")
        same(stored(storage, "c").error, "again", "settle: a job that is retried keeps the error of its last try")
