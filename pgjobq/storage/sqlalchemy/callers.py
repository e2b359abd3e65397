"""Enqueue on the caller's own connection, so that the jobs commit or roll back with the caller's data."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection
from sqlalchemy.orm import Session, scoped_session

from pgjobq.errors import ConfigurationError

_WANTED = "supported; use a SQLAlchemy Connection or Session on this database"


def sync_connection(given: Any, dialect: str, *, writes: bool = True) -> Connection:
    """Return the Connection of the given object. Raises ConfigurationError for any other object or kind of database."""
    if hasattr(given, "sync_session") or hasattr(given, "sync_connection"):
        raise ConfigurationError(
            "connection: it is async; use `await queue.enqueue_async(...)`, or another method whose name ends in _async"
        )
    conn = given.connection() if isinstance(given, Session | scoped_session) else given
    if not isinstance(conn, Connection):
        raise ConfigurationError(f"connection: {_full_name(given)} is not {_WANTED}")
    if conn.dialect.name != dialect:
        raise ConfigurationError(
            f"connection: it leads to {conn.dialect.name}; use a connection to the {dialect} database with the jobs"
        )
    _begin(conn, writes=writes)
    return conn


def _full_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def _begin(conn: Connection, *, writes: bool) -> None:
    # SQLite's driver begins a transaction before an INSERT but not before a SAVEPOINT, whose release would then commit.
    if not conn.in_transaction():
        conn.begin()
    driver: Any = conn.connection.driver_connection
    if writes and conn.dialect.name == "sqlite" and not getattr(driver, "in_transaction", True):
        conn.exec_driver_sql("BEGIN IMMEDIATE")


async def run_sync(given: Any, work: Any) -> Any:
    """Call work with the sync side of an AsyncConnection or AsyncSession."""
    if not (hasattr(given, "run_sync") and (hasattr(given, "sync_session") or hasattr(given, "sync_connection"))):
        raise ConfigurationError(
            f"connection: {_full_name(given)} is not an AsyncConnection or AsyncSession of SQLAlchemy;"
            " a sync connection would block the event loop, so use it with queue.enqueue(...)"
        )
    return await given.run_sync(work)
