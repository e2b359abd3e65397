"""Enqueue and read on connections of psycopg2, asyncpg and Django, and of SQLAlchemy on these drivers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg
import psycopg
import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL, NullPool, create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from pgjobq import ConfigurationError, DuplicateJob, JobQueue, KeyTaken, StorageUnavailable

Connection = psycopg.Connection[Any]

SYNC = ["psycopg", "psycopg cursor", "psycopg2", "psycopg2 cursor", "psycopg2 Connection", "psycopg2 Session"]
DJANGO = ["django", "django proxy", "django cursor"]
ASYNC = ["psycopg", "psycopg cursor", "asyncpg", "asyncpg pool", "asyncpg AsyncConnection", "asyncpg AsyncSession"]


def sqlalchemy_url(dsn: str, driver: str) -> URL:
    parts = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    return URL.create(
        f"postgresql+{driver}", parts["user"], parts.get("password"), parts["host"], int(parts["port"]), parts["dbname"]
    )


@contextmanager
def django_connection(dsn: str) -> Iterator[Any]:
    """Django's connection, without a project."""
    import django
    from django.conf import settings
    from django.db.utils import ConnectionHandler

    if not settings.configured:
        settings.configure(USE_TZ=True)
        django.setup()
    parts = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    told = {name: parts.get(key, "") for name, key in names.items()}
    handler = ConnectionHandler({"default": {"ENGINE": "django.db.backends.postgresql", **told}})
    connection = handler["default"]
    connection.set_autocommit(False)
    yield connection, handler
    connection.close()


@contextmanager
def sync_connection(kind: str, dsn: str) -> Iterator[tuple[Any, Any]]:
    """What is passed to enqueue, and the object that commits it."""
    if kind.startswith("django"):
        from django.utils.connection import ConnectionProxy

        with django_connection(dsn) as (connection, handler):
            if kind == "django cursor":
                with connection.cursor() as cursor:
                    yield cursor, connection
            else:
                yield (ConnectionProxy(handler, "default") if kind == "django proxy" else connection), connection
    elif kind.startswith("psycopg2 ") and kind != "psycopg2 cursor":
        engine = create_engine(sqlalchemy_url(dsn, "psycopg2"), poolclass=NullPool)
        with engine.connect() if kind == "psycopg2 Connection" else Session(engine) as alchemy:
            yield alchemy, alchemy
        engine.dispose()
    elif kind.startswith("psycopg2"):
        own = psycopg2.connect(dsn, cursor_factory=psycopg2.extras.RealDictCursor)
        yield (own.cursor() if kind == "psycopg2 cursor" else own), own
        own.close()
    else:
        with psycopg.connect(dsn) as connection:
            yield (connection.cursor() if kind == "psycopg cursor" else connection), connection


class Transaction:
    """Commits and rolls back an asyncpg connection as the other drivers' connections do."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def commit(self) -> None:
        await self._connection.execute("commit")

    async def rollback(self) -> None:
        await self._connection.execute("rollback")


@asynccontextmanager
async def async_connection(kind: str, dsn: str) -> AsyncIterator[tuple[Any, Any]]:
    """What is passed to enqueue_async, and the object that commits it."""
    if kind.startswith("psycopg"):
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            yield (connection.cursor() if kind == "psycopg cursor" else connection), connection
    elif kind in {"asyncpg", "asyncpg pool"}:
        url = sqlalchemy_url(dsn, "asyncpg").set(drivername="postgresql").render_as_string(hide_password=False)
        async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool:
            own = await asyncpg.connect(url) if kind == "asyncpg" else await pool.acquire()
            await own.execute("begin")
            yield own, Transaction(own)
            await (own.close() if kind == "asyncpg" else pool.release(own))
    else:
        engine = create_async_engine(sqlalchemy_url(dsn, "asyncpg"), poolclass=NullPool)
        async with engine.connect() if kind == "asyncpg AsyncConnection" else AsyncSession(engine) as alchemy:
            yield alchemy, alchemy
        await engine.dispose()


@pytest.mark.parametrize("kind", [*SYNC, *DJANGO])
def test_jobs_live_and_die_with_the_callers_transaction(queue: JobQueue, dsn: str, kind: str) -> None:
    with sync_connection(kind, dsn) as (connection, owner):
        queue.enqueue("t", {"text": "100 % of {it} $1"}, job_id="dropped", connection=connection)
        owner.rollback()
        first = queue.enqueue("t", {"text": "100 % of {it} $1 \N{SNOWMAN}"}, job_id="kept", connection=connection)
        keyed = queue.enqueue("t", unique_key="k", connection=connection)
        again = queue.enqueue("t", unique_key="k", connection=connection)
        assert (first, keyed.outcome, again, again.outcome) == ("kept", "added", keyed, "kept")
        # The transaction sees them, and nothing else does.
        seen = queue.get_job("kept", connection=connection)
        assert seen is not None
        assert seen.data == {"text": "100 % of {it} $1 \N{SNOWMAN}"}
        assert {job.id for job in queue.list_jobs(connection=connection)} == {"kept", str(keyed)}
        # All are created when the transaction began, so their ids decide.
        assert [job.id for job in queue.list_jobs("pending", 1, "default", connection=connection)] == ["kept"]
        assert queue.list_jobs("failed", connection=connection) == []
        assert queue.get_job("other", connection=connection) is None
        assert queue.list_jobs() == []
        owner.commit()
        assert queue.get_job("kept") == seen


@pytest.mark.parametrize("kind", ASYNC)
def test_async_jobs_live_and_die_with_the_callers_transaction(queue: JobQueue, dsn: str, kind: str) -> None:
    async def act() -> None:
        async with async_connection(kind, dsn) as (connection, owner):
            await queue.enqueue_async("t", job_id="dropped", connection=connection)
            await owner.rollback()
            if kind in {"asyncpg", "asyncpg pool"}:
                await connection.execute("begin")
            await queue.enqueue_async("t", {"text": "100 % $1"}, job_id="kept", connection=connection)
            keyed = await queue.enqueue_async("t", unique_key="k", connection=connection)
            again = await queue.enqueue_async("t", unique_key="k", connection=connection)
            assert (keyed.outcome, again, again.outcome) == ("added", keyed, "kept")
            seen = await queue.get_job_async("kept", connection=connection)
            assert seen is not None
            assert seen.data == {"text": "100 % $1"}
            assert {job.id for job in await queue.list_jobs_async(connection=connection)} == {"kept", str(keyed)}
            assert await queue.list_jobs_async(limit=0, connection=connection) == []
            assert await queue.list_jobs_async() == []
            await owner.commit()
            assert await queue.get_job_async("kept") == seen

    asyncio.run(act())


@pytest.mark.parametrize("kind", ["psycopg2", "psycopg2 Session", "django"])
def test_errors_of_other_drivers_are_pgjobqs(queue: JobQueue, dsn: str, kind: str) -> None:
    queue.enqueue("t", job_id="there", unique_key="k")
    with sync_connection(kind, dsn) as (connection, owner):
        with pytest.raises(DuplicateJob, match="there"):
            queue.enqueue("t", job_id="there", connection=connection)
        owner.rollback()
        with pytest.raises(KeyTaken, match="k"):
            queue.enqueue("t", unique_key="k", on_conflict="error", connection=connection)
        owner.rollback()


def test_lost_connections_of_other_drivers_are_told(queue: JobQueue, dsn: str) -> None:
    closed = psycopg2.connect(dsn)
    closed.close()
    with pytest.raises(StorageUnavailable, match="closed"):
        queue.enqueue("t", connection=closed)

    async def act() -> None:
        async with async_connection("asyncpg", dsn) as (connection, _):
            await queue.enqueue_async("t", job_id="there", connection=connection)
            with pytest.raises(DuplicateJob, match="there"):
                await queue.enqueue_async("t", job_id="there", connection=connection)
            await connection.close()
            with pytest.raises(StorageUnavailable, match="closed"):
                await queue.enqueue_async("t", connection=connection)

    asyncio.run(act())


def test_sync_and_async_are_told_apart(queue: JobQueue, dsn: str) -> None:
    for kind in (*SYNC, *DJANGO):
        with (
            sync_connection(kind, dsn) as (connection, _),
            pytest.raises(ConfigurationError, match=r"^connection: it is sync .*use queue\.enqueue\("),
        ):
            asyncio.run(queue.enqueue_async("t", connection=connection))

    async def act(kind: str) -> None:
        async with async_connection(kind, dsn) as (connection, _):
            for call in (queue.enqueue, queue.get_job):
                with pytest.raises(ConfigurationError, match=r"^connection: it is async; use `await queue\.enqueue_a"):
                    call("t", connection=connection)

    for kind in ASYNC:
        asyncio.run(act(kind))
    assert queue.list_jobs() == []


def test_refusal_names_module_and_class(queue: JobQueue, dsn: str) -> None:
    """Several drivers call their class just Connection."""

    async def act() -> None:
        url = sqlalchemy_url(dsn, "asyncpg").set(drivername="postgresql").render_as_string(hide_password=False)
        async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool:  # a pool has no transaction
            with pytest.raises(ConfigurationError, match=r"^connection: asyncpg\.pool\.Pool is not a supported"):
                await queue.enqueue_async("t", connection=pool)

    asyncio.run(act())
    sqlite = create_engine("sqlite://")
    with sqlite.connect() as connection, pytest.raises(
        ConfigurationError, match=r"sqlalchemy\.engine\.base\.Connection on sqlite3\.Connection is not a supported"
    ):  # fmt: skip
        queue.enqueue("t", connection=connection)
    sqlite.dispose()


def test_django_on_another_database_is_refused(queue: JobQueue) -> None:
    import django
    from django.conf import settings
    from django.db.utils import ConnectionHandler

    if not settings.configured:
        settings.configure(USE_TZ=True)
        django.setup()
    other = ConnectionHandler({"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})["default"]
    with pytest.raises(ConfigurationError, match="Django's connection leads to sqlite"):
        queue.enqueue("t", connection=other)


def test_adapters_and_cursors_of_the_caller_change_nothing(queue: JobQueue, dsn: str) -> None:
    with sync_connection("psycopg2", dsn) as (connection, owner):
        psycopg2.extensions.register_type(psycopg2.extensions.new_type((20,), "odd", lambda *_: "x"), owner)
        queue.enqueue("t", job_id="a", connection=connection)
        owner.commit()
    assert queue.get_job("a") is not None
