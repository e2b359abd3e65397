"""The database as a storage sees it: a connection pool, and the calls that its connections execute."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from psycopg_pool import ConnectionPool

from pgjobq.checks import check_seconds
from pgjobq.errors import ConfigurationError
from pgjobq.forks import renew_in_child
from pgjobq.postgres.calls import Calls
from pgjobq.postgres.dsn import connection_parameters
from pgjobq.postgres.errors import translated
from pgjobq.postgres.fetching import PlainCursor, fetch
from pgjobq.postgres.pool import Connection, PinnedConnection, Pool, connect, pool_parameters
from pgjobq.postgres.schema import check_schema
from pgjobq.postgres.statements import FunctionCall
from pgjobq.room import Room

T = TypeVar("T")

LARGE_TIME = 600.0  # seconds that a large call may take
CLOSE_TIME = 1.0  # seconds to wait for the pool's threads, which a failing connection attempt may block
# Ignore read-only mode on a standby, because a standby is always read-only.
_SETTINGS = b"""select current_setting('transaction_isolation'),
       current_setting('transaction_read_only')::boolean and not pg_is_in_recovery(),
       current_setting('session_replication_role') = 'replica'"""
_ISOLATION = b"set transaction isolation level read committed, read write"


class Database:
    """A pool that opens and checks the schema at the first call. Errors are raised as subclasses of PgjobqError.

    A forked child gets its own pool, which opens at its first call. If the caller passed a pool that was open at the
    time of the fork, calls in the child raise ConfigurationError.
    """

    def __init__(
        self,
        conninfo: str | ConnectionPool[Any],
        *,
        schema: str,
        pooled: bool,
        min_size: int,
        max_size: int,
        timeout: float,
        application_name: str,
        answer_timeout: float,
    ) -> None:
        check_seconds("answer_timeout", answer_timeout)
        self.schema = schema
        self.calls = Calls(schema)
        self.answer_timeout = answer_timeout
        self._opened, self._lock = False, threading.Lock()
        self._inherited = self._in_isolation = False
        self.pins = isinstance(conninfo, str) and not pooled
        self.pool: ConnectionPool[Any]
        if isinstance(conninfo, str):
            own = connection_parameters(conninfo, application_name)
            if pooled:  # a prepared statement belongs to a session, and a transaction pooler keeps no sessions
                own["prepare_threshold"] = None
            self._own: dict[str, Any] | None = own
            self._sizes: dict[str, Any] = {"min_size": min_size, "max_size": max_size, "timeout": timeout}
            self.pool = self._new_pool()
        elif isinstance(conninfo, ConnectionPool):
            self._own, self.pool = None, conninfo
        else:
            raise ConfigurationError(
                f"conninfo: {type(conninfo).__name__} is not supported; use a DSN or a psycopg_pool.ConnectionPool"
            )
        self.room = self._new_room()
        renew_in_child(self)

    def _new_pool(self) -> Pool:
        assert self._own is not None  # the caller's pool is never replaced
        return Pool(self._own, pooled=not self.pins, answer_time=self.answer_timeout, **self._sizes)

    def _new_room(self) -> Room:
        return Room(self.pool.max_size, self.pool.timeout, None if self._own is None else self._grow)

    def _grow(self, max_size: int) -> None:
        self.pool.resize(self.pool.min_size, max_size)

    @property
    def parameters(self) -> dict[str, Any]:
        """The keyword arguments of psycopg.connect for a connection outside the pool."""
        return self._own if self._own is not None else pool_parameters(self.pool)

    def after_fork(self) -> None:
        """Reset the object in a forked child, where the pool belongs to the parent.

        The lock is replaced, because another thread of the parent may have held it.
        """
        self._opened, self._lock = False, threading.Lock()
        if self._own is not None:
            self.pool = self._new_pool()
        else:
            self._inherited = self._inherited or not self.pool.closed
        self.room = self._new_room()

    def open(self) -> None:
        """Connect and check the schema, once. Raises StorageUnavailable, NotMigrated or SchemaTooNew."""
        if self._opened:
            return
        if self._inherited:
            raise ConfigurationError(
                "conninfo: this ConnectionPool was open when the process was forked, so its connections belong to the"
                " parent; open the pool after the fork, or use a DSN"
            )
        with self._lock:
            if self._opened:
                return
            with translated():
                if self._own is not None:
                    # Connect without the pool first, because the pool does not report why it gets no connection.
                    with connect(self._own, self.answer_timeout, pins=self.pins) as conn:
                        self._check(conn)
                    self.pool.open()
                else:
                    with self.pool.connection() as conn:
                        self._check(conn)
            self._opened = True

    def _check(self, conn: Connection) -> None:
        """Check the schema and the settings that cannot be pinned. Raises ConfigurationError for a bad setting."""
        with PlainCursor(conn) as cursor:
            isolation, read_only, replica = cursor.execute(_SETTINGS).fetchall()[0]
        self._in_isolation = isolation != "read committed" or read_only
        if conn.info.encoding != "utf-8":
            raise ConfigurationError(
                f"conninfo: the pool's connections have client_encoding {conn.info.encoding}, and jobs need UTF8;"
                " create the pool with kwargs={'client_encoding': 'utf8'}"
            )
        if replica:
            raise ConfigurationError(
                "conninfo: session_replication_role is replica for this user, so triggers do not fire and workers"
                " find no jobs; reset it with ALTER ROLE ... RESET session_replication_role"
            )
        check_schema(conn, self.schema)

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Yield a connection from the pool.

        It is in a transaction if the session's default isolation or read-only mode does not suit pgjobq.
        """
        self.open()
        with translated(), self.pool.connection() as conn:
            if self._in_isolation:
                with conn.transaction():
                    conn.execute(_ISOLATION)
                    yield conn
            else:
                yield conn

    def run(self, call: FunctionCall[T]) -> T:
        """Execute a call in its own transaction and return its result."""
        with self.connection() as conn:
            if call.large and isinstance(conn, PinnedConnection):
                conn.allow(LARGE_TIME)
            return fetch(conn, call)

    def close(self) -> None:
        """Close the pool, unless it belongs to the caller."""
        if self._own is not None:
            self.pool.close(timeout=CLOSE_TIME)
