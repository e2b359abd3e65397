"""Enqueue on the caller's own connection, so that the jobs commit or roll back with the caller's data.

The connection may be a psycopg Connection or AsyncConnection, or a SQLAlchemy Connection, Session, AsyncConnection or
AsyncSession on the psycopg dialect. This module recognizes SQLAlchemy's objects by their attributes and does not import
SQLAlchemy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql

from pgjobq.errors import ConfigurationError
from pgjobq.models import NewJob
from pgjobq.postgres.adding import ADD, added, arguments_to_add, as_bytes, told
from pgjobq.postgres.fetching import PlainAsyncCursor, PlainCursor
from pgjobq.postgres.statements import placeable

# The statement takes one bytes value and returns one number, because the caller's adapters, encoding and settings
# change neither of them.
_ENQUEUE = """
select count(*)
  from (select array_agg(type order by place) as types, array_agg(data order by place) as datas,
               array_agg(priority order by place) as priorities,
               array_agg(coalesce(execute_at, clock_timestamp() + make_interval(secs => delay))
                         order by place) as times,
               array_agg(max_retries order by place) as retries, array_agg(queue order by place) as queues,
               array_agg(id order by place) as ids
          from rows from (json_to_recordset(convert_from(%b, 'UTF8')::json)
                          as (type text, data jsonb, priority integer, execute_at timestamptz, delay float8,
                              max_retries integer, queue text, id text)) with ordinality
            as job (type, data, priority, execute_at, delay, max_retries, queue, id, place)) as jobs,
       {schema}.enqueue_jobs(types, datas, priorities, times, retries, queues, ids)
"""
_WANTED = (
    "a supported connection; use a psycopg Connection or AsyncConnection, or a SQLAlchemy Connection, Session, "
    "AsyncConnection or AsyncSession on postgresql+psycopg"
)


def enqueue(connection: Any, schema: str, jobs: Sequence[NewJob]) -> list[str]:
    """Add jobs in a sync connection's current transaction, change no other setting of it, and return their ids."""
    if isinstance(connection, psycopg.AsyncConnection) or _is_async_alchemy(connection):
        raise ConfigurationError("connection: it is async; use `await queue.enqueue_async(...)`")
    raw = _raw(connection)
    if not isinstance(raw, psycopg.Connection):
        raise ConfigurationError(f"connection: {type(connection).__name__} is not {_WANTED}")
    with PlainCursor(raw) as cursor:
        return _ids(jobs, cursor.execute(*_statement(raw, schema, jobs)).fetchall())


async def enqueue_async(connection: Any, schema: str, jobs: Sequence[NewJob]) -> list[str]:
    """Do what enqueue does, on a psycopg or SQLAlchemy AsyncConnection or an AsyncSession."""
    raw = connection
    if hasattr(raw, "sync_session"):
        raw = await raw.connection()
    if hasattr(raw, "get_raw_connection"):
        if not raw.in_transaction():
            await raw.begin()  # SQLAlchemy's commit() does nothing unless SQLAlchemy began the transaction
        raw = (await raw.get_raw_connection()).driver_connection
    if isinstance(raw, psycopg.AsyncConnection):
        async with PlainAsyncCursor(raw) as cursor:
            return _ids(jobs, await (await cursor.execute(*_statement(raw, schema, jobs))).fetchall())
    if isinstance(_raw(raw), psycopg.Connection):
        raise ConfigurationError("connection: it is sync and would block the event loop; use queue.enqueue(...)")
    raise ConfigurationError(f"connection: {type(connection).__name__} is not {_WANTED}")


def _statement(
    raw: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], schema: str, jobs: Sequence[NewJob]
) -> tuple[bytes, list[bytes]]:
    # The connection's encoding matters only for the name of the schema.
    with_key = told(jobs)
    text = sql.SQL(ADD if with_key else _ENQUEUE).format(schema=placeable(schema)).as_bytes(raw)
    return text, arguments_to_add(jobs) if with_key else [as_bytes(jobs)]


def _ids(jobs: Sequence[NewJob], rows: list[tuple[Any, ...]]) -> list[str]:
    return added(rows) if told(jobs) else [job.id for job in jobs]


def _is_async_alchemy(connection: Any) -> bool:
    return hasattr(connection, "sync_session") or hasattr(connection, "sync_connection")


def _raw(connection: Any) -> Any:
    """Return the psycopg connection of a SQLAlchemy Connection or Session. Return any other object unchanged."""
    if callable(getattr(connection, "get_bind", None)) and callable(getattr(connection, "connection", None)):
        connection = connection.connection()  # a SQLAlchemy Session
    raw = getattr(getattr(connection, "connection", None), "driver_connection", None)
    if raw is None:
        return connection
    if not connection.in_transaction():
        connection.begin()  # SQLAlchemy's commit() does nothing unless SQLAlchemy began the transaction
    return raw
