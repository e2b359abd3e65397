"""Run one statement on the caller's connection, whatever its driver: psycopg, psycopg2 or asyncpg.

The connection may also be SQLAlchemy's, on one of these drivers, or Django's. Nothing but psycopg is imported here: an
object is recognized by the module of its class and by its attributes.

A statement takes values of bytes, each written %b, and returns a number or ASCII text. No adapter, encoding or setting
of the caller changes these.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, LiteralString, cast

import psycopg
from psycopg import sql
from psycopg.pq import DiagnosticField

from pgjobq.errors import ConfigurationError
from pgjobq.postgres.errors import translate
from pgjobq.postgres.fetching import PlainAsyncCursor, PlainCursor
from pgjobq.postgres.statements import placeable

Rows = Sequence[Sequence[Any]]

_WANTED = (
    "a supported connection; use a psycopg, psycopg2 or asyncpg connection, a SQLAlchemy Connection, Session,"
    " AsyncConnection or AsyncSession on one of these drivers, or Django's connection"
)
_DIAGNOSTICS = {  # psycopg's field: its names in psycopg2 and in asyncpg
    DiagnosticField.MESSAGE_PRIMARY: ("message_primary", "message"),
    DiagnosticField.MESSAGE_DETAIL: ("message_detail", "detail"),
    DiagnosticField.MESSAGE_HINT: ("message_hint", "hint"),
    DiagnosticField.CONSTRAINT_NAME: ("constraint_name", "constraint_name"),
}


def execute(connection: Any, schema: str, text: LiteralString, arguments: Sequence[bytes]) -> Rows:
    """Run a statement in a sync connection's current transaction, and return its rows. {schema} is pgjobq's schema."""
    if _is_async(connection):
        raise ConfigurationError(
            "connection: it is async; use `await queue.enqueue_async(...)`, or another method whose name ends in _async"
        )
    if (django := _django(connection)) is not None:
        if django.vendor != "postgresql":
            raise ConfigurationError(f"connection: Django's connection leads to {django.vendor}; use one to PostgreSQL")
        with translated(), django.cursor() as cursor:
            cursor.execute(_with_literals(schema, text, arguments))
            return cast("Rows", cursor.fetchall())
    raw = _sync_driver(connection)
    if isinstance(raw, psycopg.Connection):
        with PlainCursor(raw) as plain:
            return plain.execute(_formatted(schema, text).as_bytes(raw), arguments).fetchall()
    if _is_of(raw, "psycopg2", "connection"):
        # The caller may have set another class of cursors.
        kind = sys.modules["psycopg2.extensions"].cursor
        with translated(), closing(raw.cursor(cursor_factory=kind)) as cursor:
            cursor.execute(_with_literals(schema, text, arguments))
            return cast("Rows", cursor.fetchall())
    raise ConfigurationError(f"connection: {_named(connection, raw)} is not {_WANTED}")


async def execute_async(connection: Any, schema: str, text: LiteralString, arguments: Sequence[bytes]) -> Rows:
    """Do what execute does, on an async connection."""
    raw = connection
    if hasattr(raw, "sync_session"):
        raw = await raw.connection()
    if hasattr(raw, "get_raw_connection"):
        alchemy = raw
        if not alchemy.in_transaction():
            await alchemy.begin()  # SQLAlchemy's commit() does nothing unless SQLAlchemy began the transaction
        raw = (await alchemy.get_raw_connection()).driver_connection
        if _is_of(raw, "asyncpg", "Connection"):
            # SQLAlchemy begins the driver's transaction with its first statement, so it must run this one.
            with translated():
                return list(await alchemy.exec_driver_sql(_numbered(schema, text), tuple(arguments)))
    if isinstance(raw, psycopg.AsyncCursor):
        raw = raw.connection
    if isinstance(raw, psycopg.AsyncConnection):
        async with PlainAsyncCursor(raw) as cursor:
            return await (await cursor.execute(_formatted(schema, text).as_bytes(raw), arguments)).fetchall()
    if _is_asyncpg(raw):
        with translated():
            return [(await raw.fetchval(_numbered(schema, text), *arguments),)]
    if _django(connection) is not None or _is_of(connection, "psycopg2", "connection", "cursor"):
        raise ConfigurationError("connection: it is sync and would block the event loop; use queue.enqueue(...)")
    if isinstance(_sync_driver(connection), psycopg.Connection) or _is_of(_sync_driver(connection), "psycopg2"):
        raise ConfigurationError("connection: it is sync and would block the event loop; use queue.enqueue(...)")
    raise ConfigurationError(f"connection: {_named(connection, raw)} is not {_WANTED}")


def _formatted(schema: str, text: LiteralString) -> sql.Composed:
    # The connection's encoding matters only for the name of the schema.
    return sql.SQL(text).format(schema=placeable(schema))


def _with_literals(schema: str, text: LiteralString, arguments: Sequence[bytes]) -> str:
    """Return the statement with its arguments in it, for a cursor that is given no parameters."""
    for argument in arguments:
        text = text.replace("%b", f"decode('{argument.hex()}', 'hex')", 1)
    return sql.SQL(text).format(schema=sql.Identifier(schema)).as_string(None)


def _numbered(schema: str, text: LiteralString) -> str:
    for number in range(text.count("%b")):
        text = text.replace("%b", f"${number + 1}", 1)
    return sql.SQL(text).format(schema=sql.Identifier(schema)).as_string(None)


def _is_of(value: Any, package: str, *names: str) -> bool:
    """Return whether its class, or a base of it, comes from this package and has one of these names, or any name."""
    kinds = [kind for kind in type(value).__mro__ if kind.__module__.split(".")[0] == package]
    return any(kind.__name__ in names or not names for kind in kinds)


def _is_asyncpg(value: Any) -> bool:
    return _is_of(value, "asyncpg", "Connection", "PoolConnectionProxy")


def _is_async(value: Any) -> bool:
    return (
        isinstance(value, psycopg.AsyncConnection | psycopg.AsyncCursor)
        or _is_asyncpg(value)
        or hasattr(value, "sync_session")  # SQLAlchemy's AsyncSession
        or hasattr(value, "sync_connection")  # SQLAlchemy's AsyncConnection
    )


def _django(value: Any) -> Any:
    """Return Django's connection for the connection itself, the proxy django.db.connection, or a cursor; else None."""
    for found in (value, getattr(value, "db", None)):
        if _is_of(found, "django") and hasattr(found, "ensure_connection") and hasattr(found, "vendor"):
            return found
    return None


def _sync_driver(connection: Any) -> Any:
    """Return the driver's connection of a cursor, or of a SQLAlchemy Connection or Session; else the object itself."""
    if isinstance(connection, psycopg.Cursor) or _is_of(connection, "psycopg2", "cursor"):
        return connection.connection
    if callable(getattr(connection, "get_bind", None)) and callable(getattr(connection, "connection", None)):
        connection = connection.connection()  # a SQLAlchemy Session
    raw = getattr(getattr(connection, "connection", None), "driver_connection", None)
    if raw is None:
        return connection
    if not connection.in_transaction():
        connection.begin()  # SQLAlchemy's commit() does nothing unless SQLAlchemy began the transaction
    return raw


def _named(given: Any, raw: Any) -> str:
    name = _full_name(given)
    return name if raw is given else f"{name} on {_full_name(raw)}"


def _full_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


@contextmanager
def translated() -> Iterator[None]:
    """Raise the errors of psycopg2, asyncpg, SQLAlchemy and Django as pgjobq's errors."""
    try:
        yield
    except Exception as error:
        if (found := _as_psycopg(error)) is None:
            raise
        raise translate(found) from error


def _as_psycopg(error: BaseException) -> psycopg.Error | None:
    """Return psycopg's error for an error of another driver. None if the error is not a driver's."""
    while (inner := getattr(error, "orig", None) or error.__cause__) is not None:
        error = inner  # SQLAlchemy and Django raise their own errors from the driver's
    if isinstance(error, psycopg.Error):
        return error
    if not (_is_of(error, "psycopg2") or _is_of(error, "asyncpg") or isinstance(error, OSError)):
        return None
    state = getattr(error, "pgcode", None) or getattr(error, "sqlstate", None)
    if not isinstance(state, str):
        return psycopg.OperationalError(str(error))
    where = getattr(error, "diag", error)
    found = {DiagnosticField.SQLSTATE: state} | {
        field: value
        for field, names in _DIAGNOSTICS.items()
        if isinstance(value := getattr(where, names[where is error], None), str)
    }
    try:
        kind = psycopg.errors.lookup(state)
    except KeyError:
        kind = psycopg.DatabaseError
    info: dict[int, bytes | None] = {int(field): value.encode() for field, value in found.items()}
    return kind(str(error), info=info)
