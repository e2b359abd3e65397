"""Tests of enqueue on the caller's connection: the job is committed together with the business data, or not at all."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from sqlalchemy import URL, Engine, NullPool, create_engine, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from pgjobq import ConfigurationError, DuplicateJob, InvalidJob, JobQueue, StorageUnavailable

Connection = psycopg.Connection[Any]

SYNC = ["psycopg", "psycopg, dict rows", "Connection", "Session", "scoped_session"]
ASYNC = ["psycopg", "psycopg, dict rows", "AsyncConnection", "AsyncSession"]
KEPT = "select (select count(*) from jobs), (select count(*) from ready), (select count(*) from scheduled), (select count(*) from public.users)"


def sqlalchemy_url(dsn: str) -> URL:
    parts = conninfo_to_dict(dsn)
    return URL.create(
        "postgresql+psycopg",
        username=str(parts["user"]),
        password=str(parts["password"]) if parts.get("password") else None,
        host=str(parts["host"]),
        port=int(str(parts["port"])),
        database=str(parts["dbname"]),
    )


@contextmanager
def engine_of(dsn: str) -> Iterator[Engine]:
    engine = create_engine(sqlalchemy_url(dsn), poolclass=NullPool)
    yield engine
    engine.dispose()


@asynccontextmanager
async def async_engine_of(dsn: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(sqlalchemy_url(dsn), poolclass=NullPool)
    yield engine
    await engine.dispose()


@contextmanager
def sync_connection(kind: str, dsn: str) -> Iterator[Any]:
    """Return a connection of this kind, outside a transaction."""
    if kind == "psycopg":
        with psycopg.connect(dsn) as connection:
            yield connection
    elif kind == "psycopg, dict rows":
        with psycopg.connect(dsn, row_factory=dict_row) as named:
            yield named
    else:
        with engine_of(dsn) as engine:
            if kind == "Connection":
                with engine.connect() as alchemy:
                    yield alchemy
            elif kind == "Session":
                with Session(engine) as session:
                    yield session
            else:
                scoped = scoped_session(sessionmaker(engine))
                yield scoped
                scoped.remove()


@asynccontextmanager
async def async_connection(kind: str, dsn: str) -> AsyncIterator[Any]:
    """Return an async connection of this kind, outside a transaction."""
    if kind == "psycopg":
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            yield connection
    elif kind == "psycopg, dict rows":
        async with await psycopg.AsyncConnection.connect(dsn, row_factory=dict_row) as named:
            yield named
    else:
        async with async_engine_of(dsn) as engine:
            if kind == "AsyncConnection":
                async with engine.connect() as alchemy:
                    yield alchemy
            else:
                async with AsyncSession(engine) as session:
                    yield session


def statement(connection: Any, query: str) -> Any:
    """Return the query in the form that this kind of connection accepts."""
    return query if isinstance(connection, psycopg.Connection | psycopg.AsyncConnection) else text(query)


@pytest.fixture(autouse=True)
def users(conn: Connection) -> None:
    """Create the caller's table."""
    conn.execute("create table public.users (name text)")


@pytest.mark.parametrize("kind", SYNC)
def test_job_exists_when_the_callers_transaction_commits(
    queue: JobQueue, dsn: str, conn: Connection, kind: str
) -> None:
    with sync_connection(kind, dsn) as connection:
        connection.execute(statement(connection, "insert into public.users values ('ada')"))
        job_id = queue.enqueue("greet", {"name": "ada"}, priority=9, connection=connection)
        assert queue.enqueue("greet", delay=60, job_id="later", connection=connection) == "later"
        assert conn.execute(KEPT).fetchone() == (0, 0, 0, 0)
        connection.commit()
    assert conn.execute(KEPT).fetchone() == (2, 1, 1, 1)
    job = queue.get_job(job_id)
    assert job is not None
    assert (job.type, job.data, job.priority) == ("greet", {"name": "ada"}, 9)


@pytest.mark.parametrize("kind", SYNC)
def test_job_without_business_data_is_committed(queue: JobQueue, dsn: str, conn: Connection, kind: str) -> None:
    with sync_connection(kind, dsn) as connection:
        queue.enqueue("greet", connection=connection)
        connection.commit()
    assert conn.execute(KEPT).fetchone() == (1, 1, 0, 0)


@pytest.mark.parametrize("kind", SYNC)
def test_rollback_leaves_nothing(queue: JobQueue, dsn: str, conn: Connection, kind: str) -> None:
    with sync_connection(kind, dsn) as connection:
        connection.execute(statement(connection, "insert into public.users values ('ada')"))
        queue.enqueue("greet", connection=connection)
        queue.enqueue("greet", delay=60, connection=connection)
        connection.rollback()
        queue.enqueue("greet", connection=connection)
        connection.close()  # also rolls back
    assert conn.execute(KEPT).fetchone() == (0, 0, 0, 0)


@pytest.mark.parametrize("kind", ["psycopg", "Connection", "Session"])
def test_rollback_to_a_savepoint_removes_its_job(queue: JobQueue, dsn: str, conn: Connection, kind: str) -> None:
    with sync_connection(kind, dsn) as connection:
        queue.enqueue("greet", job_id="kept", connection=connection)
        nested = connection.transaction if kind == "psycopg" else connection.begin_nested
        with suppress(ZeroDivisionError), nested():
            queue.enqueue("greet", job_id="dropped", connection=connection)
            raise ZeroDivisionError
        # A duplicate id only aborts the savepoint. Here the other job is in the same transaction.
        with pytest.raises(DuplicateJob, match="kept"), nested():
            queue.enqueue("greet", job_id="kept", connection=connection)
        connection.commit()
    assert [job.id for job in queue.list_jobs()] == ["kept"]
    assert conn.execute(KEPT).fetchone() == (1, 1, 0, 0)


@pytest.mark.parametrize("kind", ["psycopg", "Connection", "Session"])
def test_many_jobs_on_a_callers_connection(queue: JobQueue, dsn: str, conn: Connection, kind: str) -> None:
    jobs = [queue.new_job("greet", {"n": n}, job_id=f"j{n}") for n in range(50)]
    with sync_connection(kind, dsn) as connection:
        assert queue.enqueue_many(jobs, connection=connection) == [f"j{n}" for n in range(50)]
        assert queue.enqueue_many([], connection=connection) == []
        connection.commit()
    assert conn.execute(KEPT).fetchone() == (50, 50, 0, 0)


@pytest.mark.parametrize("kind", ["psycopg", "Connection"])
def test_autocommit_of_the_callers_is_respected(queue: JobQueue, dsn: str, conn: Connection, kind: str) -> None:
    with sync_connection(kind, dsn) as connection:
        if kind == "psycopg":
            connection.autocommit = True
        else:
            connection.execution_options(isolation_level="AUTOCOMMIT")
        queue.enqueue("greet", connection=connection)
        assert conn.execute(KEPT).fetchone() == (1, 1, 0, 0)


@pytest.mark.parametrize("kind", ASYNC)
def test_async_connection_commits_both(queue: JobQueue, dsn: str, conn: Connection, kind: str) -> None:
    async def act() -> str:
        async with async_connection(kind, dsn) as connection:
            await connection.execute(statement(connection, "insert into public.users values ('ada')"))
            job_id = await queue.enqueue_async("greet", {"name": "ada"}, connection=connection)
            await queue.enqueue_async("greet", delay=60, connection=connection)
            assert conn.execute(KEPT).fetchone() == (0, 0, 0, 0)
            await connection.commit()
            return job_id

    job = queue.get_job(asyncio.run(act()))
    assert job is not None
    assert job.data == {"name": "ada"}
    assert conn.execute(KEPT).fetchone() == (2, 1, 1, 1)


@pytest.mark.parametrize("kind", ASYNC)
def test_async_job_without_business_data_is_committed(queue: JobQueue, dsn: str, conn: Connection, kind: str) -> None:
    async def act() -> None:
        async with async_connection(kind, dsn) as connection:
            await queue.enqueue_async("greet", connection=connection)
            await connection.commit()

    asyncio.run(act())
    assert conn.execute(KEPT).fetchone() == (1, 1, 0, 0)


@pytest.mark.parametrize("kind", ASYNC)
def test_async_rollback_leaves_nothing(queue: JobQueue, dsn: str, conn: Connection, kind: str) -> None:
    async def act() -> None:
        async with async_connection(kind, dsn) as connection:
            await connection.execute(statement(connection, "insert into public.users values ('ada')"))
            await queue.enqueue_async("greet", connection=connection)
            await queue.enqueue_async("greet", delay=60, connection=connection)
            await connection.rollback()

    asyncio.run(act())
    assert conn.execute(KEPT).fetchone() == (0, 0, 0, 0)


@pytest.mark.parametrize("kind", ASYNC)
def test_async_connection_in_a_sync_call_is_refused(queue: JobQueue, dsn: str, kind: str) -> None:
    async def act() -> None:
        async with async_connection(kind, dsn) as connection:
            with pytest.raises(ConfigurationError, match=r"^connection: it is async; use `await queue\.enqueue_async"):
                queue.enqueue("greet", connection=connection)

    asyncio.run(act())
    assert queue.list_jobs() == []


@pytest.mark.parametrize("kind", SYNC)
def test_sync_connection_in_an_async_call_is_refused(queue: JobQueue, dsn: str, kind: str) -> None:
    with (
        sync_connection(kind, dsn) as connection,
        pytest.raises(ConfigurationError, match=r"^connection: it is sync .*use queue\.enqueue\("),
    ):
        asyncio.run(queue.enqueue_async("greet", connection=connection))
    assert queue.list_jobs() == []


def test_object_that_is_not_a_connection_is_refused(queue: JobQueue, dsn: str) -> None:
    url = sqlalchemy_url(dsn)
    engine = create_engine(url, poolclass=NullPool)
    # Objects that callers may pass by mistake.
    for wrong in (object(), dsn, engine, create_async_engine(url, poolclass=NullPool), sessionmaker(engine)):
        kind = type(wrong)
        name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
        wanted = f"^connection: {name} is not a supported connection; use a psycopg, psycopg2 or asyncpg connection"
        with pytest.raises(ConfigurationError, match=wanted):
            queue.enqueue("greet", connection=wrong)
        with pytest.raises(ConfigurationError, match=wanted):
            asyncio.run(queue.enqueue_async("greet", connection=wrong))
    assert queue.list_jobs() == []


def test_connection_to_another_kind_of_database_is_refused(queue: JobQueue) -> None:
    engine = create_engine("sqlite://")
    with (
        engine.connect() as connection,
        pytest.raises(ConfigurationError, match=r"Connection on sqlite3\.Connection is not"),
    ):
        queue.enqueue("greet", connection=connection)
    engine.dispose()
    bare = sqlite3.connect(":memory:")
    with pytest.raises(ConfigurationError, match=r"^connection: sqlite3\.Connection is not a supported"):
        queue.enqueue("greet", connection=bare)
    bare.close()


def test_closed_connection_raises_an_error_of_pgjobq(queue: JobQueue, dsn: str) -> None:
    closed = psycopg.connect(dsn)
    closed.close()
    with pytest.raises(StorageUnavailable, match="closed"):
        queue.enqueue("greet", connection=closed)


def test_enqueue_async_does_not_block_the_loop(queue: JobQueue, connect: Callable[..., Connection]) -> None:
    queue.storage.ping()  # connects now, so that the test measures only the statement
    locker = connect(autocommit=False)
    locker.execute("lock table jobs in exclusive mode")
    gaps: list[float] = []

    async def act() -> str:
        enqueued = asyncio.create_task(queue.enqueue_async("greet", {"n": 1}))
        last = time.monotonic()
        while len(gaps) < 30:
            await asyncio.sleep(0.01)
            now = time.monotonic()
            gaps.append(now - last)
            last = now
        assert not enqueued.done()  # the enqueue waits for the lock in another thread
        locker.rollback()
        return await asyncio.wait_for(enqueued, 10)

    job_id = asyncio.run(act())
    assert max(gaps) < 0.5
    job = queue.get_job(job_id)
    assert job is not None
    assert job.data == {"n": 1}


def test_enqueue_async_checks_before_it_sends(queue: JobQueue) -> None:
    with pytest.raises(InvalidJob, match="delay"):
        asyncio.run(queue.enqueue_async("greet", delay=-1))
    assert queue.list_jobs() == []


def test_async_transaction_of_sqlalchemy_is_joined(queue: JobQueue, dsn: str, conn: Connection) -> None:
    async def act(connection: AsyncConnection) -> None:
        with suppress(ZeroDivisionError):
            async with connection.begin():
                await queue.enqueue_async("greet", job_id="dropped", connection=connection)
                raise ZeroDivisionError
        async with connection.begin():
            await queue.enqueue_async("greet", job_id="kept", connection=connection)

    async def run() -> None:
        async with async_engine_of(dsn) as engine, engine.connect() as connection:
            await act(connection)

    asyncio.run(run())
    assert [job.id for job in queue.list_jobs()] == ["kept"]
    assert conn.execute(KEPT).fetchone() == (1, 1, 0, 0)
