"""The doorbell while others fall asleep, wake, stop and die: no enqueue is missed."""

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
def test_enqueue_open_while_the_worker_falls_asleep_is_not_missed(
    connect: Connect, make_storage: MakeStorage, isolation: str, looked: str
) -> None:
    """The race: the enqueue looks at the doorbell before or after the registration, and commits when all sleep."""
    storage = make_storage(poll_interval=3600)  # no fallback
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
    time.sleep(0.3)  # past the last claim before sleep
    if looked == "after":
        writer.execute("select enqueue_job('t', job_id => 'a')")
    writer.commit()
    worker.join(3)
    assert claimed == ["a"]


def test_worker_polls_while_an_early_enqueue_is_open_and_sleeps_after(
    connect: Connect, make_storage: MakeStorage
) -> None:
    storage = make_storage(poll_interval=3600)
    writer = connect(autocommit=False)
    writer.execute("select enqueue_job('t')")
    assert storage.dequeue_many(1) == []
    storage.wait(10)  # registers, and notes the open transaction
    policy = storage._presence._policy
    assert len(policy.open) == 1
    began = time.monotonic()
    storage.wait(0.3)
    assert 0.25 < time.monotonic() - began < 2
    writer.rollback()
    storage.wait(10)  # returns, for the one it waited for has ended
    assert policy.open == set()


def test_scheduled_job_is_an_alarm(make_storage: MakeStorage, conn: Connection) -> None:
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
    """A storage whose thread claims and waits, as a worker's does; no fallback poll."""

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
def test_enqueue_that_counted_on_a_poller_is_not_missed_when_that_stops(
    connect: Connect, conn: Connection, make_storage: MakeStorage, then: str
) -> None:
    """It looked while one polled, and commits when that one polls no more: it has no room, or sleeps again."""
    poller = make_storage(poll_interval=3600)
    conn.execute("select enqueue_jobs(array_fill('t'::text, array[10]))")
    assert len(poller.dequeue_many(10)) == 10  # as much as it asked for: it polls
    other = Listening(make_storage(poll_interval=3600)) if then == "full" else None
    if other is not None:
        until(lambda: conn.execute("select count(*) from worker_status where asleep").fetchone() == (1,), seconds=5)
        time.sleep(0.3)  # past the last claim before sleep
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


def test_enqueue_that_counted_on_a_poller_that_died_is_seen_by_one_that_fell_asleep_beside_it(
    connect: Connect, conn: Connection, make_storage: MakeStorage, sleeper: Callable[..., Sleeper], registry: Registry
) -> None:
    """It is open for seconds after the death, while a third worker has a job that takes hours."""
    ran = threading.Event()

    @job(type="t", registry=registry)
    def run() -> None:
        ran.set()

    conn.execute("select enqueue_job('long', queue => 'else')")
    conn.execute("select from claim_jobs(%s)", [sleeper(["else"]).id])
    poller = sleeper()
    assert poller.poll()

    def asked_last(function: str) -> int:
        """How many sessions called this function last, and have their answer."""
        query = """select count(*) from pg_stat_activity
                    where datname = current_database() and pid <> pg_backend_pid() and state = 'idle' and query like %s"""
        row = conn.execute(query, [f"%.{function}(%"]).fetchone()
        assert row is not None
        return int(row[0])

    worker = Worker(make_storage(poll_interval=3600), registry=registry)
    worker.start()
    try:
        until(lambda: asked_last("next_due") == 1, seconds=5)  # it sleeps
        writer = connect(autocommit=False)
        writer.execute("select enqueue_job('t')")
        poller.conn.close()
        until(lambda: asked_last("open_transactions") == 1, seconds=5)  # it falls asleep anew, and waits for the writer
        writer.commit()
        assert ran.wait(1)
    finally:
        worker.stop()


@pytest.mark.parametrize("then", ["stop", "pause"])
def test_worker_that_stops_or_pauses_tells_the_others(
    conn: Connection, make_storage: MakeStorage, registry: Registry, then: str
) -> None:
    """Its job goes on within the grace; nobody counts on it for others any more."""
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


def test_storage_asked_for_other_queues_lets_others_be_rung_for_the_old_ones(
    conn: Connection, make_storage: MakeStorage
) -> None:
    storage = make_storage(poll_interval=3600)
    conn.execute("select enqueue_jobs(array_fill('t'::text, array[10]))")
    assert len(storage.dequeue_many(10)) == 10  # as much as it asked for: it polls
    assert conn.execute("select is_held('polling', 0)").fetchone() == (True,)
    storage.wait(0.01, ["else"])
    assert conn.execute("select is_held('polling', 0)").fetchone() == (False,)


def test_job_of_a_worker_that_was_rung_and_died_is_seen_by_the_one_that_looks_after_it(
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
        conn.execute("select enqueue_job('t')")  # rings the first, which never claims
        doomed.conn.close()
        assert ran.wait(3)
    finally:
        worker.stop()


def test_bell_that_another_thread_reads_wakes_the_one_that_sleeps(conn: Connection, make_storage: MakeStorage) -> None:
    """Maintenance looks at the listener's socket, too: it may read the notification before the sleeper sees it."""
    storage = make_storage(poll_interval=3600)
    assert storage.dequeue_many(1) == []
    storage.wait(10)  # registers
    listener = storage._presence._listener
    assert listener is not None
    conn.execute("select enqueue_job('t')")
    until(lambda: _readable(listener), seconds=5)
    listener.keep()  # reads it
    assert not _readable(listener)
    listener._heard = Heard()  # as when the sleeper looked just before
    began = time.monotonic()
    assert storage.wait(5) is not False
    assert time.monotonic() - began < 4


def _readable(listener: Listener) -> bool:
    assert listener._conn is not None
    return readable(listener._conn.fileno())
