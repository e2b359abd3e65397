"""Cancelling running jobs: how soon the worker learns of it, and what happens to the handler."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers.until import until
from helpers.working import finished

from pgjobq import Cancelled, InvalidJob, Job, JobQueue, JobStatus, Registry, Worker, job, open_storage
from pgjobq.outcomes import Maintenance
from pgjobq.postgres import presence
from pgjobq.storage.postgres_storage import PostgresStorage
from pgjobq.worker import RunningJob

Connection = psycopg.Connection[Any]
StartWorker = Callable[..., Worker]


@pytest.fixture
def start(queue: JobQueue, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Iterator[StartWorker]:
    """Return a function that starts workers.

    Their maintenance never runs, so they learn of a cancelled job only by a notification.
    """
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
    """An async handler that sleeps for a long time and records whether it was cancelled."""

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
def test_cancel_reaches_a_worker_whether_it_has_room_or_not(
    queue: JobQueue, start: StartWorker, sleeper: Sleeper, concurrency: int
) -> None:
    start(concurrency=concurrency)
    for _ in range(3):  # before and after the worker has reported that it has no room
        job_id = queue.enqueue("sleep")
        assert sleeper.started.wait(10)
        assert queue.cancel(job_id)
        assert sleeper.cancelled.wait(10)
        sleeper.started.clear()
        sleeper.cancelled.clear()
    job_id = queue.enqueue("sleep")
    assert sleeper.started.wait(10)
    time.sleep(1.5)  # longer than the worker's pauses between polls
    assert queue.cancel(job_id)
    assert sleeper.cancelled.wait(10)


def test_cancel_reaches_a_worker_that_is_paused_or_stopping(
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
    assert not stopping.is_alive()  # the worker has no other job to wait for


def test_cancel_in_a_transaction_takes_effect_at_its_commit(
    queue: JobQueue, conn: Connection, start: StartWorker, sleeper: Sleeper
) -> None:
    start()
    job_id = queue.enqueue("sleep")
    assert sleeper.started.wait(10)
    with conn.transaction():
        conn.execute("select pgjobq.cancel_job(%s)", [job_id])
        assert not sleeper.cancelled.wait(0.3)
    assert sleeper.cancelled.wait(10)


def test_cancel_reaches_a_worker_whose_listener_lost_its_connection(
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
    # The next maintenance opens the connection again.
    assert until(lambda: sleeper.cancelled.is_set() or _round(queue))


def _round(queue: JobQueue) -> bool:
    queue.storage.maintain([])
    return False


def test_sync_handler_sees_that_its_job_was_cancelled(queue: JobQueue, registry: Registry, start: StartWorker) -> None:
    started, lost = threading.Event(), threading.Event()

    @job(registry=registry, type="loop")
    def loop(job: RunningJob) -> None:
        started.set()
        until(lambda: job.lost)
        lost.set()

    start(concurrency=1)
    job_id = queue.enqueue("loop")
    assert started.wait(10)
    assert queue.cancel(job_id, "not wanted any more")
    assert lost.wait(10)
    found = finished(queue, job_id)
    assert (found.status, found.error) == (JobStatus.CANCELLED, "not wanted any more")


def test_other_jobs_of_the_worker_continue(queue: JobQueue, registry: Registry, start: StartWorker) -> None:
    ends, stopped = threading.Event(), set[int]()
    started: set[int] = set()

    @job(registry=registry, type="loop")
    def loop(job: RunningJob, n: int) -> None:
        started.add(n)
        until(lambda: ends.is_set() or job.lost)
        if job.lost:
            stopped.add(n)

    start(concurrency=3)
    ids = [queue.enqueue("loop", {"n": n}) for n in range(3)]
    until(lambda: len(started) == 3)
    assert queue.cancel(ids[1])
    until(lambda: stopped == {1})
    ends.set()
    assert [finished(queue, job_id).status for job_id in ids] == ["completed", "cancelled", "completed"]


@pytest.mark.parametrize("reason", ["", "x" * 1001, 7, "a\0b", "\ud800"])
def test_invalid_reason_is_refused(queue: JobQueue, reason: Any) -> None:
    queue.enqueue("t", job_id="a")
    with pytest.raises(InvalidJob, match=r"^reason: "):
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


def test_cancel_of_a_pending_job_that_ran_before_notifies_no_worker(storage: PostgresStorage, conn: Connection) -> None:
    storage.enqueue("a", "t", {})
    held = storage.dequeue()
    assert held is not None
    storage.retry("a", 3600)
    row = conn.execute("select pgjobq.cancel_channel(%s)", [held.worker_id]).fetchone()
    assert row is not None
    conn.execute(f'listen "{row[0]}"')
    conn.execute("select pgjobq.cancel_job('a')")
    assert list(conn.notifies(timeout=0.2)) == []


def test_check_raises_cancelled_and_nothing_is_settled(
    queue: JobQueue, registry: Registry, start: StartWorker, caplog: pytest.LogCaptureFixture
) -> None:
    started, raised = threading.Event(), list[BaseException]()

    @job(registry=registry, type="loop")
    def loop(job: RunningJob) -> None:
        job.check()  # the job is not cancelled yet
        started.set()
        try:
            while True:
                job.check()
                time.sleep(0.001)
        except Cancelled as error:
            raised.append(error)
            raise

    worker = start(concurrency=1)
    job_id = queue.enqueue("loop")
    assert started.wait(10)
    assert queue.cancel(job_id)
    until(lambda: raised)
    started.clear()
    assert queue.enqueue("loop", job_id="next")
    assert started.wait(10)  # another thread took the place of the one whose job was cancelled
    assert queue.cancel("next")
    worker.stop()
    assert [finished(queue, id_).status for id_ in (job_id, "next")] == ["cancelled", "cancelled"]
    events = [record.__dict__.get("event") for record in caplog.records]
    assert "job.failed" not in events
    assert "job.ended_late" not in events


@pytest.mark.parametrize("is_async", [False, True])
def test_cancelled_fails_the_job_if_the_handler_raises_it_without_a_cancel(
    queue: JobQueue, registry: Registry, start: StartWorker, is_async: bool
) -> None:
    def raises() -> None:
        raise Cancelled

    async def raises_async() -> None:
        raise Cancelled

    job(registry=registry, type="raises", max_retries=0)(raises_async if is_async else raises)
    start()
    found = finished(queue, queue.enqueue("raises", max_retries=0))
    assert found.status == JobStatus.FAILED
    assert "Cancelled" in (found.error or "")


def test_check_raises_past_the_timeout_and_no_transaction_begins(
    queue: JobQueue, registry: Registry, start: StartWorker
) -> None:
    raised: list[BaseException] = []

    @job(registry=registry, type="slow", timeout=0.1, max_retries=0)
    def slow(job: RunningJob) -> None:
        until(lambda: job.lost)
        try:
            job.check()
        except Cancelled as error:
            raised.append(error)
        with job.transaction():
            raised.clear()  # not reached

    start()
    assert finished(queue, queue.enqueue("slow", max_retries=0)).status == JobStatus.FAILED
    until(lambda: raised)


@pytest.mark.parametrize("kind", ["sqlite", "pooled"])
def test_worker_without_notifications_learns_of_cancels_through_its_own_storage(
    kind: str, dsn: str, tmp_path: Path, registry: Registry, sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/jobs.db") if kind == "sqlite" else PostgresStorage(dsn, pooled=True)
    monkeypatch.setattr(storage, "maintain", lambda _: Maintenance(again_in=600.0))
    worker = Worker(storage, registry=registry, grace=1)
    worker.start()
    with JobQueue(storage, registry=registry) as queue:
        for many in (False, True):
            job_id = queue.enqueue("sleep")
            assert sleeper.started.wait(10)
            assert queue.cancel_jobs(type="sleep") == 1 if many else queue.cancel(job_id)
            assert sleeper.cancelled.wait(10)
            sleeper.started.clear()
            sleeper.cancelled.clear()
        worker.stop()


# -- statements in job.transaction() --------------------------------------------------------------------


class InTransaction:
    """A handler that runs statements in its job's transaction and records the errors that they raise."""

    def __init__(self, registry: Registry, statements: list[str], **options: Any) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.raised: list[BaseException] = []

        @job(registry=registry, type="statements", **options)
        def run(job: RunningJob) -> None:
            try:
                with job.transaction() as conn:
                    conn.execute("create table public.traces as select 1 as n")
                    self.begun.set()
                    for statement in statements:
                        conn.execute(statement)
                    self.go_on.wait(30)
                    conn.execute("select pg_sleep(600)")
            except BaseException as error:
                self.raised.append(error)
                raise


def traces(conn: Connection) -> bool:
    row = conn.execute("select to_regclass('public.traces') is not null").fetchone()
    assert row is not None
    return bool(row[0])


def test_cancel_interrupts_the_statement_in_the_transaction_of_the_job(
    queue: JobQueue, registry: Registry, start: StartWorker, conn: Connection
) -> None:
    seen = InTransaction(registry, ["select pg_sleep(600)"])
    start(concurrency=1)
    job_id = queue.enqueue("statements")
    assert seen.begun.wait(10)
    assert queue.cancel(job_id)
    (error,) = until(lambda: seen.raised)
    assert isinstance(error, Cancelled)
    assert isinstance(error.__cause__, psycopg.errors.QueryCanceled)
    assert not traces(conn)
    assert finished(queue, job_id).status == JobStatus.CANCELLED


def test_statement_that_begins_after_the_cancel_is_interrupted_too(
    queue: JobQueue, registry: Registry, start: StartWorker
) -> None:
    seen = InTransaction(registry, [])
    worker = start(concurrency=1)
    job_id = queue.enqueue("statements")
    assert seen.begun.wait(10)
    assert queue.cancel(job_id)
    until(lambda: not worker._threads.running())
    seen.go_on.set()
    until(lambda: seen.raised)
    assert isinstance(seen.raised[0], Cancelled)


def test_timeout_interrupts_the_statement(
    queue: JobQueue, registry: Registry, start: StartWorker, conn: Connection
) -> None:
    seen = InTransaction(registry, ["select pg_sleep(600)"], timeout=0.3, max_retries=0)
    start(concurrency=1)
    found = finished(queue, queue.enqueue("statements", max_retries=0))
    assert found.status == JobStatus.FAILED
    assert "JobTimeout" in (found.error or "")
    until(lambda: seen.raised)
    assert isinstance(seen.raised[0], Cancelled)
    assert not traces(conn)


def test_interrupt_does_not_affect_a_later_user_of_the_connection(storage: PostgresStorage) -> None:
    """The connection returns to the pool when the transaction ends, so interrupt() must do nothing from then on."""
    storage.enqueue("a", "t", {})
    held = storage.dequeue()
    assert held is not None
    transaction = storage.transaction(held)
    assert not transaction.interrupt()  # the transaction has not begun
    with transaction as conn:
        assert transaction.interrupt()  # no statement runs, so this interrupts nothing
        assert conn.execute("select 1").fetchone() == (1,)
    assert not transaction.interrupt()
    assert transaction.settled


def test_transaction_does_not_begin_if_its_job_is_already_lost(storage: PostgresStorage) -> None:
    storage.enqueue("a", "t", {})
    held = storage.dequeue()
    assert held is not None
    running = RunningJob.from_job(held, storage)
    transaction = running.transaction()
    object.__setattr__(running, "lost", True)
    with pytest.raises(Cancelled), transaction:
        pytest.fail("the transaction has begun")
    assert not transaction.interrupt()
