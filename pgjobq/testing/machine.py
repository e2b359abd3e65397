"""Compare a storage with a model after random calls in random order."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pgjobq.errors import DuplicateJob, LostJob
from pgjobq.models import Job
from pgjobq.outcomes import Released
from pgjobq.storage.base import BaseStorage
from pgjobq.testing.features import MakeStorage, StorageTests
from pgjobq.testing.model import Model, Start
from pgjobq.testing.promises import promise, refused, same

FAR = datetime(2100, 1, 1, tzinfo=UTC)
LONG = 3600.0  # seconds
TICK = 0.002  # seconds, so that due times differ in databases that store milliseconds

STORAGES = st.sampled_from([0, 1])

_examples = itertools.count()  # gives each example its own ids, because the database is not emptied between examples


class StorageMachine(RuleBasedStateMachine):
    """Two storages on one database, and a model of the jobs in it."""

    jobs: Bundle[str] = Bundle("jobs")
    starts: Bundle[Start] = Bundle("starts")

    def __init__(self, storages: Sequence[BaseStorage], features: frozenset[str]) -> None:
        super().__init__()
        self.storages, self.features = storages, features
        self.model = Model(storages[0])
        # (job, storage): the storage has lost the job, but no call has reported this yet.
        self.unaware: set[tuple[str, int]] = set()
        self.prefix = f"e{next(_examples)}-"

    @rule(target=jobs, priority=st.sampled_from([1, 5, 9]), future=st.sampled_from([False, False, True]), by=STORAGES)
    def enqueue(self, priority: int, future: bool, by: int) -> str:
        """Enqueue a job with a new id."""
        self.model.agrees = False
        job_id = f"{self.prefix}{len(self.model.jobs)}"
        self.storages[by].enqueue(job_id, "t", {"of": job_id}, priority=priority, execute_at=FAR if future else None)
        self.model.add(job_id, priority, future)
        return job_id

    @rule(job_id=jobs, by=STORAGES)
    def enqueue_again(self, job_id: str, by: int) -> None:
        """Enqueue a job with an id that exists."""
        self.model.agrees = False
        with refused(DuplicateJob, "duplicate: enqueue of an id that exists raises DuplicateJob"):
            self.storages[by].enqueue(job_id, "t", {"of": "another"}, priority=9)
        self.model.compare(job_id)

    @rule(target=starts, by=STORAGES)
    def dequeue(self, by: int) -> Any:
        """Start the first due job, if any."""
        self.model.agrees = False
        job = self.storages[by].dequeue()
        if job is None:
            self.model.nothing_is_due("dequeue: returns a job if one is due")
            return multiple()
        return self.started(job, by)

    @rule(target=starts, by=STORAGES, limit=st.integers(1, 3))
    def dequeue_many(self, by: int, limit: int) -> Any:
        """Start the first due jobs, up to `limit`."""
        self.model.agrees = False
        jobs = self.storages[by].dequeue_many(limit)
        promise(len(jobs) <= limit, "dequeue_many: returns at most limit jobs", limit=limit, found=len(jobs))
        starts = [self.started(job, by) for job in jobs]
        if len(jobs) < limit:
            self.model.nothing_is_due("dequeue_many: returns as many jobs as are due, up to limit")
        return multiple(*starts)

    @rule(start=starts, stranger=st.booleans())
    def complete(self, start: Start, stranger: bool) -> None:
        """Complete the job by the storage that started it, or by the other one."""
        self.settle(start, stranger, "complete", lambda storage, job_id: storage.complete(job_id), status="completed")

    @rule(start=starts, stranger=st.booleans())
    def fail(self, start: Start, stranger: bool) -> None:
        """Fail the job by the storage that started it, or by the other one."""
        error = f"error of {start.job.attempts}"
        self.settle(
            start, stranger, "fail", lambda storage, job_id: storage.fail(job_id, error), status="failed", error=error
        )

    @rule(start=starts, stranger=st.booleans(), delay=st.sampled_from([0.0, LONG]))
    def retry(self, start: Start, stranger: bool, delay: float) -> None:
        """Retry the job. Only its holder may retry a running job; both storages may retry a failed or cancelled one."""
        by = 1 - start.by if stranger else start.by
        known = self.model.jobs[start.job.id]
        if known.status == "pending" or (known.status != "running" and (start.job.id, by) in self.unaware):
            return  # the contract does not say what happens in this case
        time.sleep(TICK)
        self.settle(
            start,
            stranger,
            "retry",
            lambda storage, job_id: storage.retry(job_id, delay),
            anyone=known.status in {"failed", "cancelled"},
            status="pending",
            hidden=delay > 0,
            place=next(self.model.clock),
        )

    @precondition(lambda self: "releases" in self.features)
    @rule(start=starts, stranger=st.booleans())
    def release(self, start: Start, stranger: bool) -> None:
        """Release the job, which subtracts the start from attempts."""
        attempts = self.model.jobs[start.job.id].attempts - 1
        self.settle(
            start,
            stranger,
            "release",
            lambda storage, job_id: storage.release(job_id),
            status="pending",
            attempts=attempts,
            hidden=False,
            place=None,
        )

    @precondition(lambda self: "settles" in self.features)
    @rule(start=starts)
    def complete_start(self, start: Start) -> None:
        """Complete this start, which may have ended long ago. It is lost unless it is held or was completed before."""
        self.model.agrees = False
        known = self.model.jobs[start.job.id]
        taken = known.start == start.number and known.status in {"running", "completed"}
        lost = self.storages[start.by].complete_many([start.job])
        expected = [] if taken else [start.job.id]
        same([job.id for job in lost], expected, "settle: applies the outcomes of starts that are held, and no others")
        if taken:
            known.status = "completed"
        self.model.compare(start.job.id)

    @precondition(lambda self: {"settles", "releases"} <= self.features)
    @rule(start=starts)
    def release_start(self, start: Start) -> None:
        """Release this start. If it has ended, nothing changes."""
        self.model.agrees = False
        known = self.model.jobs[start.job.id]
        self.storages[start.by].settle([Released(start.job)])
        if known.start == start.number and known.status == "running":
            known.status, known.attempts, known.hidden, known.place = "pending", known.attempts - 1, False, None
        self.model.compare(start.job.id)

    @precondition(lambda self: "cancels" in self.features)
    @rule(job_id=jobs, by=STORAGES)
    def cancel(self, job_id: str, by: int) -> None:
        """Cancel a job. A finished job does not change."""
        self.model.agrees = False
        known = self.model.jobs[job_id]
        expected = known.status in {"pending", "running"}
        same(self.storages[by].cancel(job_id), expected, f"cancel: of a job that is {known.status} returns {expected}")
        if known.status == "running" and known.by is not None:
            self.unaware.add((job_id, known.by))
        if expected:
            known.status = "cancelled"
        self.model.compare(job_id)

    def settle(
        self,
        start: Start,
        stranger: bool,
        name: str,
        call: Callable[[BaseStorage, str], None],
        anyone: bool = False,
        **changes: Any,
    ) -> None:
        """Make the call, and check that only the holder changes the job."""
        self.model.agrees = False
        by, known = 1 - start.by if stranger else start.by, self.model.jobs[start.job.id]
        if anyone or (known.status == "running" and known.by == by):
            call(self.storages[by], start.job.id)
            for field, value in changes.items():
                setattr(known, field, value)
        else:
            with refused(LostJob, f"{name}: raises LostJob if the storage does not hold the job"):
                call(self.storages[by], start.job.id)
            self.unaware.discard((start.job.id, by))
        self.model.compare(start.job.id)

    def started(self, job: Job, by: int) -> Start:
        """Note that this storage has dequeued the job."""
        start = self.model.started(job, by)
        self.unaware.discard((job.id, by))
        return start

    def teardown(self) -> None:
        """Compare all jobs. Then finish them, because the next example must not dequeue them."""
        try:
            if self.model.agrees:
                self.model.compare_all()
        finally:
            self.clear()

    def clear(self) -> None:
        """Finish every job that can be started."""
        with suppress(Exception):  # a broken storage may fail here, too
            for job_id, known in self.model.jobs.items():
                if known.status == "running" and known.by is not None:
                    self.storages[known.by].complete(job_id)
            for _ in self.model.jobs:
                if (job := self.storages[0].dequeue()) is None:
                    return
                self.storages[0].complete(job.id)


class MachineTests(StorageTests):
    """Part of StorageContract."""

    def test_any_sequence_of_calls(self, open_storage: MakeStorage) -> None:
        """After any sequence of calls, two storages on one database agree with a model."""
        storages = [open_storage(), open_storage()]
        features = frozenset(f for f in ("releases", "settles", "cancels") if self.shows(f, storages[0]))

        class Machine(StorageMachine):
            def __init__(self) -> None:
                super().__init__(storages, features)

        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=self.examples,
                stateful_step_count=self.steps,
                derandomize=self.derandomize,
                database=None,
                deadline=None,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            ),
        )
