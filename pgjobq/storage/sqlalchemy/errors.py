"""Translate database errors to pgjobq's errors. Messages name the server and never show the password."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from pgjobq.errors import InvalidJob, PgjobqError, StorageError, StorageUnavailable

_TRANSIENT_MYSQL = {1205, 1213, 1020}  # lock wait timeout, deadlock, record changed since last read
_AWAY_MYSQL = {1040, 1053, 1077, 1203, 2002, 2003, 2006, 2013, 2055}
_TRANSIENT_STATES = {"40001", "40P01", "55P03"}  # serialization failure, deadlock, lock not available
_TOO_LARGE_MYSQL = {1153, 1406, 1301}
_READ_ONLY_MYSQL = {1290, 1792, 1836}


# What SQLite says when two threads run transactions on one connection.
_MIXED = re.compile("no such savepoint|no transaction is active|within a transaction|SQL statements in progress")


def shown(engine: Engine) -> str:
    """Return the database's URL without its password and options."""
    url = engine.url
    if url.get_backend_name() == "sqlite":
        return f"SQLite {url.database or ':memory:'}"
    return url.set(query={}).render_as_string(hide_password=True)


def code_of(error: BaseException) -> int | None:
    """Return MySQL's number of an error."""
    original = getattr(error, "orig", None)
    args = getattr(original, "args", ())
    return args[0] if args and isinstance(args[0], int) else None


def state_of(error: BaseException) -> str | None:
    """Return the SQLSTATE of an error of a PostgreSQL driver."""
    original: Any = getattr(error, "orig", None)
    state = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
    return state if isinstance(state, str) else None


def is_transient(error: DBAPIError) -> bool:
    """Return whether the transaction was rolled back after a conflict, so that a repetition may succeed."""
    return code_of(error) in _TRANSIENT_MYSQL or state_of(error) in _TRANSIENT_STATES


def is_snapshot_old(error: DBAPIError) -> bool:
    """Return whether SQLite refused to write because another connection has written since this one read."""
    return getattr(error.orig, "sqlite_errorname", None) == "SQLITE_BUSY_SNAPSHOT"


def is_gone(error: DBAPIError) -> bool:
    """Return whether the connection was lost."""
    return bool(error.connection_invalidated) or code_of(error) in {2006, 2013, 2055}


def translate(error: SQLAlchemyError, server: str) -> PgjobqError:
    """Return the pgjobq error for an error of SQLAlchemy."""
    if isinstance(error, PoolTimeout):
        return StorageUnavailable(f"{server}: no connection is free: {_words(error)}")
    if not isinstance(error, DBAPIError):
        return StorageError(f"{server}: {_words(error)}")
    words = _words(error.orig)
    name = getattr(error.orig, "sqlite_errorname", None)
    if name is not None:
        return _of_sqlite(name, words, server)
    code, state = code_of(error), state_of(error)
    if code in _TOO_LARGE_MYSQL:
        return InvalidJob(f"data: {server} does not take a value so large: {words}", field="data")
    if code in _READ_ONLY_MYSQL or state == "25006":
        return StorageError(f"{server} is read-only: {words}")
    if is_transient(error):
        return StorageUnavailable(f"{server}: each attempt met a conflict; try again: {words}")
    if is_gone(error) or code in _AWAY_MYSQL or _is_away(error, state):
        return StorageUnavailable(f"{server} does not answer: {words}")
    return StorageError(f"{server}: {words}")


def _is_away(error: DBAPIError, state: str | None) -> bool:
    if state is not None:
        return state[:2] in {"08", "53", "57"} and state != "57014"
    # An error without any code comes from a driver that could not connect.
    return isinstance(error, OperationalError | InterfaceError) and code_of(error) is None


def _of_sqlite(name: str, words: str, server: str) -> PgjobqError:
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StorageUnavailable(f"{server} is locked by another connection: {words}")
    if name.startswith("SQLITE_FULL"):
        return StorageUnavailable(f"{server}: the disk is full; free some space: {words}")
    if name.startswith("SQLITE_READONLY"):
        return StorageError(f"{server} is read-only; let this user write to the file and its folder: {words}")
    if name.startswith("SQLITE_CANTOPEN"):
        return StorageUnavailable(f"{server} cannot be opened; check that its folder exists: {words}")
    if name.startswith("SQLITE_NOTADB"):
        return StorageError(f"{server} is not a SQLite database; use another file: {words}")
    if _MIXED.search(words):
        return StorageError(
            f"{server}: another thread used the same connection at the same time ({words}); create the queue from a"
            " URL, such as sqlite:///:memory:, and use queue.storage.engine in the program, or use separate Engines"
        )
    if name.startswith("SQLITE_TOOBIG"):
        return InvalidJob(f"data: {server} does not take a value so large: {words}", field="data")
    return StorageError(f"{server}: {words}")


def _words(error: object) -> str:
    args: Any = getattr(error, "args", ())
    text = str(args[1]) if len(args) > 1 and isinstance(args[0], int) else str(error)
    text = re.sub(r"\(Background on this error at: .*?\)", "", text)
    return " ".join(text.split()) or type(error).__name__
