"""A queue that was used before os.fork works in the child, and the fork does not affect the parent."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers.places import KINDS, place
from helpers.sqlalchemy_databases import postgres_url
from helpers.until import until
from psycopg_pool import ConnectionPool

from pgjobq import ConfigurationError, JobQueue, JobStatus, NewJob
from pgjobq.postgres.pool import connect as connect_pinned
from pgjobq.postgres.pool import parameters
from pgjobq.storage.postgres_storage import PostgresStorage

Connection = psycopg.Connection[Any]
MakeStorage = Callable[..., PostgresStorage]

CHILDREN, EACH, LONG = 4, 15, 60.0  # LONG: seconds after which a child counts as hanging
forking = multiprocessing.get_context("fork")
# Since Python 3.12 a fork in a process with threads raises this warning. The tests do it on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def in_child(work: Callable[[], Any]) -> Any:
    """Run `work` in a forked child and return its result. Fail if the child hangs."""
    here, there = forking.Pipe(duplex=False)

    def run() -> None:
        try:
            there.send((work(), None))
        except BaseException as error:
            there.send((None, f"{type(error).__name__}: {error}"))

    child = forking.Process(target=run)
    child.start()
    try:
        assert here.poll(LONG), "the child hangs"
        result, error = here.recv()
        assert error is None, error
        return result
    finally:
        child.kill()
        child.join()


@contextmanager
def busy(call: Callable[[], Any]) -> Iterator[list[BaseException]]:
    """Repeat a call in three threads, so that locks are held when the process forks."""
    ending, errors = threading.Event(), list[BaseException]()

    def run() -> None:
        while not ending.is_set():
            try:
                call()
            except BaseException as error:
                errors.append(error)
                return

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield errors
    finally:
        ending.set()
        for thread in threads:
            thread.join()


@pytest.fixture(params=["postgresql", "sqlalchemy+postgresql", *KINDS])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a database of each kind."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    if request.param in KINDS:
        return place(request.param, request, tmp_path)
    found: str = request.getfixturevalue("dsn" if request.param == "postgresql" else "empty_dsn")
    if request.param == "postgresql":
        return found
    return f"sqlalchemy+{postgres_url(found)}"


def test_children_can_enqueue_and_run_jobs_while_their_parent_does(url: str) -> None:
    with JobQueue(url) as queue:
        queue.enqueue("t", job_id="first")
        made = [0]
        lock = threading.Lock()

        def one() -> None:
            with lock:
                made[0] += 1
            queue.enqueue("parent")

        def work() -> list[str]:
            ids: list[str] = [queue.enqueue("child") for _ in range(EACH)]
            ids += queue.enqueue_many([NewJob(type="child") for _ in range(EACH)])
            started = queue.storage.dequeue_many(3)
            for job in started:
                queue.storage.complete(job.id)
            queue.storage.leave()
            return ids

        with busy(one) as errors:
            ids = [job_id for _ in range(CHILDREN) for job_id in in_child(work)]
        assert errors == []
        assert {job.id for job in queue.list_jobs() if job.type == "child"} == set(ids)
        assert queue.counts()[JobStatus.COMPLETED] == 3 * CHILDREN
        assert sum(queue.counts().values()) == 1 + made[0] + len(ids)


def test_child_is_another_worker_than_its_parent(url: str) -> None:
    with JobQueue(url) as queue:
        queue.enqueue_many([NewJob(type="t", id=name) for name in ("a", "b")])
        held = queue.storage.dequeue()
        assert held is not None

        def work() -> tuple[str, bool]:
            job = queue.storage.dequeue()
            assert job is not None
            with pytest.raises(Exception, match=held.id):
                queue.storage.complete(held.id)  # the start belongs to the parent
            queue.storage.complete(job.id)
            return job.id, job.worker_id == held.worker_id

        assert in_child(work) == ({"a": "b", "b": "a"}[held.id], False)
        queue.storage.complete(held.id)
        assert queue.counts()[JobStatus.COMPLETED] == 2
        queue.storage.leave()


def test_children_do_not_affect_the_sessions_of_the_parent(storage: PostgresStorage) -> None:
    def sessions() -> set[int]:
        found = [storage._database.pool.getconn() for _ in range(3)]
        for conn in found:
            storage._database.pool.putconn(conn)
        return {conn.info.backend_pid for conn in found}

    storage.ping()
    before = sessions()
    in_child(storage.close)
    in_child(lambda: gc.collect() and None)

    def forget() -> None:
        storage.__dict__.clear()
        gc.collect()

    in_child(forget)
    assert sessions() == before
    storage.enqueue("a", "t", {})


def test_child_cannot_use_the_transaction_of_its_parent(storage: PostgresStorage, conn: Connection) -> None:
    storage.enqueue("a", "t", {})
    job = storage.dequeue()
    assert job is not None
    with storage.transaction(job) as mine:
        mine.execute("create table public.done (n integer)")

        def meddle() -> str:
            with pytest.raises(psycopg.OperationalError):
                mine.execute("insert into public.done values (1)")
            mine.close()
            storage.enqueue("b", "t", {})
            return "b"

        assert in_child(meddle) == "b"
        mine.execute("insert into public.done values (2)")
    assert conn.execute("select n from public.done").fetchall() == [(2,)]
    assert storage.counts()[JobStatus.COMPLETED] == 1


@pytest.mark.parametrize("kind", ["beside the pool", "in the pool"])
def test_child_does_not_keep_a_killed_parents_session_alive(dsn: str, conn: Connection, kind: str) -> None:
    """A forked child that outlived its parent kept the worker's lock, so that the worker's jobs were not rescued."""
    read, write = os.pipe()
    parent = os.fork()
    if not parent:
        try:
            if kind == "in the pool":
                storage = PostgresStorage(dsn)
                with storage._database.connection() as mine:
                    mine.execute("select pg_advisory_lock(1)")
            else:
                mine = connect_pinned(parameters(dsn, "test"))
                mine.execute("select pg_advisory_lock(1)")
            child = os.fork()
            if child:
                os.write(write, str(child).encode())
            signal.pause()
        finally:
            os._exit(1)
    child = int(os.read(read, 20))
    os.close(read)
    os.close(write)
    try:
        assert conn.execute("select pg_try_advisory_lock(1)").fetchone() == (False,)
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        until(lambda: conn.execute("select pg_try_advisory_lock(1)").fetchone() == (True,))
        os.kill(child, 0)  # raises if the child has ended
    finally:
        os.kill(child, signal.SIGKILL)


def test_pool_that_was_opened_before_the_fork_is_refused_in_the_child(dsn: str) -> None:
    with ConnectionPool(dsn, min_size=1, open=True) as pool:
        queue = JobQueue(PostgresStorage(pool))
        queue.enqueue("t")

        def work() -> str:
            with pytest.raises(ConfigurationError, match=r"^conninfo: this ConnectionPool was open .* after the fork"):
                queue.enqueue("t")
            return "refused"

        assert in_child(work) == "refused"
        queue.enqueue("t")
        assert sum(queue.counts().values()) == 2


def test_pool_that_the_child_opens_works_there(dsn: str) -> None:
    pool: ConnectionPool[Any] = ConnectionPool(dsn, min_size=1, open=False)
    queue = JobQueue(PostgresStorage(pool))

    def work() -> str:
        with pool:
            return queue.enqueue("t")

    job_id = in_child(work)
    with pool:
        assert queue.get_job(job_id) is not None
