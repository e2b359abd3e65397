"""The doorbell while workers fall asleep, wake, stop and die: no enqueue is missed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from helpers.sleeper import Sleeper
from helpers.until import until

from pgjobq import Registry, Worker, job
from pgjobq.postgres.listener import Heard, Listener
from pgjobq.postgres.pool import readable
from pgjobq.storage.postgres_storage import PostgresStorage

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]
MakeStorage = Callable[..., PostgresStorage]


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
@pytest.mark.parametrize("looked", ["before", "after"])
def test_enqueue_that_is_open_while_the_worker_falls_asleep_is_not_missed(
    connect: Connect, make_storage: MakeStorage, isolation: str, looked: str
) -> None:
    """The enqueue reads the doorbell before or after the registration, and commits when the worker sleeps."""
    storage = make_storage(poll_interval=3600)  # no fallback poll
    writer = connect(autocommit=False)
    writer.execute(f"set transaction isolation level {isolation}")
    writer.execute("select count(*) from jobs")
    if looked == "before":
        writer.execute("select enqueue_job('t', job_id => 'a')")
    claimed: list[str] = []

    def fall_asleep() -> None:
        while not claimed:
            jobs = storage.dequeue_many(1)
            claimed.extend(job.id for job in jobs)
            if not jobs:
                storage.wait(3600)

    worker = threading.Thread(target=fall_asleep, daemon=True)
    worker.start()
    watcher = connect()
    deadline = time.monotonic() + 5
    while watcher.execute("select count(*) from worker_status where asleep").fetchone() == (0,):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.3)  # after the last claim before sleep
    if looked == "after":
        writer.execute("select enqueue_job('t', job_id => 'a')")
    writer.commit()
    worker.join(3)
    assert claimed == ["a"]


def test_worker_waits_for_an_open_enqueue_before_it_sleeps(connect: Connect, make_storage: MakeStorage) -> None:
    storage = make_storage(poll_interval=3600)
    writer = connect(autocommit=False)
    writer.execute("select enqueue_job('t')")
    assert storage.dequeue_many(1) == []
    storage.wait(10)  # this registers the worker and records the open transaction
    policy = storage._presence._policy
    assert len(policy.open) == 1
    began = time.monotonic()
    storage.wait(0.3)
    assert 0.25 < time.monotonic() - began < 2
    writer.rollback()
    storage.wait(10)  # this returns because the open transaction has ended
    assert policy.open == set()


def test_scheduled_job_sets_an_alarm(make_storage: MakeStorage, conn: Connection) -> None:
    storage = make_storage(poll_interval=3600)
    assert storage.dequeue_many(1) == []
    storage.wait(10)
    conn.execute("select enqueue_job('t', job_id => 'a', execute_at => now() + '0.5 s')")
    deadline = time.monotonic() + 5
    while not (jobs := storage.dequeue_many(1)):
        assert time.monotonic() < deadline
        storage.wait(3600)
    assert [job.id for job in jobs] == ["a"]


class Listening:
    """Claims and waits in a thread as a worker does. There is no fallback poll."""

    def __init__(self, storage: PostgresStorage) -> None:
        self.storage, self.claimed = storage, list[str]()
        self.looks = True
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while not self.claimed:
            if self.looks:
                self.claimed += [job.id for job in self.storage.dequeue_many(1)]
            if not self.claimed:
                self.looks = self.storage.wait(3600) is not False


@pytest.mark.parametrize("then", ["full", "asleep"])
def test_enqueue_that_relied_on_a_poller_is_not_missed_when_the_poller_stops(
    connect: Connect, conn: Connection, make_storage: MakeStorage, then: str
) -> None:
    """The enqueue sees a polling worker, and commits when that worker has no room any more or sleeps again."""
    poller = make_storage(poll_interval=3600)
    conn.execute("select enqueue_jobs(array_fill('t'::text, array[10]))")
    assert len(poller.dequeue_many(10)) == 10  # the claim was full, so the worker polls
    other = Listening(make_storage(poll_interval=3600)) if then == "full" else None
    if other is not None:
        until(lambda: conn.execute("select count(*) from worker_status where asleep").fetchone() == (1,), seconds=5)
        time.sleep(0.3)  # after the last claim before sleep
    writer = connect(autocommit=False)
    writer.execute("select enqueue_job('t', job_id => 'late')")
    if other is not None:
        poller.note_load(busy=True, full=True)
    else:
        other = Listening(poller)
        until(lambda: conn.execute("select count(*) from worker_status where asleep").fetchone() == (1,), seconds=5)
    time.sleep(0.3)
    assert other.claimed == []
    writer.commit()
    until(lambda: other.claimed == ["late"], seconds=5)


def test_enqueue_that_relied_on_a_dead_poller_is_seen_by_a_worker_that_fell_asleep_meanwhile(
    connect: Connect, conn: Connection, make_storage: MakeStorage, sleeper: Callable[..., Sleeper], registry: Registry
) -> None:
    """The enqueue stays open for some time after the death. A third worker runs a long job and cannot help."""
    ran = threading.Event()

    @job(type="t", registry=registry)
    def run() -> None:
        ran.set()

    conn.execute("select enqueue_job('long', queue => 'else')")
    conn.execute("select from claim_jobs(%s)", [sleeper(["else"]).id])
    poller = sleeper()
    assert poller.poll()

    def asked_last(function: str) -> int:
        """Return how many sessions called this function last and have its answer."""
        query = """select count(*) from pg_stat_activity
                    where datname = current_database() and pid <> pg_backend_pid() and state = 'idle' and query like %s"""
        row = conn.execute(query, [f"%.{function}(%"]).fetchone()
        assert row is not None
        return int(row[0])

    worker = Worker(make_storage(poll_interval=3600), registry=registry)
    worker.start()
    try:
        until(lambda: asked_last("next_due") == 1, seconds=5)  # the worker is asleep
        writer = connect(autocommit=False)
        writer.execute("select enqueue_job('t')")
        poller.conn.close()
        until(lambda: asked_last("open_transactions") == 1, seconds=5)  # it falls asleep again and waits for the writer
        writer.commit()
        assert ran.wait(1)
    finally:
        worker.stop()


@pytest.mark.parametrize("then", ["stop", "pause"])
def test_worker_that_stops_or_pauses_is_no_longer_notified(
    conn: Connection, make_storage: MakeStorage, registry: Registry, then: str
) -> None:
    """Its job continues during the grace period, but enqueues must notify the other worker."""
    go_on, done = threading.Event(), threading.Event()

    @job(type="long", registry=registry)
    def run_long() -> None:
        go_on.wait(10)

    @job(type="t", registry=registry)
    def run() -> None:
        done.set()

    first, second = (Worker(make_storage(poll_interval=3600), registry=registry, grace=10) for _ in range(2))
    first.start()
    stopping = threading.Thread(target=getattr(first, then))
    try:
        conn.execute("select enqueue_job('long')")
        until(lambda: conn.execute("select count(*) from jobs where status = 'running'").fetchone() == (1,), seconds=5)
        second.start()
        until(lambda: conn.execute("select count(*) from worker_status where asleep").fetchone() == (2,), seconds=5)
        stopping.start()
        until(lambda: conn.execute("select count(*) from worker_status where asleep").fetchone() == (1,), seconds=5)
        conn.execute("select enqueue_job('t')")
        assert done.wait(3)
    finally:
        go_on.set()
        stopping.join(10)
        first.stop()
        second.stop()


def test_storage_that_changes_its_queues_no_longer_polls_the_old_ones(
    conn: Connection, make_storage: MakeStorage
) -> None:
    storage = make_storage(poll_interval=3600)
    conn.execute("select enqueue_jobs(array_fill('t'::text, array[10]))")
    assert len(storage.dequeue_many(10)) == 10  # the claim was full, so the worker polls
    assert conn.execute("select is_held('polling', 0)").fetchone() == (True,)
    storage.wait(0.01, ["else"])
    assert conn.execute("select is_held('polling', 0)").fetchone() == (False,)


def test_watching_worker_takes_the_job_of_a_notified_worker_that_died(
    conn: Connection, make_storage: MakeStorage, sleeper: Callable[..., Sleeper], registry: Registry
) -> None:
    ran = threading.Event()

    @job(type="t", registry=registry)
    def run() -> None:
        ran.set()

    doomed = sleeper()
    doomed.arm()
    worker = Worker(make_storage(poll_interval=3600), registry=registry)
    worker.start()
    try:
        until(lambda: conn.execute("select count(*) from worker_status where asleep").fetchone() == (2,), seconds=5)
        time.sleep(0.3)
        conn.execute("select enqueue_job('t')")  # this notifies the first worker, which never claims
        doomed.conn.close()
        assert ran.wait(3)
    finally:
        worker.stop()


def test_notification_that_another_thread_reads_wakes_the_worker(conn: Connection, make_storage: MakeStorage) -> None:
    """Maintenance also reads the listener's socket, and may get the notification before the waiting thread does."""
    storage = make_storage(poll_interval=3600)
    assert storage.dequeue_many(1) == []
    storage.wait(10)  # this registers the worker
    listener = storage._presence._listener
    assert listener is not None
    conn.execute("select enqueue_job('t')")
    until(lambda: _readable(listener), seconds=5)
    listener.keep()  # this reads the notification
    assert not _readable(listener)
    listener._heard = Heard()  # as if the waiting thread had checked just before
    began = time.monotonic()
    assert storage.wait(5) is not False
    assert time.monotonic() - began < 4


def _readable(listener: Listener) -> bool:
    assert listener._conn is not None
    return readable(listener._conn.fileno())
