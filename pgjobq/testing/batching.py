"""Tests of the methods that take many jobs: enqueue_many, dequeue_many, settle and complete_many."""

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
        """enqueue_many adds the jobs in the given order, with every field."""
        new = [
            NewJob(id="b", type="t", data={"n": 1}, max_retries=0),
            NewJob(id="a", type="u", data={"n": 2}),
            NewJob(id="high", type="t", priority=9),
            NewJob(id="later", type="t", priority=9, delay=3600),
        ]
        same(storage.enqueue_many(new), ["b", "a", "high", "later"], "enqueue_many: returns the ids, in order")
        same(storage.enqueue_many([]), [], "enqueue_many: returns an empty list for an empty list")
        due = stored(storage, "later").execute_at
        promise(
            due is not None and abs(due - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=5),
            "enqueue_many: a delay in seconds counts from now",
            found=due,
        )
        taken(storage, "high", "enqueue_many: the job of the highest priority is dequeued first")
        job = taken(storage, "b", "enqueue_many: jobs are dequeued in the order in which they were given")
        same((job.type, job.data, job.max_retries), ("t", {"n": 1}, 0), "enqueue_many: stores every field")
        taken(storage, "a", "enqueue_many: jobs are dequeued in the order in which they were given")
        same(storage.dequeue(), None, "enqueue_many: a delayed job is not dequeued before its delay has passed")

    def test_enqueue_many_async(self, storage: BaseStorage) -> None:
        """enqueue_many_async does the same in an event loop."""
        new = [NewJob(id=name, type="t") for name in ("b", "a")]
        same(asyncio.run(storage.enqueue_many_async(new)), ["b", "a"], "enqueue_many_async: returns the ids, in order")
        same(ids(storage.dequeue_many(9)), ["b", "a"], "enqueue_many_async: keeps the order of the jobs")

    def test_unique_key_is_respected_or_refused(self, storage: BaseStorage) -> None:
        """A storage without unique keys raises Unsupported. A storage with unique keys does not add a second job."""
        try:
            (first,) = storage.enqueue_many([NewJob(id="a", type="t", unique_key="k")])
        except Unsupported as error:
            promise("unique_key" in str(error), "enqueue_many: the error names unique_key", message=str(error))
            same(ids(storage.list_jobs()), [], "enqueue_many: does not add a job if it raises Unsupported")
            return
        again = storage.enqueue_many([NewJob(id="b", type="t", unique_key="k")])
        same(again, [first], "enqueue_many: returns the id of the job that has the unique key, or raises Unsupported")
        same(ids(storage.list_jobs()), [first], "enqueue_many: does not add a second job with the same unique key")

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
        """If an id exists already or is given twice, enqueue_many refuses the whole batch."""
        storage.enqueue("there", "t", {"v": 1})
        batches = {"exists": ["new", "there", "newer"], "is given twice": ["new", "newer", "new"]}
        for what, names in batches.items():
            with (
                unchanged(storage, "there", "enqueue_many: does not change the job that exists"),
                refused(DuplicateJob, f"enqueue_many: an id that {what} raises DuplicateJob"),
            ):
                storage.enqueue_many([NewJob(id=name, type="t", data={"v": 2}) for name in names])
            found = ids(storage.list_jobs())
            same(found, ["there"], f"enqueue_many: if an id {what}, no job of the batch is added")
        same(ids(storage.dequeue_many(9)), ["there"], "enqueue_many: a refused job is not dequeued")

    def test_dequeue_many(self, storage: BaseStorage) -> None:
        """dequeue_many starts up to `limit` jobs, in order."""
        storage.enqueue_many([NewJob(id=f"p{n}", type="t", priority=n) for n in (3, 1, 4, 0, 2)])
        storage.enqueue_many([NewJob(id="later", type="t", priority=9, delay=3600)])
        sentence = "dequeue_many: returns up to limit due jobs, in the same order as dequeue"
        first = storage.dequeue_many(2)
        same(ids(first), ["p4", "p3"], sentence)
        found = [(job.status, job.attempts) for job in first]
        same(found, [("running", 1)] * 2, "dequeue_many: sets each job to running and adds 1 to attempts")
        same(ids(storage.dequeue_many(9)), ["p2", "p1", "p0"], sentence)
        same(storage.dequeue_many(9), [], "dequeue_many: returns an empty list when no job is due")

    def test_large_batches(self, storage: BaseStorage) -> None:
        """A batch may be larger than what the database takes in one request."""
        names = [f"{n:05d}" for n in range(self.batch)]
        names = names[1::2] + names[::2]  # so that the jobs are not enqueued in the order of their ids
        given = storage.enqueue_many([NewJob(id=name, type="t", data={"of": name}) for name in names])
        same(given, names, f"enqueue_many: accepts {self.batch} jobs and returns their ids, in order")
        jobs = storage.dequeue_many(self.batch - 1) + storage.dequeue_many(self.batch)
        same(ids(jobs), names, f"dequeue_many: returns up to {self.batch} jobs, in the order of enqueueing")
        promise(all(job.data == {"of": job.id} for job in jobs), "dequeue_many: returns each job with its own data")
        same(storage.complete_many(jobs), [], f"complete_many: accepts {self.batch} jobs")
        found = len(storage.list_jobs("completed"))
        same(found, self.batch, f"complete_many: completes all {self.batch} jobs")

    def test_complete_many(self, storage: BaseStorage, other: BaseStorage) -> None:
        """complete_many completes the jobs that the storage holds, and returns those that it has lost."""
        storage.enqueue_many([NewJob(id=name, type="t") for name in "abc"])
        a, b, c = storage.dequeue_many(3)
        storage.retry("b", 0)
        taken(other, "b")
        same(ids(storage.complete_many([a, b, c])), ["b"], "complete_many: returns the jobs that the storage has lost")
        found = [stored(storage, name).status for name in "abc"]
        expected = [JobStatus.COMPLETED, JobStatus.RUNNING, JobStatus.COMPLETED]
        same(found, expected, "complete_many: completes the jobs that the storage holds, and changes no other job")
        same(storage.complete_many([]), [], "complete_many: returns an empty list for an empty list")

    def test_settle(self, storage: BaseStorage, other: BaseStorage) -> None:
        """settle applies outcomes of every kind in one call, and returns those of lost jobs."""
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
            unchanged(storage, "e", "settle: does not change a job that the storage has lost"),
            unchanged(storage, "f", "settle: does not change a job that was settled before with another outcome"),
        ):
            lost = storage.settle(outcomes)
        same(sorted(outcome.job.id for outcome in lost), ["e", "f"], "settle: returns the outcomes of lost jobs")
        found = [str(stored(storage, name).status) for name in "abcd"]
        expected = ["completed", "failed", "pending", "pending"]
        same(found, expected, "settle: completes, fails, retries and releases the jobs")
        same(stored(storage, "b").error, "boom", "settle: stores the error of a job that failed")
        sentence = "settle: a released job is due at once, and a retried job is due after its delay"
        same(ids(storage.dequeue_many(9)), ["d"], sentence)
        same(storage.settle([]), [], "settle: returns an empty list for an empty list")

    def test_settle_takes_any_text(self, storage: BaseStorage) -> None:
        """If the database cannot store an error unchanged, settle still applies all outcomes."""
        storage.enqueue_many([NewJob(id=name, type="t") for name in "abcd"])
        a, b, c, d = storage.dequeue_many(4)
        error = "a\0b \ud800 \N{PARTY POPPER} \x1b[31m" + "x" * 200_000
        outcomes: list[Outcome] = [Completed(a), Failed(b, error), Retried(c, 3600.0, error), Completed(d)]
        sentence = "settle: accepts any text as an error, and applies the other outcomes of the batch"
        with accepted(sentence):
            lost = storage.settle(outcomes)
        same(lost, [], sentence)
        found = [str(stored(storage, name).status) for name in "abcd"]
        same(found, ["completed", "failed", "pending", "completed"], sentence)

    @needs("settles")
    def test_settle_applies_to_the_start_it_names(self, storage: BaseStorage) -> None:
        """settle does not apply an outcome to a later start of the same job, even if the same storage started it."""
        storage.enqueue("a", "t", {})
        first = taken(storage, "a")
        storage.retry("a", 0)
        second = taken(storage, "a")
        late: list[Outcome] = [Completed(first), Failed(first, "late"), Retried(first, 9, "late"), Released(first, 9)]
        for outcome in late:
            with unchanged(storage, "a", "settle: an outcome of an earlier start changes nothing"):
                lost = storage.settle([outcome])
            same(lost, [outcome], "settle: returns an outcome of an earlier start of the job as lost")
        same(storage.settle([Completed(second)]), [], "settle: applies the outcome of the start that is held")
        same(stored(storage, "a").status, JobStatus.COMPLETED, "settle: applies the outcome of the start that is held")

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
            same(storage.settle(outcomes), [], "settle: can be repeated without losing an outcome")
            found = [(str(job.status), job.attempts) for name in "abcd" for job in [stored(storage, name)]]
            expected = [("completed", 1), ("failed", 1), ("pending", 1), ("pending", 0)]
            same(found, expected, "settle: a repeated call does not apply an outcome twice")
        same(stored(storage, "c").error, "again", "settle: stores the error of a job that is retried")
