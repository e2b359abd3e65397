"""Tests with a caller's connection to another database, and with an Engine that shares one connection."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers.sqlalchemy_databases import driven, mariadb_database, postgres_url
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from pgjobq import ConfigurationError, JobQueue, Registry, StorageError, StorageUnavailable, Worker, job
from pgjobq.devserver import DevServer
from pgjobq.storage.sqlalchemy_storage import SQLAlchemyStorage


@pytest.fixture(params=["sqlite", "sqlite in memory", "mariadb", "postgresql"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Return the URLs of two databases of one kind."""
    if request.param.startswith("sqlite"):
        own = f"sqlite:///{tmp_path / 'own.db'}" if request.param == "sqlite" else "sqlite:///:memory:"
        yield own, f"sqlite:///{tmp_path / 'other.db'}"
    elif request.param == "postgresql":
        yield (
            driven(postgres_url(request.getfixturevalue("empty_dsn"))),
            driven(postgres_url(request.getfixturevalue("dsn"))),
        )
    else:
        server = request.getfixturevalue("mariadb_url")
        with mariadb_database(server) as own, mariadb_database(server) as other:
            yield own, other


def test_connection_to_another_database_is_refused(pair: tuple[str, str]) -> None:
    """The jobs would be added to a database in which no worker looks for them."""
    with JobQueue(SQLAlchemyStorage(pair[0])) as queue:
        elsewhere = create_engine(pair[1])
        for _ in range(2):
            with (
                elsewhere.connect() as conn,
                pytest.raises(ConfigurationError, match=r"^connection: it leads to another"),
            ):
                queue.enqueue("t", connection=conn)
            with (
                Session(elsewhere) as session,
                pytest.raises(ConfigurationError, match=r"^connection: it leads to another"),
            ):
                queue.enqueue("t", connection=session)
        elsewhere.dispose()
        assert queue.list_jobs() == []


def test_database_of_the_same_name_on_another_server_is_refused(empty_dsn: str) -> None:
    """A session of the staging server, whose database is called app too."""
    parts = conninfo_to_dict(empty_dsn)
    with DevServer() as other, psycopg.connect(other.dsn, autocommit=True) as admin:
        admin.execute(SQL("create database {}").format(Identifier(str(parts["dbname"]))))
        elsewhere = create_engine(driven(postgres_url(make_conninfo(other.dsn, dbname=parts["dbname"]))))
        with (
            JobQueue(SQLAlchemyStorage(driven(postgres_url(empty_dsn)))) as queue,
            Session(elsewhere) as session,
            pytest.raises(ConfigurationError, match=r"^connection: it leads to another database"),
        ):
            queue.enqueue("t", connection=session)
        with elsewhere.connect() as conn:
            assert conn.execute(text("select to_regclass('jobs')")).scalar_one() is None
        elsewhere.dispose()


# Not in memory, because each Engine would have its own database.
@pytest.mark.parametrize("pair", ["sqlite", "mariadb", "postgresql"], indirect=True)
def test_another_engine_on_the_same_database_is_accepted(pair: tuple[str, str]) -> None:
    with JobQueue(SQLAlchemyStorage(pair[0])) as queue:
        same = create_engine(pair[0])
        for _ in range(2):
            with same.begin() as conn:
                queue.enqueue("t", connection=conn)
        same.dispose()
        assert len(queue.list_jobs()) == 2


@pytest.fixture
def shared() -> Iterator[Engine]:
    """Return an Engine in memory whose only connection is shared by the program and the queue."""
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    with engine.begin() as conn:
        conn.execute(text("create table orders (n integer)"))
    yield engine
    engine.dispose()


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("used", [False, True])
def test_program_and_queue_share_the_only_connection(shared: Engine, used: bool, begun: bool) -> None:
    queue = JobQueue(SQLAlchemyStorage(shared))
    if used:
        queue.enqueue("t", job_id="first")
    if begun:
        event.listen(shared, "begin", lambda conn: conn.exec_driver_sql("begin"))
    with shared.begin() as conn:
        conn.execute(text("insert into orders values (1)"))
        queue.enqueue("t", job_id="a", connection=conn)
    with shared.connect() as conn:
        conn.execute(text("insert into orders values (2)"))
        queue.enqueue("t", job_id="b", connection=conn)
        conn.rollback()
        assert conn.execute(text("select n from orders")).fetchall() == [(1,)]
    assert {job.id for job in queue.list_jobs()} == {"a"} | ({"first"} if used else set())
    assert queue.storage.dequeue() is not None
    queue.storage.leave()
    queue.close()


def test_queue_does_not_end_the_programs_transaction(shared: Engine) -> None:
    """The queue must not roll back the program's uncommitted changes."""
    queue = JobQueue(SQLAlchemyStorage(shared))
    queue.enqueue("t", job_id="first")
    with shared.begin() as conn:
        conn.execute(text("insert into orders values (1)"))
        with pytest.raises(StorageUnavailable, match="in a transaction on the Engine's only connection"):
            queue.enqueue("t")
        with pytest.raises(StorageUnavailable, match="in a transaction on the Engine's only connection"):
            queue.storage.dequeue()
        waiting = threading.Thread(target=queue.enqueue, args=("t",), kwargs={"job_id": "second"})
        waiting.start()
        conn.execute(text("insert into orders values (2)"))
    waiting.join()
    assert {job.id for job in queue.list_jobs()} == {"first", "second"}
    with shared.connect() as conn:
        assert conn.execute(text("select n from orders")).fetchall() == [(1,), (2,)]
    queue.close()


def test_worker_on_the_programs_only_connection_is_refused(shared: Engine) -> None:
    """Its threads ran in the middle of the program's transactions: "no such savepoint", and jobs that were lost."""
    registry = Registry()

    @job(registry=registry)
    def t() -> None: ...

    queue = JobQueue(SQLAlchemyStorage(shared), registry=registry)
    worker = Worker(queue, registry=registry)
    with pytest.raises(ConfigurationError, match=r"^engine: a Worker's threads .*sqlite:///:memory: .*run_once"):
        worker.start()
    assert not worker.is_running()
    with Session(shared) as session:
        queue.enqueue(t, connection=session)
        session.commit()
    assert worker.run_once() == 1  # in this thread
    queue.close()


def test_program_shares_the_queues_own_database_in_memory_with_a_worker() -> None:
    """What the refusal recommends."""
    registry = Registry()

    @job(registry=registry)
    def t() -> None: ...

    with JobQueue("sqlite:///:memory:", registry=registry) as queue:
        assert isinstance(queue.storage, SQLAlchemyStorage)
        engine = queue.storage.engine
        with engine.begin() as conn:
            conn.execute(text("create table orders (n integer)"))
        worker = Worker(queue, registry=registry)
        worker.start()
        for n in range(200):
            with Session(engine) as session:
                session.execute(text("insert into orders values (:n)"), {"n": n})
                queue.enqueue(t, connection=session)
                if n % 2:
                    session.commit()
        worker.stop()
        with engine.connect() as conn:
            assert conn.execute(text("select count(*) from orders")).scalar_one() == 100
        assert sum(queue.counts().values()) == 100


def test_mixed_transactions_on_one_connection_are_explained(shared: Engine) -> None:
    queue = JobQueue(SQLAlchemyStorage(shared))
    queue.enqueue("t")

    def end_it(conn: Connection, *_: object) -> None:
        driver: Any = conn.connection.driver_connection
        driver.rollback()  # as another thread would, while the queue adds a job

    with Session(shared) as session:
        event.listen(shared, "savepoint", end_it)
        event.listen(shared, "release_savepoint", end_it)
        with pytest.raises(StorageError, match=r"another thread used the same connection .*no such savepoint"):
            queue.enqueue("t", connection=session)
    queue.close()
