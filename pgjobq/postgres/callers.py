"""Statements on a connection of the caller's: enqueue together with business data, or not at all.

Takes what people hold: a psycopg Connection or AsyncConnection, a SQLAlchemy Connection or Session, or their
async kin on the psycopg dialect. SQLAlchemy is not imported: its objects are told by what they can do.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.abc import Params

from pgjobq.errors import ConfigurationError

_WANTED = (
    "a psycopg Connection or AsyncConnection, or a SQLAlchemy Connection, Session or their async kin "
    "(on postgresql+psycopg)"
)


def execute(connection: Any, query: bytes, params: Params) -> list[tuple[Any, ...]]:
    """Run a statement in the current transaction of a sync connection; its rows."""
    if isinstance(connection, psycopg.AsyncConnection) or _is_async_alchemy(connection):
        raise ConfigurationError("connection: it is async; use `await queue.enqueue_async(...)`")
    raw = _raw(connection)
    if isinstance(raw, psycopg.Connection):
        # A cursor of the plain kind, whatever row factory the caller's connection has.
        with psycopg.Cursor(raw, row_factory=psycopg.rows.tuple_row) as cursor:
            return cursor.execute(query, params).fetchall()
    raise ConfigurationError(f"connection: {type(connection).__name__} is not {_WANTED}")


async def execute_async(connection: Any, query: bytes, params: Params) -> list[tuple[Any, ...]]:
    """execute for an AsyncConnection, AsyncSession or SQLAlchemy AsyncConnection."""
    if hasattr(connection, "sync_session"):
        connection = await connection.connection()
    if hasattr(connection, "get_raw_connection"):
        if not connection.in_transaction():
            await connection.begin()  # as its own statements do; else its commit would do nothing
        connection = (await connection.get_raw_connection()).driver_connection
    if isinstance(connection, psycopg.AsyncConnection):
        async with psycopg.AsyncCursor(connection, row_factory=psycopg.rows.tuple_row) as cursor:
            return await (await cursor.execute(query, params)).fetchall()
    if isinstance(_raw(connection), psycopg.Connection):
        raise ConfigurationError("connection: it is sync and would block the event loop; use queue.enqueue(...)")
    raise ConfigurationError(f"connection: {type(connection).__name__} is not {_WANTED}")


def _is_async_alchemy(connection: Any) -> bool:
    return hasattr(connection, "sync_session") or hasattr(connection, "sync_connection")


def _raw(connection: Any) -> Any:
    """The psycopg connection of a SQLAlchemy Connection or Session; what is neither, as it is."""
    if callable(getattr(connection, "get_bind", None)) and callable(getattr(connection, "connection", None)):
        connection = connection.connection()  # a SQLAlchemy Session
    raw = getattr(getattr(connection, "connection", None), "driver_connection", None)
    if raw is None:
        return connection
    if not connection.in_transaction():
        connection.begin()  # as its own statements do; else its commit would do nothing
    return raw
