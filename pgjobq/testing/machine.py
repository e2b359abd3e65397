"""A storage against a model: whatever is called, in whatever order, both agree."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
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
from pgjobq.storage.base import BaseStorage
from pgjobq.testing.features import MakeStorage, StorageTests
from pgjobq.testing.promises import promise, refused, same, stored

FAR = datetime(2100, 1, 1, tzinfo=UTC)
LONG = 3600.0  # seconds
TICK = 0.002  # seconds: a due time that databases keep by the millisecond is later than those before

STORAGES = st.sampled_from([0, 1])

_examples = itertools.count()  # the database is not emptied between examples: each has ids of its own


@dataclass
class Known:
    """What the model knows of a job."""

    priority: int
    status: str = "pending"
    attempts: int = 0
    hidden: bool = False  # its time lies far ahead
    place: int | None = None  # in the order of falling due; None: anywhere, for it was released
    by: int | None = None  # the storage that started it last
    error: str | None = None


@dataclass(frozen=True)
class Start:
    """One start of a job, by one of the storages."""

    job: Job
    by: int


class StorageMachine(RuleBasedStateMachine):
    """Two storages on one database, and a model of what is in it."""

    jobs: Bundle[str] = Bundle("jobs")
    starts: Bundle[Start] = Bundle("starts")

    def __init__(self, storages: Sequence[BaseStorage], features: frozenset[str]) -> None:
        super().__init__()
        self.storages, self.features = storages, features
        self.model: dict[str, Known] = {}
        self.unaware: set[tuple[str, int]] = set()  # (job, storage) that lost it and was not told yet
        self.prefix, self.clock = f"e{next(_examples)}-", itertools.count()
        self.agrees = True  # false from the beginning of a step to the end of its comparison

    @rule(target=jobs, priority=st.sampled_from([1, 5, 9]), future=st.sampled_from([False, False, True]), by=STORAGES)
    def enqueue(self, priority: int, future: bool, by: int) -> str:
        """A new job."""
        self.agrees = False
        job_id = f"{self.prefix}{len(self.model)}"
        self.storages[by].enqueue(job_id, "t", {"of": job_id}, priority=priority, execute_at=FAR if future else None)
        self.model[job_id] = Known(priority, hidden=future, place=next(self.clock))
        self.compare(job_id)
        return job_id

    @rule(job_id=jobs, by=STORAGES)
    def enqueue_again(self, job_id: str, by: int) -> None:
        """The id exists."""
        self.agrees = False
        with refused(DuplicateJob, "duplicate: an id that exists already raises DuplicateJob"):
            self.storages[by].enqueue(job_id, "t", {"of": "another"}, priority=9)
        self.compare(job_id)

    @rule(target=starts, by=STORAGES)
    def dequeue(self, by: int) -> Any:
        """The first that is due, or none."""
        self.agrees = False
        job = self.storages[by].dequeue()
        if job is None:
            self.nothing_is_due("dequeue: gives a job as long as one is due")
            return multiple()
        return self.started(job, by)

    @rule(target=starts, by=STORAGES, limit=st.integers(1, 3))
    def dequeue_many(self, by: int, limit: int) -> Any:
        """The first so many that are due."""
        self.agrees = False
        jobs = self.storages[by].dequeue_many(limit)
        promise(len(jobs) <= limit, "dequeue_many: gives at most limit jobs", limit=limit, found=len(jobs))
        starts = [self.started(job, by) for job in jobs]
        if len(jobs) < limit:
            self.nothing_is_due("dequeue_many: gives as many jobs as are due, up to limit")
        return multiple(*starts)

    @rule(start=starts, stranger=st.booleans())
    def complete(self, start: Start, stranger: bool) -> None:
        """By the storage that started it, or the other."""
        self.settle(start, stranger, "complete", lambda storage, job_id: storage.complete(job_id), status="completed")

    @rule(start=starts, stranger=st.booleans())
    def fail(self, start: Start, stranger: bool) -> None:
        """By the storage that started it, or the other."""
        error = f"error of {start.job.attempts}"
        self.settle(
            start, stranger, "fail", lambda storage, job_id: storage.fail(job_id, error), status="failed", error=error
        )

    @rule(start=starts, stranger=st.booleans(), delay=st.sampled_from([0.0, LONG]))
    def retry(self, start: Start, stranger: bool, delay: float) -> None:
        """By its holder; by anyone when the job has failed or was cancelled."""
        by = 1 - start.by if stranger else start.by
        known = self.model[start.job.id]
        if known.status == "pending" or (known.status != "running" and (start.job.id, by) in self.unaware):
            return  # what happens then is the storage's own business
        time.sleep(TICK)
        self.settle(
            start,
            stranger,
            "retry",
            lambda storage, job_id: storage.retry(job_id, delay),
            anyone=known.status in {"failed", "cancelled"},
            status="pending",
            hidden=delay > 0,
            place=next(self.clock),
        )

    @precondition(lambda self: "releases" in self.features)
    @rule(start=starts, stranger=st.booleans())
    def release(self, start: Start, stranger: bool) -> None:
        """The start is taken back."""
        attempts = self.model[start.job.id].attempts - 1
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
        """The very start, which may be long over; what was completed so before is not lost."""
        self.agrees = False
        known = self.model[start.job.id]
        same_start = (known.by, known.attempts) == (start.by, start.job.attempts)
        taken = same_start and known.status in {"running", "completed"}
        lost = self.storages[start.by].complete_many([start.job])
        expected = [] if taken else [start.job.id]
        same([job.id for job in lost], expected, "settle: takes the outcomes of starts that are held, and no others")
        if taken:
            known.status = "completed"
        self.compare(start.job.id)

    @precondition(lambda self: "cancels" in self.features)
    @rule(job_id=jobs, by=STORAGES)
    def cancel(self, job_id: str, by: int) -> None:
        """Only what is not finished."""
        self.agrees = False
        known = self.model[job_id]
        expected = known.status in {"pending", "running"}
        same(self.storages[by].cancel(job_id), expected, f"cancel: of a job that is {known.status} returns {expected}")
        if known.status == "running" and known.by is not None:
            self.unaware.add((job_id, known.by))
        if expected:
            known.status = "cancelled"
        self.compare(job_id)

    def settle(
        self,
        start: Start,
        stranger: bool,
        name: str,
        call: Callable[[BaseStorage, str], None],
        anyone: bool = False,
        **changes: Any,
    ) -> None:
        """Call it, and see that only the holder changes the job."""
        self.agrees = False
        by, known = 1 - start.by if stranger else start.by, self.model[start.job.id]
        if anyone or (known.status == "running" and known.by == by):
            call(self.storages[by], start.job.id)
            for field, value in changes.items():
                setattr(known, field, value)
        else:
            with refused(LostJob, f"{name}: by a storage that does not hold the job raises LostJob"):
                call(self.storages[by], start.job.id)
            self.unaware.discard((start.job.id, by))
        self.compare(start.job.id)

    def started(self, job: Job, by: int) -> Start:
        """A job that dequeue gave, if it was its turn."""
        self.agrees = False
        promise(job.id in self.model, "dequeue: gives a job that was enqueued and is not finished", found=job.id)
        known = self.model[job.id]
        what = "hidden" if known.hidden else known.status
        same(what, "pending", "dequeue: gives a job that is pending and due")
        for job_id, other in self.model.items():
            if other.status != "pending" or other.hidden:
                continue
            promise(
                other.priority <= known.priority,
                "order: a job of higher priority is dequeued first",
                first=job_id,
                found=job.id,
            )
            if other.priority == known.priority and other.place is not None and known.place is not None:
                promise(
                    other.place >= known.place,
                    "order: of jobs of one priority, the one that fell due first is dequeued first",
                    first=job_id,
                    found=job.id,
                )
        known.status, known.attempts, known.by = "running", known.attempts + 1, by
        self.unaware.discard((job.id, by))
        same((job.status, job.attempts), ("running", known.attempts), "dequeue: starts the job, and counts the start")
        self.compare(job.id)
        return Start(job, by)

    def nothing_is_due(self, sentence: str) -> None:
        """No job in the model waits for a worker."""
        due = [job_id for job_id, known in self.model.items() if known.status == "pending" and not known.hidden]
        promise(not due, sentence, due=due, found=None)
        self.agrees = True

    def compare(self, job_id: str) -> None:
        """The job is as the model has it."""
        known = self.model[job_id]
        job = stored(self.storages[0], job_id)
        found = (str(job.status), job.attempts, job.priority, job.data)
        expected = (known.status, known.attempts, known.priority, {"of": job_id})
        same(found, expected, "storage: a job is as the calls so far have made it")
        if known.status == "failed":
            same(job.error, known.error, "fail: the error is kept")
        self.agrees = True

    def teardown(self) -> None:
        """Compare everything, and leave nothing that the next example could be given."""
        try:
            if self.agrees:
                self.compare_all()
        finally:
            self.clear()

    def compare_all(self) -> None:
        """No call has changed a job that it did not name."""
        for job_id in self.model:
            self.compare(job_id)

    def clear(self) -> None:
        """Bring every job that may be started to its end."""
        with suppress(Exception):  # a storage that breaks its promises may well break this
            for job_id, known in self.model.items():
                if known.status == "running" and known.by is not None:
                    self.storages[known.by].complete(job_id)
            for _ in self.model:
                if (job := self.storages[0].dequeue()) is None:
                    return
                self.storages[0].complete(job.id)


class MachineTests(StorageTests):
    """Part of StorageContract."""

    def test_any_sequence_of_calls(self, open_storage: MakeStorage) -> None:
        """Two storages on one database agree with a model."""
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
