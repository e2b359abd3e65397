"""Transactions on an engine. They begin as the database requires, and are repeated after a conflict with others."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

from sqlalchemy import URL, Connection, Engine, QueuePool, event, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from pgjobq.errors import ConfigurationError, StorageUnavailable
from pgjobq.forks import hold_for_fork, renew_in_child
from pgjobq.storage.sqlalchemy.engine import (
    EXCLUSIVE,
    Traits,
    check_engine,
    close_socket_in_child,
    identity_of,
    open_engine,
    room_in,
    traits_of,
)
from pgjobq.storage.sqlalchemy.errors import is_gone, is_snapshot_old, is_transient, shown, translate
from pgjobq.storage.sqlalchemy.sqlite import Closing, begin_exclusively

T = TypeVar("T")

TRIES = 10  # attempts of a transaction that conflicts with others
LONGEST_PAUSE = 0.2  # seconds between two attempts
AT_REST = 1.0  # seconds to wait for other transactions to end, before a fork and on the only connection


class Overtaken(Exception):
    """Rows have changed after they were read, because the database cannot lock them. Repeat the transaction."""


class _Gate:
    """A lock that lets one thread at a time write to a SQLite file. SQLite's own waiting would sleep and poll."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        renew_in_child(self)

    def after_fork(self) -> None:
        """Reset the lock, because a thread of the parent may have held it."""
        self.lock = threading.RLock()


_gates: WeakValueDictionary[str, _Gate] = WeakValueDictionary()


def _gate_of(engine: Engine) -> _Gate | None:
    if engine.dialect.name != "sqlite":
        return None
    name = engine.url.database or ""
    key = str(id(engine)) if name.startswith((":", "file:")) or not name else os.path.realpath(Path(name))
    return _gates.setdefault(key, _Gate())


def commits_by_itself(conn: Connection) -> bool:
    """Return whether the driver commits each statement, so that there are no transactions.

    This is not used for SQLite, where pgjobq begins transactions with a statement.
    """
    driver: Any = conn.connection.driver_connection
    if conn.dialect.name == "sqlite":
        return False
    asked = getattr(driver, "get_autocommit", None)
    return bool(asked() if callable(asked) else getattr(driver, "autocommit", False))


class Database:
    """An engine, and the way to use it. Thread-safe. It connects at the first transaction.

    prepare: called with this object before the first transaction. If it raises, the next transaction calls it again.
    """

    def __init__(self, target: str | URL | Engine, timeout: float, prepare: Callable[[Database], None]) -> None:
        if not isinstance(target, str | URL | Engine):
            raise ConfigurationError(f"url: {type(target).__name__} is not supported; use a URL or a SQLAlchemy Engine")
        self._keep: Closing | None = None
        self.own = not isinstance(target, Engine)
        if isinstance(target, Engine):
            self.engine = target
            check_engine(target)
        else:
            self.engine, self._keep = open_engine(target, timeout)
        self.server = shown(self.engine)
        self._timeout, self._prepare = timeout, prepare
        self._gate = _gate_of(self.engine)
        # A single connection serves all threads, so a reader must wait until a writer has finished.
        self.shares_connection = isinstance(self.engine.pool, StaticPool)
        self._preparing, self._door = threading.Lock(), threading.RLock()
        self._torn = False
        self._traits: Traits | None = None
        self.prepared = False
        self._identity: object = None  # identity of the database, once known
        self._same: WeakKeyDictionary[Engine, bool] = WeakKeyDictionary()
        self._only: Any = None  # the driver's connection, if one serves all threads
        event.listen(self.engine, "connect", close_socket_in_child)
        if self.shares_connection:
            event.listen(self.engine, "checkout", self._note_only)
        self.room = room_in(self.engine, timeout)
        renew_in_child(self)
        if self._is_file():
            hold_for_fork(self)

    def _is_file(self) -> bool:
        return self._gate is not None and isinstance(self.engine.pool, QueuePool) and self._keep is None

    def before_fork(self) -> None:
        """Close all SQLite files, because a forked child would inherit the parent's locks and keep them for ever."""
        deadline = time.monotonic() + AT_REST
        self._door.acquire(timeout=AT_REST)
        while self._in_use() and time.monotonic() < deadline:
            time.sleep(0.001)
        self.engine.dispose()

    def _in_use(self) -> int:
        pool = self.engine.pool
        return pool.checkedout() if isinstance(pool, QueuePool) else 0

    def after_fork_in_parent(self) -> None:
        """Let transactions continue."""
        with suppress(RuntimeError):  # before_fork did not get the lock in time
            self._door.release()

    def after_fork(self) -> None:
        """Reset the object in a forked child, because the connections and locks are the parent's."""
        self._torn = self._torn or (self._is_file() and bool(self._in_use()))
        self._preparing, self._door = threading.Lock(), threading.RLock()
        self.engine.dispose(close=False)
        self.room = room_in(self.engine, self._timeout)

    def _note_only(self, connection: Any, _record: Any, _fairy: Any) -> None:
        self._only = connection

    def join(self, conn: Connection) -> None:
        """Prepare to work on the caller's connection. Raises ConfigurationError if it leads to another database."""
        if conn.engine.pool is self.engine.pool:
            if self.shares_connection and self._traits is None:
                self._traits = traits_of(conn.dialect)  # a check on a connection of pgjobq would end the transaction
            return
        if conn.engine not in self._same:
            its = identity_of(conn)
            if self._identity != its:  # not read yet, or the server has restarted
                self._identity = self.run(identity_of, writes=False)
            self._same[conn.engine] = its == self._identity
        if not self._same[conn.engine]:
            raise ConfigurationError(f"connection: it leads to another database; use a connection to {self.server}")

    @property
    def traits(self) -> Traits:
        """What the database can do. The first use connects."""
        if self._traits is None:
            # Not in the middle of another thread's transaction on the same connection, which this would roll back.
            with self.translated(), self._passed(writes=False), self.engine.connect() as conn:
                if commits_by_itself(conn):
                    raise ConfigurationError(
                        "engine: its isolation_level is AUTOCOMMIT, and without transactions two workers could"
                        " get the same job; leave isolation_level out"
                    )
                self._traits = traits_of(conn.dialect)
        return self._traits

    def open(self) -> None:
        """Connect, and prepare the database once. Raises StorageUnavailable, or an error of prepare."""
        if self._torn:
            raise ConfigurationError(
                f"{self.server}: the process was forked during a transaction, and SQLite cannot distinguish the"
                " child's locks from the parent's; fork outside of transactions"
            )
        if self.prepared:
            return
        with self._preparing:
            if not self.prepared:
                self._prepare(self)
                self.prepared = True

    def read(self, work: Callable[[Connection], T]) -> T:
        """Call work, which only reads, and return its result. Repeat it once if the connection is dead."""
        self.open()
        return self.run(work, writes=False)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Call work in its own transaction, commit, and return the result.

        After a conflict with other transactions the call is repeated at most TRIES times, so work may run more than
        once. Raises StorageUnavailable if every attempt conflicts, or if the database does not answer. The transaction
        is rolled back then, unless the database went away during the commit.
        """
        self.open()
        return self.run(work, writes=True)

    def run(self, work: Callable[[Connection], T], *, writes: bool) -> T:
        """Do what read or write does, without preparing the database."""
        tries, reconnected = 0, False
        with self.translated():
            while True:
                try:
                    with self.connection(writes=writes) as conn:
                        result = work(conn)
                        self._commit(conn)
                        return result
                except Overtaken as error:
                    if (tries := tries + 1) >= TRIES:
                        raise StorageUnavailable(f"{self.server}: each attempt met a conflict; try again") from error
                except DBAPIError as error:
                    if is_gone(error) and not reconnected:
                        # Nothing is committed yet, and the pool has discarded its older connections.
                        reconnected = True
                        continue
                    if not (is_transient(error) or is_snapshot_old(error)) or (tries := tries + 1) >= TRIES:
                        raise
                # Full jitter keeps the transactions from conflicting again.
                time.sleep(random.uniform(0, min(LONGEST_PAUSE, 0.005 * 2**tries)))  # noqa: S311  # no secret

    @contextmanager
    def connection(self, *, writes: bool) -> Iterator[Connection]:
        """Yield a connection in a transaction, which is rolled back unless it was committed."""
        traits = self.traits  # read before a connection is taken, because the pool may have only one
        with self._door:  # blocks while the process forks
            pass
        with self._passed(writes=writes), self.engine.connect() as conn:
            if writes and traits.claiming == EXCLUSIVE:
                begin_exclusively(conn)
            yield conn

    def now(self, conn: Connection) -> datetime:
        """Return the time of the server, or of this process if there is no server."""
        if self.traits.now is None:
            return datetime.now(UTC)
        found: datetime = conn.execute(select(self.traits.now)).scalar_one()
        return found

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raise SQLAlchemy's errors as subclasses of PgjobqError, with the original error as the cause."""
        try:
            yield
        except SQLAlchemyError as error:
            raise translate(error, self.server) from error

    def close(self) -> None:
        """Close the connections, unless the caller owns the engine. This deletes a database in memory."""
        if self.own:
            self.engine.dispose()
        if self._keep is not None:
            self._keep.close()

    @contextmanager
    def _passed(self, *, writes: bool) -> Iterator[None]:
        gate = self._gate
        if gate is None or not (writes or self.shares_connection):
            yield
            return
        if not gate.lock.acquire(timeout=self._timeout):
            raise StorageUnavailable(f"{self.server} is locked by another thread for {self._timeout:g} s")
        try:
            if self.shares_connection:
                self._wait_for_its_transaction()
            yield
        finally:
            gate.lock.release()

    def _wait_for_its_transaction(self) -> None:
        # The program's own transaction uses the only connection, and a transaction of pgjobq would end it.
        deadline = time.monotonic() + AT_REST
        while getattr(self._only, "in_transaction", False):
            if time.monotonic() > deadline:
                raise StorageUnavailable(
                    f"{self.server}: the program is in a transaction on the Engine's only connection; end it, pass"
                    " it as connection=, or use a separate Engine for the queue"
                )
            time.sleep(0.001)

    def _commit(self, conn: Connection) -> None:
        try:
            conn.commit()
        except DBAPIError as error:
            if is_gone(error):
                # Do not repeat the transaction, because it may have been committed.
                raise StorageUnavailable(f"{self.server} went away during a commit: {error.orig}") from error
            raise
