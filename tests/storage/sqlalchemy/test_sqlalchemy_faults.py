"""Tests of SQLAlchemyStorage with servers that are down, lost answers, locks and deadlocks."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers.sqlalchemy_databases import mariadb_database, postgres_url
from helpers.sqlalchemy_jobs import closing, start, status
from helpers.until import until
from services import MariaDB, Server
from sqlalchemy import URL, create_engine, event, make_url

from pgjobq import NewJob, Registry, Worker, job
from pgjobq.errors import InvalidJob, StorageError, StorageUnavailable
from pgjobq.models import JobStatus
from pgjobq.storage.base import Completed
from pgjobq.storage.sqlalchemy import connection as databases
from pgjobq.storage.sqlalchemy_storage import SQLAlchemyStorage

PATIENCE = 30.0  # seconds


# -- servers that are down -------------------------------------------------------------------------


@pytest.fixture
def mariadb(own_server: Callable[..., Server]) -> Server:
    """Start a durable server for this test."""
    return own_server(MariaDB, durable=True)


def unavailable(server: Server, call: Callable[[], Any]) -> None:
    """Check that the call raises an error which names the server, but not the password."""
    with pytest.raises(StorageUnavailable) as caught:
        call()
    assert f"127.0.0.1:{server.port}" in str(caught.value)
    assert str(make_url(server.url).password) not in str(caught.value)


def test_server_that_is_killed_and_restarted(mariadb: Server) -> None:
    with closing(SQLAlchemyStorage(mariadb.url, timeout=3.0)) as storage:
        storage.enqueue_many([NewJob(id=name, type="t") for name in "abc"])
        a = start(storage)
        mariadb.kill()
        unavailable(mariadb, lambda: storage.enqueue("d", "t", {}))
        unavailable(mariadb, storage.dequeue)
        unavailable(mariadb, lambda: storage.complete("a"))
        unavailable(mariadb, lambda: storage.maintain([a]))
        unavailable(mariadb, storage.ping)
        mariadb.start()
        storage.complete("a")
        storage.enqueue("d", "t", {})
        assert [job.id for job in storage.dequeue_many(9)] == ["b", "c", "d"]


def test_server_that_is_suspended_and_resumed(mariadb: Server) -> None:
    with closing(SQLAlchemyStorage(mariadb.url, timeout=1.0)) as storage:
        storage.enqueue_many([NewJob(id=name, type="t") for name in "ab"])
        start(storage)
        mariadb.freeze()
        try:
            for call in (storage.dequeue, lambda: storage.complete("a"), lambda: storage.enqueue("c", "t", {})):
                begun = time.monotonic()
                unavailable(mariadb, call)
                assert time.monotonic() - begun < 10
        finally:
            mariadb.thaw()
        storage.complete("a")
        assert start(storage).id == "b"


@pytest.mark.parametrize("how", ["kill", "restart"])
def test_worker_continues_after_a_restart_of_the_server(mariadb: Server, how: str) -> None:
    registry = Registry()
    done: list[int] = []

    @job(type="t", registry=registry)
    def handler(n: int) -> None:
        done.append(n)

    storage = SQLAlchemyStorage(mariadb.url, timeout=3.0, poll_interval=0.2)
    worker = Worker(storage, registry=registry, concurrency=2)
    worker.start()
    storage.enqueue_many([NewJob(type="t", data={"n": n}) for n in range(500)])
    until(lambda: len(done) > 50, seconds=PATIENCE)
    if how == "kill":
        mariadb.kill()
        mariadb.start()
    else:  # all connections in the pool are dead, which the next call notices
        mariadb.halt()
        mariadb.start()
    other = SQLAlchemyStorage(mariadb.url)
    other.enqueue_many([NewJob(type="t", data={"n": n}) for n in range(500, 600)])
    until(lambda: other.counts()[JobStatus.COMPLETED] == 600, seconds=PATIENCE)
    worker.stop()
    assert set(done) == set(range(600))
    storage.close()
    other.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"password": "wrong"}, "Access denied"),
        ({"database": "nowhere"}, "Unknown database"),
        ({"port": 1}, "does not answer"),
    ],
)
def test_refused_login(mariadb_url: str, change: dict[str, Any], words: str) -> None:
    url: URL = make_url(mariadb_url).set(**change)
    with closing(SQLAlchemyStorage(url, timeout=2.0)) as storage:
        for call in (storage.ping, lambda: storage.enqueue("a", "t", {})):
            with pytest.raises(StorageError, match=words) as caught:
                call()
            assert url.password is not None
            assert url.password not in str(caught.value).replace("using password", "")
            assert "127.0.0.1" in str(caught.value)


# -- lost answers ----------------------------------------------------------------------------------


class Wire:
    """A proxy between a storage and its server that can lose the answer to the next commit."""

    def __init__(self, port: int) -> None:
        self._server, self.losing = port, threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server))
            lost = threading.Event()
            threading.Thread(target=self._forward, args=(client, server, lost), daemon=True).start()
            threading.Thread(target=self._return, args=(server, client, lost), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket, lost: threading.Event) -> None:
        with client, server:
            while data := self._read(client):
                if b"COMMIT" in data and self.losing.is_set():
                    self.losing.clear()
                    lost.set()
                server.sendall(data)
            server.shutdown(socket.SHUT_RDWR)

    def _return(self, server: socket.socket, client: socket.socket, lost: threading.Event) -> None:
        while data := self._read(server):
            if lost.is_set():
                client.shutdown(socket.SHUT_RDWR)
                return
            client.sendall(data)

    def _read(self, source: socket.socket) -> bytes:
        try:
            return source.recv(65536)
        except OSError:
            return b""

    def close(self) -> None:
        """Stop accepting connections."""
        self._listener.close()


@pytest.fixture(params=["mariadb", "postgresql"])
def wired(request: pytest.FixtureRequest) -> Iterator[tuple[SQLAlchemyStorage, Wire]]:
    """Return a storage and the proxy in front of its server."""

    @contextmanager
    def url() -> Iterator[str]:
        if request.param == "postgresql":
            yield postgres_url(request.getfixturevalue("empty_dsn"))
        else:
            with mariadb_database(request.getfixturevalue("mariadb_url")) as made:
                yield made

    with url() as given:
        port = make_url(given).port
        assert port is not None
        wire = Wire(port)
        with closing(SQLAlchemyStorage(make_url(given).set(port=wire.port), lease=300.0)) as storage:
            storage.ping()
            yield storage, wire
        wire.close()


def losing(wire: Wire, call: Callable[[], Any]) -> None:
    """Make a call that commits, and lose its answer."""
    wire.losing.set()
    with pytest.raises(StorageUnavailable, match=r"during a commit|does not answer"):
        call()
    assert not wire.losing.is_set()


def test_lost_answer_to_an_enqueue(wired: tuple[SQLAlchemyStorage, Wire]) -> None:
    storage, wire = wired
    losing(wire, lambda: storage.enqueue("a", "t", {}))
    assert [job.id for job in storage.list_jobs()] == ["a"]  # added once; the storage did not retry


def test_lost_answer_to_a_claim(wired: tuple[SQLAlchemyStorage, Wire]) -> None:
    storage, wire = wired
    storage.enqueue_many([NewJob(id=name, type="t") for name in "abc"])
    a = start(storage)
    losing(wire, lambda: storage.dequeue_many(1))
    assert status(storage, "b") == "running"  # for an unknown caller
    assert [(job.id, job.attempts) for job in storage.dequeue_many(9)] == [("b", 1), ("c", 1)]
    assert storage.settle([Completed(a)]) == []


def test_lost_answer_to_a_settle(wired: tuple[SQLAlchemyStorage, Wire]) -> None:
    storage, wire = wired
    storage.enqueue_many([NewJob(id=name, type="t") for name in "ab"])
    jobs = storage.dequeue_many(2)
    losing(wire, lambda: storage.complete_many(jobs))
    before = storage.get_job("a")
    assert storage.complete_many(jobs) == []
    assert storage.get_job("a") == before


def test_lost_answer_to_a_handlers_transaction(wired: tuple[SQLAlchemyStorage, Wire]) -> None:
    storage, wire = wired
    storage.enqueue("a", "t", {})
    a = start(storage)

    def work() -> None:
        with storage.transaction(a):
            pass

    losing(wire, work)
    assert status(storage, "a") == "completed"
    assert storage.settle([Completed(a)]) == []


# -- locks and conflicts ---------------------------------------------------------------------------


@pytest.fixture
def database(mariadb_url: str) -> Iterator[str]:
    """Return the URL of an empty MariaDB database."""
    with mariadb_database(mariadb_url) as url:
        yield url


def impatient(url: str) -> SQLAlchemyStorage:
    """Return a storage whose lock timeout is one second."""
    engine = create_engine(url, connect_args={"init_command": "set innodb_lock_wait_timeout = 1"})
    return SQLAlchemyStorage(engine)


def test_lock_that_is_held_for_long(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "TRIES", 2)
    with closing(impatient(database)) as storage:
        storage.enqueue_many([NewJob(id=name, type="t") for name in "ab"])
        a = start(storage)
        with storage.engine.connect() as conn:
            conn.exec_driver_sql("select * from jobs where id = 'a' for update")
            with pytest.raises(StorageUnavailable, match="each attempt met a conflict"):
                storage.settle([Completed(a)])
            assert start(storage).id == "b"  # a claim passes over locked rows
        assert storage.settle([Completed(a)]) == []
        storage.engine.dispose()


def test_lock_that_is_released_in_time(database: str) -> None:
    with closing(impatient(database)) as storage:
        storage.enqueue("a", "t", {})
        a = start(storage)
        errors = seen_errors(storage)
        with storage.engine.connect() as conn:
            conn.exec_driver_sql("select * from jobs where id = 'a' for update")
            settled: list[Any] = []
            thread = threading.Thread(target=lambda: settled.append(storage.settle([Completed(a)])))
            thread.start()
            until(lambda: errors == [1205], seconds=PATIENCE)
        thread.join()
        assert settled == [[]]
        assert status(storage, "a") == "completed"
        storage.engine.dispose()


def test_deadlock(database: str) -> None:
    """A transaction has locked b and waits for a, and settle has locked a and waits for b. MariaDB rolls settle back."""
    with closing(impatient(database)) as storage:
        storage.enqueue_many([NewJob(id=name, type="t") for name in ("a", "b", *map(str, range(200)))])
        held = storage.dequeue_many(2)
        errors = seen_errors(storage)
        with storage.engine.connect().execution_options(isolation_level="READ COMMITTED") as conn:
            conn.exec_driver_sql("update jobs set updated_at = now() where id <> 'a'")
            settled: list[Any] = []
            thread = threading.Thread(target=lambda: settled.append(storage.settle([Completed(one) for one in held])))
            thread.start()
            until(
                lambda: waiting_for_locks(storage) == 1, pause=0.2, seconds=PATIENCE
            )  # InnoDB refreshes this view every 0.1 s
            conn.exec_driver_sql("update jobs set updated_at = now() where id = 'a'")
            conn.rollback()
        thread.join()
        assert errors == [1213]
        assert settled == [[]]
        assert [status(storage, name) for name in "ab"] == ["completed", "completed"]
        storage.engine.dispose()


def seen_errors(storage: SQLAlchemyStorage) -> list[int]:
    """Return a list to which MySQL's number of each later error is added."""
    seen: list[int] = []

    @event.listens_for(storage.engine, "handle_error")
    def see(context: Any) -> None:
        seen.append(context.original_exception.args[0])

    return seen


def waiting_for_locks(storage: SQLAlchemyStorage) -> int:
    """Return how many transactions of this database wait for a lock."""
    with storage.engine.connect() as conn:
        query = (
            "select count(*) from information_schema.innodb_trx join information_schema.processlist"
            " on id = trx_mysql_thread_id where trx_state = 'LOCK WAIT' and db = database()"
        )
        return int(conn.exec_driver_sql(query).scalar_one())


@pytest.mark.parametrize("level", ["REPEATABLE READ", "READ COMMITTED"])
def test_enqueue_while_a_claim_is_open(database: str, level: str) -> None:
    """At READ COMMITTED the enqueue does not wait. At REPEATABLE READ it may wait until the claim ends."""
    storage = SQLAlchemyStorage(create_engine(database, isolation_level=level))
    storage.enqueue_many([NewJob(id=name, type="t") for name in "ab"])
    other = SQLAlchemyStorage(database)
    enqueued = threading.Event()

    def enqueue() -> None:
        other.enqueue("c", "t", {})
        enqueued.set()

    thread = threading.Thread(target=enqueue)

    @event.listens_for(storage.engine, "commit")
    def commit(_conn: Any) -> None:
        if not thread.ident and holds:
            thread.start()
            if level == "READ COMMITTED":
                assert enqueued.wait(PATIENCE)

    holds = ["now"]
    assert [job.id for job in storage.dequeue_many(9)][:2] == ["a", "b"]
    thread.join(PATIENCE)
    assert enqueued.is_set()
    for one in (storage, other):
        one.leave()
        one.engine.dispose()


def test_pool_without_a_free_connection(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/jobs.db", pool_size=1, max_overflow=0, pool_timeout=0.1)
    storage = SQLAlchemyStorage(engine)
    storage.ping()
    with engine.connect(), pytest.raises(StorageUnavailable, match="no connection is free"):
        storage.list_jobs()
    engine.dispose()


def test_value_that_the_server_refuses(database: str) -> None:
    with closing(SQLAlchemyStorage(database)) as storage:
        storage.ping()
        for size in (17_000_000, 40_000_000):
            with pytest.raises(InvalidJob, match=rf"^data: it has {size + 8} bytes, .*max_allowed_packet = 16777216"):
                storage.enqueue("a", "t", {"x": "x" * size})
        assert storage.list_jobs() == []
        storage.enqueue("a", "t", {"x": "x" * 16_000_000})
