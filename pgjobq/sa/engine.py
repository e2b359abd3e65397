"""Engines from URLs, and what a database can do."""

from __future__ import annotations

import importlib.util
import secrets
import shutil
import sqlite3
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import URL, Dialect, Engine, QueuePool, create_engine, event, func, text, type_coerce
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import PoolResetState, StaticPool
from sqlalchemy.sql import ColumnElement

from pgjobq.errors import ConfigurationError
from pgjobq.sa.types import MYSQL, Moment

LOCKING, EXCLUSIVE, OPTIMISTIC = "locking", "exclusive", "optimistic"
_IN_TRANSACTION = 1  # of MySQL's status flags
_SHARED_MEMORY = (3, 36)  # SQLite's version from which on connections can share a database in memory


class Closing(Protocol):
    """What must be there as long as an engine is used."""

    def close(self) -> None:
        """Let go of it."""


class _Folder:
    """A folder for temporary files, deleted at close() or with this object."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="pgjobq-"))
        self._end = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def close(self) -> None:
        """Delete it."""
        self._end()


@dataclass(frozen=True)
class Traits:
    """How a database is best worked with.

    claiming: LOCKING, rows by FOR UPDATE SKIP LOCKED; EXCLUSIVE, all by SQLite's one write lock; OPTIMISTIC, by
    updates that tell how many rows they found. now: its clock; None where the process's is as good.
    planning: what a claim selects first, so that its plans do not depend on statistics.
    """

    claiming: str
    now: ColumnElement[Any] | None
    returning: bool  # UPDATE ... RETURNING
    planning: tuple[ColumnElement[Any], ...] = ()


def traits_of(dialect: Dialect) -> Traits:
    """The traits of a database that has been connected to."""
    returning = bool(dialect.update_returning)
    if dialect.name == "postgresql":
        # Statistics that know of no pending jobs would have it read them all and sort.
        settings = ("enable_sort", "enable_seqscan", "enable_bitmapscan")
        planning = tuple(func.set_config(name, "off", True).label(name) for name in settings)
        return Traits(LOCKING, type_coerce(func.statement_timestamp(), Moment), returning, planning)
    if dialect.name in MYSQL:
        now = type_coerce(func.utc_timestamp(text("6")), Moment)
        return Traits(LOCKING if _skips_locked(dialect) else OPTIMISTIC, now, returning=False)
    if dialect.name == "sqlite":
        return Traits(EXCLUSIVE, None, returning)
    return Traits(OPTIMISTIC, None, returning)


def _skips_locked(dialect: Dialect) -> bool:
    server: Any = dialect
    return bool(server.server_version_info >= ((10, 6) if server.is_mariadb else (8, 0, 1)))


def open_engine(target: str | URL, timeout: float) -> tuple[Engine, Closing | None]:
    """An engine for a URL, and what must live as long as it. Raises ConfigurationError for what is no URL."""
    try:
        url = make_url(target)
        match url.get_backend_name():
            case "sqlite":
                return _open_sqlite(url, timeout)
            case "postgresql":
                return create_engine(_with_psycopg(url), connect_args={"connect_timeout": max(2, round(timeout))}), None
            case "mysql" | "mariadb":
                return _open_mysql(url, timeout), None
            case _:
                return create_engine(url), None
    except (ArgumentError, NoSuchModuleError, ValueError) as error:  # ValueError: a port that is no number
        # The library's own words may hold the password.
        raise ConfigurationError(
            "url: is none that SQLAlchemy understands; give one such as sqlite:///jobs.db or"
            " mysql+pymysql://user:password@host:3306/name, and percent-encode what is special in user and password"
        ) from (error if isinstance(error, NoSuchModuleError) else None)


def _with_psycopg(url: URL) -> URL:
    """SQLAlchemy 2.0 takes plain postgresql:// for psycopg2."""
    if url.drivername == "postgresql" and importlib.util.find_spec("psycopg2") is None:
        return url.set(drivername="postgresql+psycopg")
    return url


def _open_mysql(url: URL, timeout: float) -> Engine:
    # At READ COMMITTED a claim does not lock the gaps that enqueuers insert into.
    options: dict[str, Any] = {"isolation_level": "READ COMMITTED", "pool_timeout": timeout}
    arguments: dict[str, Any] = {"connect_timeout": max(1, round(timeout))}
    if url.get_driver_name() != "pymysql":
        return create_engine(url, connect_args=arguments, **options)
    arguments |= {"read_timeout": timeout, "write_timeout": timeout}
    engine = create_engine(url, connect_args=arguments, pool_reset_on_return=None, **options)
    event.listen(engine, "reset", _reset_pymysql)
    return engine


def _reset_pymysql(connection: Any, _record: Any, state: PoolResetState) -> None:
    # Returned to the pool in the middle of a transaction; else a rollback would be a round trip for nothing.
    if not state.terminate_only and connection.server_status & _IN_TRANSACTION:
        connection.rollback()


def _open_sqlite(url: URL, timeout: float) -> tuple[Engine, Closing | None]:
    keep: Closing | None = None
    if is_memory(url):
        url, keep = _shared_memory(url)
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_timeout=timeout,
        max_overflow=50,  # a connection is a file handle; those that wait do so for the write lock
        connect_args={"timeout": timeout, "check_same_thread": False},
    )
    event.listen(engine, "connect", _configure_sqlite)
    return engine, keep


def is_memory(url: URL) -> bool:
    """Whether SQLite keeps this database in the memory of one connection."""
    name = url.database or ""
    return name in {"", ":memory:"} or name.startswith("file::memory:") or url.query.get("mode") == "memory"


def _shared_memory(url: URL) -> tuple[URL, Closing]:
    """A database of its own that all threads' connections share, for as long as what is returned beside it lives.

    Connections of their own keep each thread's transaction apart. An old SQLite gets a file that is deleted at the end.
    """
    if sqlite3.sqlite_version_info < _SHARED_MEMORY:
        folder = _Folder()
        return url.set(database=str(folder.path / "jobs.db"), query={}), folder
    name = f"file:/pgjobq-{secrets.token_hex(8)}"
    keep = sqlite3.connect(f"{name}?vfs=memdb", uri=True, check_same_thread=False)
    return url.set(database=name, query={"vfs": "memdb", "uri": "true"}), keep


def _configure_sqlite(connection: Any, _record: Any) -> None:
    # Readers and the one writer do not wait for each other. Sync stays FULL: what is committed survives a power cut.
    cursor = connection.cursor()
    try:
        cursor.execute("PRAGMA journal_mode=WAL")
    except sqlite3.OperationalError:
        # Read-only, or locked just now: the first write tells, with its own words.
        pass
    finally:
        cursor.close()


def check_engine(engine: Engine) -> None:
    """Raises ConfigurationError for an engine that no queue can work on."""
    if engine.dialect.is_async:
        raise ConfigurationError("engine: is an async one; give a sync Engine, or the URL")
    if engine.dialect.name == "sqlite" and is_memory(engine.url) and not isinstance(engine.pool, StaticPool):
        raise ConfigurationError(
            "engine: each thread would have a database of its own in memory;"
            " make it with poolclass=sqlalchemy.pool.StaticPool, or give the URL sqlite:///:memory:"
        )
