"""SQLite: its files, its databases in memory, and its write lock."""

from __future__ import annotations

import math
import random
import secrets
import shutil
import sqlite3
import tempfile
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.exc import DBAPIError

T = TypeVar("T")

BETWEEN_LOOKS = (0.0005, 0.004)  # seconds between two attempts to take the lock
_SHARED_MEMORY = (3, 36)  # the first version in which connections can share a database in memory


class Closing(Protocol):
    """An object that must exist as long as an engine is used."""

    def close(self) -> None:
        """Release the object's resources."""


class _Folder:
    """A folder for temporary files, deleted at close() or with this object."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="pgjobq-"))
        self._end = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def close(self) -> None:
        """Delete it."""
        self._end()


def not_in(url: URL, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that the URL does not set."""
    return {name: value for name, value in arguments.items() if name not in url.query}


def open_sqlite(url: URL, timeout: float) -> tuple[Engine, Closing | None]:
    """Create an engine on a file or in memory. Also return the object that must live as long, if there is one."""
    keep: Closing | None = None
    if is_memory(url):
        url, keep = _shared_memory(url)
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_timeout=timeout,
        max_overflow=50,  # a connection is only a file handle; waiting transactions wait for the write lock
        connect_args=not_in(url, {"timeout": timeout, "check_same_thread": False}),
    )
    event.listen(engine, "connect", _configure_sqlite)
    return engine, keep


def is_memory(url: URL) -> bool:
    """Return whether SQLite keeps this database in the memory of one connection."""
    name = url.database or ""
    return name in {"", ":memory:"} or name.startswith("file::memory:") or url.query.get("mode") == "memory"


def _shared_memory(url: URL) -> tuple[URL, Closing]:
    """Create a database in memory that the connections of all threads share while the returned object lives.

    Separate connections keep the threads' transactions separate. An old SQLite uses a file that is deleted at the end.
    """
    if sqlite3.sqlite_version_info < _SHARED_MEMORY:
        folder = _Folder()
        return url.set(database=str(folder.path / "jobs.db"), query={}), folder
    name = f"file:/pgjobq-{secrets.token_hex(8)}"
    keep = sqlite3.connect(f"{name}?vfs=memdb", uri=True, check_same_thread=False)
    return url.set(database=name, query={"vfs": "memdb", "uri": "true"}), keep


def _configure_sqlite(connection: Any, _record: Any) -> None:
    # In WAL mode readers and the writer do not wait for each other. Sync stays FULL, so commits survive a power cut.
    # The switch needs exclusive access to the file once, while other connections may use it or try the same.
    with suppress(sqlite3.OperationalError):  # read-only or locked; the first statement reports it
        when_unlocked(connection, lambda: connection.execute("PRAGMA journal_mode=WAL"), at_most=1.0)


def begin_exclusively(conn: Connection) -> None:
    """Begin a transaction that may write, even if the engine's owner has configured another way to begin."""
    # The driver begins a transaction only before the first INSERT, UPDATE or DELETE, and not exclusively.
    if not conn.in_transaction():
        conn.begin()
    driver: Any = conn.connection.driver_connection
    if getattr(driver, "in_transaction", False):
        conn.exec_driver_sql("ROLLBACK")
    when_unlocked(driver, lambda: conn.exec_driver_sql("BEGIN IMMEDIATE"))


def when_unlocked(driver: Any, attempt: Callable[[], T], at_most: float = math.inf) -> T:
    """Repeat attempt until the lock is free, and return its result. Limit: at_most and the connection's busy timeout.

    SQLite's own waiting sleeps longer each time, so under load a process may never get the lock. Also, a connection
    that commits and one that turns on WAL would wait for each other until the timeout.
    """
    patience: int = driver.execute("PRAGMA busy_timeout").fetchone()[0]  # milliseconds
    deadline = time.monotonic() + min(patience / 1000, at_most)
    driver.execute("PRAGMA busy_timeout = 0")
    try:
        while True:
            try:
                return attempt()
            except (DBAPIError, sqlite3.OperationalError) as error:
                if not is_locked(error) or time.monotonic() > deadline:
                    raise
            time.sleep(random.uniform(*BETWEEN_LOOKS))  # noqa: S311  # no secret
    finally:
        driver.execute(f"PRAGMA busy_timeout = {patience}")


def is_locked(error: Exception) -> bool:
    """Return whether another connection holds the lock."""
    name = getattr(getattr(error, "orig", error), "sqlite_errorname", "")
    return str(name).startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
