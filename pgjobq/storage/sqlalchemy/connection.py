"""Transactions on an engine: begun as the database needs it, repeated when others were in the way."""

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

TRIES = 10  # of a transaction that others are in the way of
LONGEST_PAUSE = 0.2  # seconds between two of them
AT_REST = 1.0  # seconds to wait for transactions of others to end: before a fork, and on the only connection


class Overtaken(Exception):
    """Rows that were read have changed since, in a database where they could not be locked: do it again."""


class _Gate:
    """Lets one thread at a time write to a SQLite file: in SQLite's own queue they would sleep and look again."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        renew_in_child(self)

    def after_fork(self) -> None:
        """Wait for no thread of the parent's."""
        self.lock = threading.RLock()


_gates: WeakValueDictionary[str, _Gate] = WeakValueDictionary()


def _gate_of(engine: Engine) -> _Gate | None:
    if engine.dialect.name != "sqlite":
        return None
    name = engine.url.database or ""
    key = str(id(engine)) if name.startswith((":", "file:")) or not name else os.path.realpath(Path(name))
    return _gates.setdefault(key, _Gate())


def commits_by_itself(conn: Connection) -> bool:
    """Whether the driver commits each statement, so that no transaction holds two together.

    Not asked of SQLite, where transactions are begun by a statement.
    """
    driver: Any = conn.connection.driver_connection
    if conn.dialect.name == "sqlite":
        return False
    asked = getattr(driver, "get_autocommit", None)
    return bool(asked() if callable(asked) else getattr(driver, "autocommit", False))


class Database:
    """An engine, and how to work with it. Thread-safe; connects at the first transaction.

    prepare: called once, with this object, before the first transaction; it may raise, and is called again then.
    """

    def __init__(self, target: str | URL | Engine, timeout: float, prepare: Callable[[Database], None]) -> None:
        if not isinstance(target, str | URL | Engine):
            raise ConfigurationError(f"url: {type(target).__name__} is neither a URL nor an Engine of SQLAlchemy's")
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
        # A single connection serves all threads: a reader may not meet a writer in the middle.
        self._shares_connection = isinstance(self.engine.pool, StaticPool)
        self._preparing, self._door = threading.Lock(), threading.RLock()
        self._torn = False
        self._traits: Traits | None = None
        self.prepared = False
        self._identity: object = None  # of the database, once it was asked for
        self._same: WeakKeyDictionary[Engine, bool] = WeakKeyDictionary()
        self._only: Any = None  # the driver's connection that serves all threads
        event.listen(self.engine, "connect", close_socket_in_child)
        if self._shares_connection:
            event.listen(self.engine, "checkout", self._note_only)
        self.room = room_in(self.engine, timeout)
        renew_in_child(self)
        if self._is_file():
            hold_for_fork(self)

    def _is_file(self) -> bool:
        return self._gate is not None and isinstance(self.engine.pool, QueuePool) and self._keep is None

    def before_fork(self) -> None:
        """Have no SQLite file open: a child would take the parent's locks for its own, and for ever."""
        deadline = time.monotonic() + AT_REST
        self._door.acquire(timeout=AT_REST)
        while self._in_use() and time.monotonic() < deadline:
            time.sleep(0.001)
        self.engine.dispose()

    def _in_use(self) -> int:
        pool = self.engine.pool
        return pool.checkedout() if isinstance(pool, QueuePool) else 0

    def after_fork_in_parent(self) -> None:
        """Go on."""
        with suppress(RuntimeError):  # it was not to be had in time
            self._door.release()

    def after_fork(self) -> None:
        """Begin again in a child: connections and locks are the parent's."""
        self._torn = self._torn or (self._is_file() and bool(self._in_use()))
        self._preparing, self._door = threading.Lock(), threading.RLock()
        self.engine.dispose(close=False)
        self.room = room_in(self.engine, self._timeout)

    def _note_only(self, connection: Any, _record: Any, _fairy: Any) -> None:
        self._only = connection

    def join(self, conn: Connection) -> None:
        """Be ready to work on a connection of the caller's. Raises ConfigurationError when it leads elsewhere."""
        if conn.engine.pool is self.engine.pool:
            if self._shares_connection and self._traits is None:
                self._traits = traits_of(conn.dialect)  # asked on a connection of ours, it would end the transaction
            return
        if conn.engine not in self._same:
            if self._identity is None:
                self._identity = self.run(identity_of, writes=False)
            self._same[conn.engine] = identity_of(conn) == self._identity
        if not self._same[conn.engine]:
            raise ConfigurationError(f"connection: leads to another database than {self.server}, where the jobs are")

    @property
    def traits(self) -> Traits:
        """What the database can do. Connects, the first time."""
        if self._traits is None:
            with self.translated(), self.engine.connect() as conn:
                if commits_by_itself(conn):
                    raise ConfigurationError(
                        "engine: its isolation_level is AUTOCOMMIT, and without transactions two workers could"
                        " get the same job; leave isolation_level out"
                    )
                self._traits = traits_of(conn.dialect)
        return self._traits

    def open(self) -> None:
        """Connect, and prepare if that has not been done. Raises StorageUnavailable, or what else is wrong."""
        if self._torn:
            raise ConfigurationError(
                f"{self.server}: the process was forked in the middle of a transaction, and SQLite cannot tell its"
                " locks from the parent's; fork outside of transactions"
            )
        if self.prepared:
            return
        with self._preparing:
            if not self.prepared:
                self._prepare(self)
                self.prepared = True

    def read(self, work: Callable[[Connection], T]) -> T:
        """What work returns, which reads only. Repeated once when the connection turned out to be dead."""
        self.open()
        return self.run(work, writes=False)

    def write(self, work: Callable[[Connection], T]) -> T:
        """What work returns, in a transaction of its own, committed.

        Repeated with a bound when others were in the way, so work may run more than once. Raises
        StorageUnavailable when they were so each time, and when the database does not answer: rolled back, unless
        it went away during the commit.
        """
        self.open()
        return self.run(work, writes=True)

    def run(self, work: Callable[[Connection], T], *, writes: bool) -> T:
        """read or write, without preparing."""
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
                        raise StorageUnavailable(f"{self.server}: others were in the way each time") from error
                except DBAPIError as error:
                    if is_gone(error) and not reconnected:
                        # Nothing is committed yet, and the pool has thrown away its older connections.
                        reconnected = True
                        continue
                    if not (is_transient(error) or is_snapshot_old(error)) or (tries := tries + 1) >= TRIES:
                        raise
                # Full jitter: those who met must not meet again.
                time.sleep(random.uniform(0, min(LONGEST_PAUSE, 0.005 * 2**tries)))  # noqa: S311  # no secret

    @contextmanager
    def connection(self, *, writes: bool) -> Iterator[Connection]:
        """A connection, in a transaction that is rolled back unless it was committed."""
        traits = self.traits  # asked before a connection is taken: the pool may have just one
        with self._door:  # not while the process is forked
            pass
        with self._passed(writes=writes), self.engine.connect() as conn:
            if writes and traits.claiming == EXCLUSIVE:
                begin_exclusively(conn)
            yield conn

    def now(self, conn: Connection) -> datetime:
        """The time: the server's, where there is one."""
        if self.traits.now is None:
            return datetime.now(UTC)
        found: datetime = conn.execute(select(self.traits.now)).scalar_one()
        return found

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raise errors of SQLAlchemy inside as children of PgjobqError, the original as their cause."""
        try:
            yield
        except SQLAlchemyError as error:
            raise translate(error, self.server) from error

    def close(self) -> None:
        """Let go of the connections, if the engine is this object's own; a database in memory ends."""
        if self.own:
            self.engine.dispose()
        if self._keep is not None:
            self._keep.close()

    @contextmanager
    def _passed(self, *, writes: bool) -> Iterator[None]:
        gate = self._gate
        if gate is None or not (writes or self._shares_connection):
            yield
            return
        if not gate.lock.acquire(timeout=self._timeout):
            raise StorageUnavailable(f"{self.server} is locked by another thread for {self._timeout:g} s")
        try:
            if self._shares_connection:
                self._wait_for_its_transaction()
            yield
        finally:
            gate.lock.release()

    def _wait_for_its_transaction(self) -> None:
        # The only connection is in the program's own transaction, which ours would end.
        deadline = time.monotonic() + AT_REST
        while getattr(self._only, "in_transaction", False):
            if time.monotonic() > deadline:
                raise StorageUnavailable(
                    f"{self.server}: the program is in a transaction on the Engine's only connection; end it, give"
                    " it as connection=, or let the queue have an Engine of its own"
                )
            time.sleep(0.001)

    def _commit(self, conn: Connection) -> None:
        try:
            conn.commit()
        except DBAPIError as error:
            if is_gone(error):
                # It may have been committed or not: not to be repeated here.
                raise StorageUnavailable(f"{self.server} went away during a commit: {error.orig}") from error
            raise
