"""Cancelling jobs that run: how soon their workers hear of it, and what becomes of their handlers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from working import eventually, finished

from pgjobq import InvalidJob, Job, JobQueue, JobStatus, Registry, Worker, job
from pgjobq.postgres import presence
from pgjobq.storage.postgres_storage import PostgresStorage
from pgjobq.worker import RunningJob

Connection = psycopg.Connection[Any]
StartWorker = Callable[..., Worker]


@pytest.fixture
def start(queue: JobQueue, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Iterator[StartWorker]:
    """Starts workers that find no lost job by their rounds of maintenance: what they know, they have heard."""
    monkeypatch.setattr(presence, "BUSY_PAUSE", 600.0)
    monkeypatch.setattr(presence, "IDLE_PAUSE", 600.0)
    monkeypatch.setattr("pgjobq.worker.maintenance.LONG_RUN", 600.0)
    workers: list[Worker] = []

    def make(**options: Any) -> Worker:
        workers.append(Worker(queue, registry=registry, **{"grace": 5, **options}))
        workers[-1].start()
        return workers[-1]

    yield make
    for worker in workers:
        worker.stop(grace=1)


class Sleeper:
    """An async handler that sleeps for long, and what happened to it."""

    def __init__(self, registry: Registry) -> None:
        self.started, self.cancelled = threading.Event(), threading.Event()

        @job(registry=registry, type="sleep")
        async def sleep() -> None:
            self.started.set()
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise


@pytest.fixture
def sleeper(registry: Registry) -> Sleeper:
    return Sleeper(registry)


@pytest.mark.parametrize("concurrency", [1, 8])
def test_cancel_reaches_a_worker_with_and_without_room(
    queue: JobQueue, start: StartWorker, sleeper: Sleeper, concurrency: int
) -> None:
    start(concurrency=concurrency)
    for _ in range(3):  # before, and after, the worker has told that it has no room
        job_id = queue.enqueue("sleep")
        assert sleeper.started.wait(10)
        assert queue.cancel(job_id)
        assert sleeper.cancelled.wait(10)
        sleeper.started.clear()
        sleeper.cancelled.clear()
    job_id = queue.enqueue("sleep")
    assert sleeper.started.wait(10)
    time.sleep(1.5)  # longer than any round of looking and listening
    assert queue.cancel(job_id)
    assert sleeper.cancelled.wait(10)


def test_cancel_is_heard_while_the_worker_is_paused_and_while_it_stops(
    queue: JobQueue, start: StartWorker, sleeper: Sleeper
) -> None:
    worker = start()
    job_id = queue.enqueue("sleep")
    assert sleeper.started.wait(10)
    worker.pause()
    time.sleep(0.2)
    assert queue.cancel(job_id)
    assert sleeper.cancelled.wait(10)
    sleeper.started.clear()
    sleeper.cancelled.clear()
    worker.resume()
    job_id = queue.enqueue("sleep")
    assert sleeper.started.wait(10)
    stopping = threading.Thread(target=worker.stop, args=(60.0,))
    stopping.start()
    time.sleep(0.2)
    assert queue.cancel(job_id)
    assert sleeper.cancelled.wait(10)
    stopping.join(10)
    assert not stopping.is_alive()  # it waited for no other job


def test_cancel_in_a_transaction_is_heard_when_that_commits(
    queue: JobQueue, conn: Connection, start: StartWorker, sleeper: Sleeper
) -> None:
    start()
    job_id = queue.enqueue("sleep")
    assert sleeper.started.wait(10)
    with conn.transaction():
        conn.execute("select pgjobq.cancel_job(%s)", [job_id])
        assert not sleeper.cancelled.wait(0.3)
    assert sleeper.cancelled.wait(10)


def test_cancel_is_heard_after_the_listener_was_cut_off(
    queue: JobQueue, conn: Connection, start: StartWorker, sleeper: Sleeper
) -> None:
    start(concurrency=1)
    job_id = queue.enqueue("sleep")
    assert sleeper.started.wait(10)
    time.sleep(0.5)
    query = (
        "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and query ~* '^listen'"
    )
    conn.execute(query)
    conn.execute("select pgjobq.cancel_job(%s)", [job_id])
    # The next round of maintenance connects again.
    assert eventually(lambda: sleeper.cancelled.is_set() or _round(queue))


def _round(queue: JobQueue) -> bool:
    queue.storage.maintain([])
    return False


def test_sync_handler_sees_that_its_job_was_cancelled(queue: JobQueue, registry: Registry, start: StartWorker) -> None:
    started, lost = threading.Event(), threading.Event()

    @job(registry=registry, type="loop")
    def loop(job: RunningJob) -> None:
        started.set()
        eventually(lambda: job.lost)
        lost.set()

    start(concurrency=1)
    job_id = queue.enqueue("loop")
    assert started.wait(10)
    assert queue.cancel(job_id, "not wanted any more")
    assert lost.wait(10)
    found = finished(queue, job_id)
    assert (found.status, found.error) == (JobStatus.CANCELLED, "not wanted any more")


def test_other_jobs_of_the_worker_go_on(queue: JobQueue, registry: Registry, start: StartWorker) -> None:
    ends, stopped = threading.Event(), set[int]()
    started: set[int] = set()

    @job(registry=registry, type="loop")
    def loop(job: RunningJob, n: int) -> None:
        started.add(n)
        eventually(lambda: ends.is_set() or job.lost)
        if job.lost:
            stopped.add(n)

    start(concurrency=3)
    ids = [queue.enqueue("loop", {"n": n}) for n in range(3)]
    eventually(lambda: len(started) == 3)
    assert queue.cancel(ids[1])
    eventually(lambda: stopped == {1})
    ends.set()
    assert [finished(queue, job_id).status for job_id in ids] == ["completed", "cancelled", "completed"]


@pytest.mark.parametrize("reason", ["", "x" * 1001, 7, "a\0b", "\ud800"])
def test_reason_must_be_a_text(queue: JobQueue, reason: Any) -> None:
    queue.enqueue("t", job_id="a")
    with pytest.raises(InvalidJob, match="^reason: "):
        queue.cancel("a", reason)
    found = queue.get_job("a")
    assert found is not None
    assert found.status == JobStatus.PENDING


def test_cancel_without_a_reason_keeps_the_error(storage: PostgresStorage) -> None:
    storage.enqueue("a", "t", {})
    held = storage.dequeue()
    assert isinstance(held, Job)
    storage.fail("a", "it broke")
    storage.retry("a", 0)
    assert storage.cancel("a")
    found = storage.get_job("a")
    assert found is not None
    assert (found.status, found.error) == (JobStatus.CANCELLED, "it broke")


def test_pending_job_that_ran_before_notifies_no_worker(storage: PostgresStorage, conn: Connection) -> None:
    storage.enqueue("a", "t", {})
    held = storage.dequeue()
    assert held is not None
    storage.retry("a", 3600)
    row = conn.execute("select pgjobq.cancel_channel(%s)", [held.worker_id]).fetchone()
    assert row is not None
    conn.execute(f'listen "{row[0]}"')
    conn.execute("select pgjobq.cancel_job('a')")
    assert list(conn.notifies(timeout=0.2)) == []
