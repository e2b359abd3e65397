"""Tests with a slow disk, on which commits that notify wait for each other: workers poll, so that enqueues do not notify.

The tests block commits by a synchronous standby that does not exist. It blocks the next commit as a slow disk does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from helpers.until import until
from psycopg.conninfo import make_conninfo

from pgjobq import Registry, Worker, job
from pgjobq.devserver import DevServer
from pgjobq.postgres import sleep
from pgjobq.postgres.schema import migrate
from pgjobq.storage.postgres_storage import PostgresStorage

Connection = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    """Start a server for this module whose commits can be delayed."""
    with DevServer(durable=True) as server:
        migrate(server.dsn)
        yield server.dsn


@pytest.fixture
def conn(dsn: str) -> Iterator[Connection]:
    """Return a connection whose commits are never delayed."""
    with psycopg.connect(dsn, autocommit=True, options="-c search_path=pgjobq -c synchronous_commit=local") as conn:
        conn.execute("truncate jobs, ready, scheduled, claims")
        yield conn


@pytest.fixture
def block_commits(dsn: str, conn: Connection) -> Iterator[Callable[[], None]]:
    """Return a function that blocks all commits until the end of the test."""

    def standby(name: str) -> None:
        conn.execute(f"alter system set synchronous_standby_names = '{name}'")
        conn.execute("select pg_reload_conf()")
        until(lambda: conn.execute("show synchronous_standby_names").fetchone() == (name,))

    yield lambda: standby("nobody")
    standby("")


def notify(dsn: str, call: str) -> threading.Thread:
    """Run a statement in another thread, because its commit may be blocked."""

    def run() -> None:
        with psycopg.connect(dsn, autocommit=True, options="-c search_path=pgjobq") as conn:
            conn.execute(call)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def rings(conn: Connection) -> Any:
    """Return the result of rings_waiting."""
    row = conn.execute("select notifiers_waiting()").fetchone()
    return row and row[0]


def test_rings_waiting_counts_the_commits_behind_the_first(
    dsn: str, conn: Connection, block_commits: Callable[[], None]
) -> None:
    assert rings(conn) == 0
    block_commits()
    waiting = [notify(dsn, "select pg_notify('a_channel', enqueue_job('note'))") for _ in range(3)]
    until(lambda: rings(conn) == 2)
    conn.execute("alter system reset synchronous_standby_names")
    conn.execute("select pg_reload_conf()")
    for thread in waiting:
        thread.join(20)
    assert rings(conn) == 0


@pytest.mark.parametrize("early", [False, True], ids=["", "and an enqueue from before is open"])
def test_worker_polls_while_commits_that_notify_wait(
    dsn: str, conn: Connection, block_commits: Callable[[], None], early: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sleep, "CROWDED_GAP", 0.9)  # both long enough for a slow machine
    monkeypatch.setattr(sleep, "QUIET_AFTER", 10.0)
    registry = Registry()
    done: list[str] = []

    @job(type="note", registry=registry)
    def note(data: dict[str, str]) -> None:
        done.append(data["name"])

    def enqueue(name: str) -> str:
        return f"""select enqueue_job('note', '{{"name": "{name}"}}')"""

    def polls() -> bool:
        return conn.execute("select exists (select from doorbell where is_held('polling', worker_id))").fetchone() == (
            True,
        )

    def first_goes() -> bool:
        cancel = "select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep' limit 1"
        return conn.execute(cancel).fetchone() == (True,)

    def goes_beside() -> bool:
        with suppress(psycopg.errors.LockNotAvailable):  # a worker that is busy by now does not poll
            conn.execute(enqueue("beside the line"))
            return True
        return False

    def all_through_are_done() -> bool:
        return len(done) >= through

    through = 0
    asleep = PostgresStorage(make_conninfo(dsn, options="-c synchronous_commit=local"))
    asleep.dequeue_many(1, ["other"])
    asleep.wait(1, ["other"])  # registers, so that the polling worker can ask it to watch
    first = psycopg.connect(dsn)
    if early:
        first.execute("select enqueue_job('note')")
    storage = PostgresStorage(make_conninfo(dsn, options="-c synchronous_commit=local"))
    worker = Worker(storage, registry=registry, grace=1)
    worker.start()
    line: list[threading.Thread] = []
    try:
        until(lambda: conn.execute("select count(*) from worker_status where asleep").fetchone() == (2,))
        block_commits()
        line = [notify(dsn, enqueue(f"in line {number}")) for number in range(40)]
        until(lambda: rings(conn) == 39)
        conn.execute("set lock_timeout = '1s'")
        while not (polls() and goes_beside()):  # the commits end one after the other and notify, as on a slow disk
            assert rings(conn), "all have come to an end, and the worker never polled"
            until(first_goes)
            through += 1
            until(all_through_are_done)
        until(lambda: "beside the line" in done)
        assert rings(conn) > 0
    finally:
        conn.execute("alter system reset synchronous_standby_names")
        conn.execute("select pg_reload_conf()")
        first.rollback()
        first.close()
        for thread in line:
            thread.join(20)
        until(lambda: len(done) == 41)
        worker.stop()
        storage.close()
        asleep.leave()
        asleep.close()
