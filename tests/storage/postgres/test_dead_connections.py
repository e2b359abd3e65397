"""Tests with dead idle connections and servers that do not answer. A call must not be delayed for long."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg
import pytest
from helpers.sqlalchemy_databases import postgres_url
from helpers.stalling_proxy import StallingProxy
from psycopg.conninfo import make_conninfo

from pgjobq import ConfigurationError, JobQueue, NewJob, StorageUnavailable
from pgjobq.postgres.pool import connect as connect_pinned
from pgjobq.postgres.pool import parameters, readable, readable_anywhere
from pgjobq.storage.postgres_storage import PostgresStorage
from pgjobq.storage.sqlalchemy_storage import SQLAlchemyStorage

Connection = psycopg.Connection[Any]
MakeStorage = Callable[..., PostgresStorage]

SOON = 1.0  # seconds; psycopg_pool would sleep 1, 2, 4 s
KILL = """select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity
           where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"""


def filled(storage: PostgresStorage, size: int) -> None:
    """Fill the pool with this number of idle connections."""
    storage.ping()
    with_all = [storage._database.pool.getconn() for _ in range(size)]
    for conn in with_all:
        storage._database.pool.putconn(conn)


def timed(call: Callable[[], Any]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def test_dead_idle_connections_are_replaced_at_once(make_storage: MakeStorage, conn: Connection) -> None:
    storage = make_storage(min_size=10, max_size=10)
    filled(storage, 10)
    conn.execute(KILL)
    took = [timed(lambda n=n: storage.enqueue(f"j{n}", "t", {})) for n in range(10)]  # type: ignore[misc]  # mypy does not infer the default of a lambda
    assert max(took) < SOON
    assert sum(storage.counts().values()) == 10


def test_several_threads_find_dead_connections(make_storage: MakeStorage, conn: Connection) -> None:
    storage = make_storage(min_size=10, max_size=10)
    for turn in range(5):
        filled(storage, 10)
        conn.execute(KILL)
        took: list[float] = []

        def call(job_id: str, took: list[float] = took) -> None:
            took.append(timed(partial(storage.enqueue, job_id, "t", {})))

        work = [threading.Thread(target=call, args=(f"{turn}-{n}",)) for n in range(10)]
        for thread in work:
            thread.start()
        for thread in work:
            thread.join()
        assert len(took) == 10, "a call failed"
        assert max(took) < 2 * SOON


def test_connections_that_die_at_once_do_not_delay_later_calls(
    make_storage: MakeStorage, connect: Callable[..., Connection], dsn: str
) -> None:
    """This happens while a server restarts. The pool must not be in a back-off pause when the server is up again."""
    storage = make_storage(min_size=4, max_size=4, timeout=20)
    filled(storage, 4)
    admin = connect()
    name = admin.info.dbname
    with psycopg.connect(make_conninfo(dsn, dbname="postgres"), autocommit=True) as other:
        other.execute(f'alter database "{name}" with allow_connections false')
        admin.execute(KILL)
        done: list[float] = []
        caller = threading.Thread(target=lambda: done.append(timed(lambda: storage.enqueue("a", "t", {}))))
        caller.start()
        caller.join(2.5)  # long enough for back-off pauses of 1 and 2 seconds
        assert not done
        other.execute(f'alter database "{name}" with allow_connections true')
        back = timed(caller.join)
    assert done, "the call failed"
    assert back < SOON


CALLS: dict[str, Callable[[PostgresStorage], Any]] = {
    "enqueue": lambda storage: storage.enqueue("a", "t", {}),
    "get_job": lambda storage: storage.get_job("a"),
    "counts": lambda storage: storage.counts(),
    "cancel": lambda storage: storage.cancel("a"),
}


@pytest.mark.parametrize("call", CALLS)
def test_call_ends_when_nothing_answers(dsn: str, proxy: StallingProxy, call: str) -> None:
    storage = PostgresStorage(
        make_conninfo(dsn, port=proxy.port, connect_timeout=2), timeout=2, answer_timeout=1.0, min_size=1
    )
    try:
        storage.ping()
        storage.enqueue("first", "t", {})
        proxy.stall()
        began = time.monotonic()
        with pytest.raises(StorageUnavailable, match="no answer within 1 seconds"):
            CALLS[call](storage)
        assert time.monotonic() - began < 5
        proxy.flow()
        assert storage.get_job("first") is not None
    finally:
        proxy.flow()
        storage.close()


def test_settle_and_claim_end_when_nothing_answers(dsn: str, proxy: StallingProxy) -> None:
    storage = PostgresStorage(dsn, answer_timeout=1.0)
    through = PostgresStorage(make_conninfo(dsn, port=proxy.port), listen_dsn=dsn, answer_timeout=1.0)
    try:
        storage.enqueue_many([NewJob(type="t", id="a"), NewJob(type="t", id="b")])
        job = through.dequeue()
        assert job is not None
        proxy.stall()
        for act in (lambda: through.complete(job.id), lambda: through.fail(job.id, "x"), through.dequeue):
            began = time.monotonic()
            with pytest.raises(StorageUnavailable):
                act()
            assert time.monotonic() - began < 15
    finally:
        proxy.flow()
        storage.close()
        through._presence.close()
        through._database.close()


def test_pinned_connection_ends_when_nothing_answers(dsn: str, proxy: StallingProxy) -> None:
    conn = connect_pinned(parameters(make_conninfo(dsn, port=proxy.port), "test"), answer_time=0.5)
    proxy.stall()
    with pytest.raises(psycopg.OperationalError, match=r"no answer within 0\.5 seconds"):
        conn.execute("select 1")
    assert conn.closed


def test_handlers_own_statement_may_take_longer(make_storage: MakeStorage) -> None:
    storage = make_storage(answer_timeout=0.5)
    storage.enqueue("a", "t", {})
    job = storage.dequeue()
    assert job is not None
    with storage.transaction(job) as conn:
        conn.execute("select pg_sleep(1.2)")
    assert storage.get_job("a").status == "completed"  # type: ignore[union-attr]  # the job exists


def test_completion_in_a_handlers_transaction_ends_when_nothing_answers(dsn: str, proxy: StallingProxy) -> None:
    storage = PostgresStorage(make_conninfo(dsn, port=proxy.port), listen_dsn=dsn, answer_timeout=0.5)
    try:
        storage.enqueue_many([NewJob(type="t", id="a"), NewJob(type="t", id="b")])
        first, second = storage.dequeue_many(2)
        with pytest.raises((StorageUnavailable, psycopg.OperationalError)), storage.transaction(first):
            proxy.stall()
        proxy.flow()

        async def act() -> None:
            async with storage.transaction(second):
                proxy.stall()

        began = time.monotonic()
        with pytest.raises(StorageUnavailable):
            asyncio.run(act())
        assert time.monotonic() - began < 8
    finally:
        proxy.flow()
        storage.close()


def test_server_cancels_our_statement_that_waits_for_a_lock(
    make_storage: MakeStorage, connect: Callable[..., Connection]
) -> None:
    storage = make_storage(answer_timeout=1.0)
    storage.ping()
    locker = connect(autocommit=False)
    locker.execute("lock table jobs in exclusive mode")
    with pytest.raises(StorageUnavailable, match="statement timeout"):
        storage.enqueue("a", "t", {})
    locker.rollback()
    assert storage.get_job("a") is None


def test_postgres_through_sqlalchemy_ends_when_nothing_answers(empty_dsn: str) -> None:
    parts = psycopg.conninfo.conninfo_to_dict(empty_dsn)
    with StallingProxy(str(parts["host"]), int(str(parts["port"]))) as proxy:
        storage = SQLAlchemyStorage(postgres_url(make_conninfo(empty_dsn, port=proxy.port)), timeout=2)
        try:
            storage.enqueue("a", "t", {})
            proxy.stall()
            began = time.monotonic()
            with pytest.raises(StorageUnavailable):
                storage.get_job("a")
            assert time.monotonic() - began < 10
        finally:
            proxy.flow()
            storage.close()


@pytest.mark.parametrize("wrong", [0, -1, float("nan")])
def test_answer_timeout_is_checked(wrong: float) -> None:
    with pytest.raises(ConfigurationError, match=r"^answer_timeout: .* use seconds above 0"):
        JobQueue("postgresql://localhost/x", answer_timeout=wrong)


@pytest.mark.parametrize("look", [readable, readable_anywhere])
def test_readable_with_and_without_poll(look: Callable[[int], bool]) -> None:
    one, other = socket.socketpair()
    with one, other:
        assert not look(one.fileno())
        other.send(b"x")
        assert look(one.fileno())
        one.recv(1)
        assert not look(one.fileno())
        other.close()
        assert look(one.fileno())


def test_pool_works_without_select_poll(dsn: str) -> None:
    """select.poll does not exist on Windows, or in a process that gevent or eventlet has patched."""
    program = f"""
import select
del select.poll
from pgjobq import JobQueue
with JobQueue({dsn!r}) as queue:
    print(len([queue.enqueue("t") for _ in range(3)]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("3\n", "")


def test_worker_sleeps_and_is_notified_without_select_poll(dsn: str) -> None:
    program = f"""
import select, threading, time
del select.poll
from pgjobq import JobQueue, Registry, Worker
from pgjobq.handlers import Handler
from pgjobq.postgres.listener import Selector
assert "Poll" not in Selector.__name__, Selector
ran, registry = threading.Event(), Registry()
registry.register(Handler(type="t", function=ran.set))
with JobQueue({dsn!r}, poll_interval=600) as queue, JobQueue({dsn!r}) as other:
    worker = Worker(queue, registry=registry)
    worker.start()
    while not any(each["asleep"] for each in other.storage.workers()):
        time.sleep(0.01)
    other.enqueue("t")
    print(ran.wait(20))
    worker.stop()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("True\n", "")
