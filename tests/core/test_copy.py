"""copy_jobs: every job arrives once and unchanged, whatever interrupts the copy."""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from helpers.copies import all_of, copied, fill

from pgjobq import BaseStorage, Job, JobStatus, NewJob, Unsupported, open_storage
from pgjobq.arrival import arriving
from pgjobq.copying import MAX_BATCH_DATA, copy_jobs
from pgjobq.models import UnreadableData
from pgjobq.postgres.schema import migrate
from pgjobq.storage.postgres_storage import PostgresStorage

Open = Callable[..., BaseStorage]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Return open_storage. Its storages are closed at the end."""
    made: list[BaseStorage] = []

    def make(url: str, **options: Any) -> BaseStorage:
        made.append(open_storage(url, **options))
        return made[-1]

    yield make
    for storage in made:
        storage.close()


@pytest.fixture
def other(dsn: str, opened: Open) -> BaseStorage:
    """An empty PostgresStorage in another schema of the same database."""
    migrate(dsn, schema="other", public_function=False)
    return opened(dsn, schema="other")


# -- copy_jobs --------------------------------------------------------------------------------------


def test_every_job_arrives_unchanged(storage: PostgresStorage, other: BaseStorage) -> None:
    fill(storage)
    before = all_of(storage)
    report = copied(storage, other)
    assert (report.read, report.added, report.there, report.running, report.refused) == (8, 8, 0, 2, {})
    assert all_of(storage) == before
    after = all_of(other)
    assert set(after) == set(before)
    for name in before.keys() - {"running", "used-up"}:
        assert after[name] == replace(before[name], worker_id=None, claim_id=None)


def test_running_job_arrives_as_pending_or_failed(storage: PostgresStorage, other: BaseStorage) -> None:
    fill(storage)
    copied(storage, other)
    again, failed = other.get_job("running"), other.get_job("used-up")
    assert again is not None
    assert failed is not None
    assert (again.status, again.attempts, again.finished_at, again.worker_id) == ("pending", 1, None, None)
    assert (failed.status, failed.attempts, failed.worker_id) == ("failed", 1, None)
    assert failed.failed_at == failed.finished_at == failed.updated_at
    for job, tries in ((again, "try 1 of 4"), (failed, "try 1 of 1")):
        assert job.error is not None
        assert f"was running when it was copied ({tries})" in job.error
    due = {job.id: job.attempts for job in other.dequeue_many(10)}
    assert due == {"running": 2, "plain": 1}


def test_order_of_enqueueing_is_kept(storage: PostgresStorage, other: BaseStorage) -> None:
    names = [f"{n * 7919 % 1000:03}" for n in range(30)]
    for name in names:
        storage.enqueue(name, "t", {}, priority=int(name) % 3)
    copied(storage, other, batch=4)
    order = [job.id for job in other.dequeue_many(100)]
    assert order == sorted(names, key=lambda name: -(int(name) % 3))


def test_second_copy_adds_new_jobs_and_changes_nothing_else(storage: PostgresStorage, other: BaseStorage) -> None:
    fill(storage)
    copied(storage, other)
    other.cancel("plain")
    before = all_of(other)
    storage.enqueue("new", "t", {})
    report = copied(storage, other, batch=3)
    assert (report.read, report.added, report.there, report.running, report.refused) == (9, 1, 8, 2, {})
    after = all_of(other)
    assert after.pop("new").status == "pending"
    assert after == before


@pytest.mark.parametrize("batches", [0, 1, 2, 5])
def test_interrupted_copy_can_be_resumed(storage: PostgresStorage, other: BaseStorage, batches: int) -> None:
    storage.enqueue_many([NewJob(type="t", id=f"{n}") for n in range(10)])
    cut_off = copy_jobs(storage, other, batch=2)
    for _ in range(batches + 1):
        report = next(cut_off)
    assert (report.read, len(all_of(other))) == (2 * batches, 2 * batches)
    cut_off.close()
    report = copied(storage, other, batch=3)
    assert (report.added, report.there) == (10 - 2 * batches, 2 * batches)
    assert all_of(other) == all_of(storage)


class ListSource:
    """A source of jobs that counts how many of its batches are in memory at once."""

    class Batch(list[Job]):
        """A list that can have weak references."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs, self.alive, self.most = jobs, weakref.WeakSet[Any](), 0

    def export_jobs(self, batch: int = 500) -> Iterator[list[Job]]:
        for start in range(0, len(self._jobs), batch):
            some = self.Batch(self._jobs[start : start + batch])
            self._refs = [*getattr(self, "_refs", []), weakref.ref(some)]
            self.most = max(self.most, sum(ref() is not None for ref in self._refs))
            yield some
            del some


class Recorder(BaseStorage):
    """Accepts jobs and records the number and the size of each call. The other methods are not used."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def import_jobs(self, jobs: Sequence[Job]) -> int:
        self.calls.append((len(jobs), sum(len(json.dumps(job.data)) for job in jobs)))
        return len(jobs)

    def enqueue(self, *_: Any, **__: Any) -> None: ...
    def dequeue(self) -> Job | None: ...
    def complete(self, job_id: str) -> None: ...
    def fail(self, job_id: str, error: str) -> None: ...
    def retry(self, job_id: str, delay_seconds: float) -> None: ...
    def get_job(self, job_id: str) -> Job | None: ...
    def list_jobs(self, status: str | None = None, limit: int | None = None) -> list[Job]:
        return []


def test_only_one_batch_is_kept_in_memory() -> None:
    source = ListSource([Job(id=str(n), type="t") for n in range(1000)])
    assert copied(source, Recorder(), batch=10).added == 1000
    assert source.most <= 2  # the current batch, and the previous one until it is released


def test_large_data_is_written_in_several_calls() -> None:
    destination = Recorder()
    jobs = [Job(id=str(n), type="t", data={"x": "x" * 1_000_000}) for n in range(20)]
    jobs.append(Job(id="huge", type="t", data={"x": "x" * (2 * MAX_BATCH_DATA)}))
    assert copied(ListSource(jobs), destination).added == 21
    assert [count for count, _ in destination.calls] == [7, 7, 6, 1]
    assert all(size <= MAX_BATCH_DATA or count == 1 for count, size in destination.calls)


def test_refused_job_does_not_stop_the_others(other: BaseStorage) -> None:
    bad = {
        "": "job_id: has 0 characters",
        "unreadable": "cannot be read: ValueError: x",
        "nul": r"data\.a: contains a NUL character",
        "type": "type: has 300 characters",
        "queue": "queue: has 0 characters",
        "priority": "priority: 2147483648 is not allowed",
        "attempts": "attempts: -1 is not allowed",
        "error": "error: contains a NUL character",
        "late": "execute_at: it must be in the years 1 to 9999",
    }
    fields: dict[str, dict[str, Any]] = {
        "unreadable": {"data": UnreadableData("ValueError: x")},
        "nul": {"data": {"a": "\0"}},
        "type": {"type": "t" * 300},
        "queue": {"queue": ""},
        "priority": {"priority": 2**31},
        "attempts": {"attempts": -1},
        "error": {"error": "\0", "status": "failed"},
        "late": {"execute_at": datetime(9999, 12, 31, 12, 0, tzinfo=UTC)},
    }
    jobs = [Job(id=name, **{"type": "t", **fields.get(name, {})}) for name in bad]
    good = [Job(id=f"good{n}", type="t") for n in range(30)]
    for n, one in enumerate(jobs):
        good.insert(3 * n, one)
    report = copied(ListSource(good), other)
    assert (report.read, report.added, report.there) == (39, 30, 0)
    assert set(report.refused) == set(bad)
    for name, message in bad.items():
        assert re.match(message, report.refused[name])
    assert set(all_of(other)) == {f"good{n}" for n in range(30)}


def test_destination_that_cannot_import_jobs_is_unsupported() -> None:
    class Seven(Recorder):
        import_jobs = BaseStorage.import_jobs

    with pytest.raises(Unsupported, match="Seven cannot import jobs with their state"):
        copied(ListSource([Job(id="a", type="t")]), Seven())


# -- arriving ---------------------------------------------------------------------------------------


def test_finished_job_without_finish_times_gets_the_time_of_its_last_update() -> None:
    at = datetime(2024, 2, 1, tzinfo=UTC)
    for status in ("completed", "failed", "cancelled"):
        job, data = arriving(Job(id="a", type="t", status=JobStatus(status), updated_at=at, worker_id=2**60))
        assert (job.finished_at, job.failed_at, data) == (at, at if status == "failed" else None, "{}")
        assert job.worker_id is None
    job, _ = arriving(Job(id="a", type="t", finished_at=at, failed_at=at))
    assert (job.finished_at, job.failed_at) == (None, None)  # the job was retried, so it is not finished
