"""End-to-end tests with a Worker on the storage."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from pgjobq.backoff import constant
from pgjobq.errors import Fail, Retry, StorageError
from pgjobq.handlers import Registry, job
from pgjobq.models import Job, JobStatus, NewJob
from pgjobq.outcomes import Outcome
from pgjobq.storage.base import BaseStorage
from pgjobq.testing.features import StorageTests, needs
from pgjobq.testing.promises import eventually, promise, same, stored
from pgjobq.worker import Worker

ENDS = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)


class WorkingTests(StorageTests):
    """Part of StorageContract."""

    def test_worker_runs_jobs(self, storage: BaseStorage) -> None:
        """A worker runs each job once, whether its handler is sync or async."""
        registry, ran = Registry(), list[int]()

        @job(registry=registry)
        def plain(n: int) -> None:
            ran.append(n)

        @job(registry=registry)
        async def on_the_loop(n: int) -> None:
            await asyncio.sleep(0)
            ran.append(n)

        names = [f"job-{n}" for n in range(20)]
        storage.enqueue_many(
            [NewJob(id=names[n], type=["plain", "on_the_loop"][n % 2], data={"n": n}) for n in range(20)]
        )
        found = self._worked(storage, registry, names)
        same({job.status for job in found}, {JobStatus.COMPLETED}, "worker: completes a job when its handler returns")
        same(sorted(ran), list(range(20)), "worker: runs each job once")
        same({job.attempts for job in found}, {1}, "worker: a job that succeeds at the first try has one attempt")

    def test_worker_retries_and_fails(self, storage: BaseStorage) -> None:
        """A job is retried max_retries times. Then it fails, and its error contains the last traceback."""
        registry, tries = Registry(), list[str]()

        @job(registry=registry, backoff=constant(0))
        def breaks() -> None:
            tries.append("breaks")
            raise ValueError("no luck")

        @job(registry=registry)
        async def second_time(job: Job) -> None:
            tries.append("second_time")
            if job.attempts < 2:
                raise Retry(delay=0)

        @job(registry=registry)
        def gives_up() -> None:
            tries.append("gives_up")
            raise Fail("there is no such thing")

        names = ["breaks", "second_time", "gives_up", "unknown"]
        storage.enqueue_many([NewJob(id=name, type=name, max_retries=2) for name in names])
        bad, good, hopeless, unknown = self._worked(storage, registry, names, fail_unknown=True)
        sentence = "worker: a job whose handler always raises is tried 1 + max_retries times, and then fails"
        same((bad.status, bad.attempts, tries.count("breaks")), (JobStatus.FAILED, 3, 3), sentence)
        promise(
            bad.error and "ValueError: no luck" in bad.error and "in breaks" in bad.error,
            "worker: the error of a failed job contains the type, message and traceback of the exception",
            found=bad.error,
        )
        sentence = "worker: a job whose handler raises Retry is tried again"
        same((good.status, good.attempts), (JobStatus.COMPLETED, 2), sentence)
        sentence = "worker: a job whose handler raises Fail fails at once"
        same((hopeless.status, hopeless.attempts), (JobStatus.FAILED, 1), sentence)
        promise("no such thing" in str(hopeless.error), "worker: stores the text of Fail", found=hopeless.error)
        same(unknown.status, JobStatus.FAILED, "worker: with fail_unknown, a job of an unknown type fails")

    def test_worker_leaves_unknown_types_to_others(self, storage: BaseStorage, other: BaseStorage) -> None:
        """A job without a handler stays pending for a worker that has one, and does not block other jobs."""
        registry, elsewhere = Registry(), Registry()

        @job(registry=registry)
        def known() -> None: ...

        @job(registry=elsewhere)
        def foreign() -> None: ...

        storage.enqueue_many([NewJob(id=f"foreign-{n}", type="foreign", priority=9) for n in range(6)])
        names = [f"known-{n}" for n in range(6)]
        storage.enqueue_many([NewJob(id=name, type="known") for name in names])
        found = [str(job.status) for job in self._worked(storage, registry, names)]
        same(found, ["completed"] * 6, "worker: jobs of unknown types do not block other jobs")
        left = [stored(storage, f"foreign-{n}") for n in range(6)]
        same({str(job.status) for job in left}, {"pending"}, "worker: leaves a job of an unknown type to other workers")
        if self.shows("leaves", storage):
            same({job.attempts for job in left}, {0}, "worker: a job that is left to other workers has no attempts")
            names = [job.id for job in left]
            found = [str(job.status) for job in self._worked(other, elsewhere, names)]
            same(found, ["completed"] * 6, "worker: runs jobs that a worker without a handler has left")

    @needs("leaves")
    def test_left_types_stay_in_line(self, storage: BaseStorage, other: BaseStorage) -> None:
        """Left jobs stay in line for other storages, and for the same storage after its next leave_types or leave."""
        storage.enqueue_many(
            [NewJob(id=f"{kind}-{n:03}", type=kind, priority=p) for n in range(150) for kind, p in (("a", 9), ("b", 5))]
        )
        storage.enqueue_many([NewJob(id=f"c-{n}", type="c", priority=n) for n in (3, 7)])
        promise(storage.leave_types({"a", "b"}), "leave_types: returns true")
        for limit in (1, 9):
            found = [job.type for job in storage.dequeue_many(limit)]
            same(found, ["c"], "leave_types: jobs of other types are dequeued, however many left jobs precede them")
        same(storage.dequeue(), None, "leave_types: jobs of left types are not dequeued")
        left = [stored(storage, f"{kind}-{n:03}") for kind in "ab" for n in (0, 149)]
        states = {(str(job.status), job.attempts) for job in left}
        same(states, {("pending", 0)}, "leave_types: does not change jobs of left types")
        sentence = "leave_types: does not affect other storages"
        same([job.id for job in other.dequeue_many(2)], ["a-000", "a-001"], sentence)
        storage.leave_types(["b"])
        sentence = "leave_types: the next call replaces the types, and jobs of the others are dequeued again, in order"
        same([job.id for job in storage.dequeue_many(2)], ["a-002", "a-003"], sentence)
        storage.leave()
        for _ in range(2):
            promise(storage.dequeue_many(200), "leave_types: its effect ends with leave()")

    def test_worker_survives_any_error(self, storage: BaseStorage) -> None:
        """An error of one handler does not block the other jobs."""
        registry = Registry()

        @job(registry=registry)
        def quick() -> None: ...

        @job(registry=registry)
        def breaks() -> None:
            raise ValueError("a\0b \ud800 \N{PARTY POPPER}" + "x" * 100_000)

        names = [f"job-{n}" for n in range(12)]
        storage.enqueue_many(
            [NewJob(id=name, type="quick" if n % 4 else "breaks", max_retries=0) for n, name in enumerate(names)]
        )
        found = [str(job.status) for job in self._worked(storage, registry, names)]
        expected = ["completed" if n % 4 else "failed" for n in range(12)]
        same(found, expected, "worker: finishes every job, whatever errors some handlers raise")

    def test_outcome_that_cannot_be_settled_does_not_block_others(
        self, storage: BaseStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The storage refuses every batch that contains a certain outcome."""
        registry, settle = Registry(), storage.settle

        @job(registry=registry)
        def quick() -> None: ...

        def refusing(outcomes: Sequence[Outcome]) -> list[Outcome]:
            if any(outcome.job.id == "bad" for outcome in outcomes):
                raise StorageError("the database refuses this outcome")
            return settle(outcomes)

        monkeypatch.setattr(storage, "settle", refusing)
        names = [f"good-{n}" for n in range(11)]
        storage.enqueue_many([NewJob(id=name, type="quick") for name in (*names[:5], "bad", *names[5:])])
        found = [str(job.status) for job in self._worked(storage, registry, names)]
        same(found, ["completed"] * 11, "settle: if one outcome of a batch cannot be settled, the others are settled")
        status = str(stored(storage, "bad").status)
        promise(
            status in {"running", "pending"},
            "settle: a job whose outcome could not be settled is released, or stays running until it is rescued",
            found=status,
        )

    def test_worker_finds_jobs_that_come_later(self, storage: BaseStorage, other: BaseStorage) -> None:
        """A worker that is idle finds jobs that another storage enqueues and jobs that fall due."""
        registry = Registry()

        @job(registry=registry)
        def quick() -> None: ...

        worker = Worker(storage, registry=registry)
        worker.start()
        try:
            other.enqueue_many([NewJob(id="now", type="quick"), NewJob(id="soon", type="quick", delay=0.5)])
            for name in ("now", "soon"):
                self._ended(other, name)
            same(stored(other, "soon").status, JobStatus.COMPLETED, "worker: runs a job that falls due")
        finally:
            worker.stop(grace=1)

    def test_stopped_worker_releases_its_jobs(self, storage: BaseStorage) -> None:
        """A job that is still running at the end of the grace is released."""
        registry, began, go = Registry(), threading.Event(), threading.Event()

        @job(registry=registry)
        def stuck() -> None:
            began.set()
            go.wait(self.patience)

        storage.enqueue("stuck", "stuck", {})
        worker = Worker(storage, registry=registry)
        worker.start()
        try:
            promise(began.wait(self.patience), "worker: starts a job that is due", waited=f"{self.patience:g} s")
        finally:
            worker.stop(grace=0)
            go.set()
        status = stored(storage, "stuck").status
        same(status, JobStatus.PENDING, "worker: a job that runs when its worker stops becomes pending again")

    def _worked(
        self, storage: BaseStorage, registry: Registry, names: Sequence[str], *, fail_unknown: bool = False
    ) -> list[Job]:
        """Run a worker until it has finished these jobs, and return them."""
        worker = Worker(storage, registry=registry, concurrency=4, fail_unknown=fail_unknown)
        worker.start()
        try:
            return [self._ended(storage, name) for name in names]
        finally:
            worker.stop(grace=1)

    def _ended(self, storage: BaseStorage, job_id: str) -> Job:
        def look() -> Job | None:
            found = stored(storage, job_id)
            return found if found.status in ENDS else None

        found = eventually(look, f"worker: finishes every due job (the test waited for {job_id})", self.patience)
        assert found is not None  # eventually returns a true value
        return found
