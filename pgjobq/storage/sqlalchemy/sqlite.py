"""SQLite: its files, its databases in memory, and its one write lock."""

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

BETWEEN_LOOKS = (0.0005, 0.004)  # seconds from one look for the lock to the next
_SHARED_MEMORY = (3, 36)  # the version from which on connections can share a database in memory


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


def not_in(url: URL, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments that the URL does not give by itself."""
    return {name: value for name, value in arguments.items() if name not in url.query}


def open_sqlite(url: URL, timeout: float) -> tuple[Engine, Closing | None]:
    """An engine on a file or in memory, and what must live as long as it."""
    keep: Closing | None = None
    if is_memory(url):
        url, keep = _shared_memory(url)
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_timeout=timeout,
        max_overflow=50,  # a connection is a file handle; those that wait do so for the write lock
        connect_args=not_in(url, {"timeout": timeout, "check_same_thread": False}),
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
    # It needs the file alone, once; other connections may be at work on it, or doing the same.
    with suppress(sqlite3.OperationalError):  # read-only, or locked for long: the first statement tells, in its words
        when_unlocked(connection, lambda: connection.execute("PRAGMA journal_mode=WAL"), at_most=1.0)


def begin_exclusively(conn: Connection) -> None:
    """Begin a transaction that may write, whatever the engine's owner has it begin with."""
    # The driver begins nothing by itself before the first INSERT, UPDATE or DELETE, and then not exclusively.
    if not conn.in_transaction():
        conn.begin()
    driver: Any = conn.connection.driver_connection
    if getattr(driver, "in_transaction", False):
        conn.exec_driver_sql("ROLLBACK")
    when_unlocked(driver, lambda: conn.exec_driver_sql("BEGIN IMMEDIATE"))


def when_unlocked(driver: Any, attempt: Callable[[], T], at_most: float = math.inf) -> T:
    """What attempt returns, once the lock is free; within so many seconds, and the connection's own busy timeout.

    SQLite's own waiting sleeps ever longer, so that under load some process never gets its turn; and two that wait
    for each other, one to commit and one to turn on WAL, would do so until the timeout.
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
    """Whether another connection holds the lock."""
    name = getattr(getattr(error, "orig", error), "sqlite_errorname", "")
    return str(name).startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
