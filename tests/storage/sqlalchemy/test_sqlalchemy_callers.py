"""Tests with a caller's connection to another database, and with an Engine that shares one connection."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.sqlalchemy_databases import driven, mariadb_database, postgres_url
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from pgjobq import ConfigurationError, JobQueue, StorageUnavailable
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
