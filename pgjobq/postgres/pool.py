"""Connections to PostgreSQL that are safe from foreign settings, forks and lost packets."""

from __future__ import annotations

import os
import random
import select
import selectors
import time
from collections.abc import Callable, Mapping
from typing import Any

import psycopg
from psycopg import conninfo as ci
from psycopg_pool import ConnectionPool, PoolTimeout

from pgjobq.forks import close_in_child
from pgjobq.limits import ANSWER_TIME, Limited

Connection = psycopg.Connection[Any]

CONNECT_TIMEOUT = 5  # seconds
RETRY = 0.3  # seconds between two attempts to connect while a call waits
PIN_TRIES = 10  # attempts to set the settings of a session
DEAD_PAUSE = 0.25  # longest pause in seconds before the next attempt, when every new connection dies at once
_POOL_ONLY = ("autocommit", "row_factory", "cursor_factory", "prepare_threshold", "context")
# Both sides notice a vanished host after about 11 seconds (5 + 3 x 2).
KEEPALIVE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}
SERVER_KEEPALIVE = """
set tcp_keepalives_idle = 5; set tcp_keepalives_interval = 2; set tcp_keepalives_count = 3;
set tcp_user_timeout = 10000
"""
# Also used in handlers' transactions. The server returns times in UTC, so that they need no conversion for a Job.
SHARED_SETTINGS = f"""{SERVER_KEEPALIVE};
set timezone = 'UTC'; set default_transaction_isolation = 'read committed'; set default_transaction_read_only = off;
set default_transaction_deferrable = off;
"""
# The role, the database or the environment may have changed these settings. synchronous_commit is the user's choice.
# The limits come first, because the role's own limits apply until they are replaced.
_OWN = """
set statement_timeout = {statement_timeout}; set lock_timeout = 0; set idle_session_timeout = 0;
set datestyle = 'ISO'; set intervalstyle = 'postgres'; set extra_float_digits = 1; set bytea_output = 'hex';
set standard_conforming_strings = on; set array_nulls = on; set transform_null_equals = off;
set search_path = pg_catalog, pg_temp; set row_security = on; set client_min_messages = 'warning';
set plan_cache_mode = 'auto'; set jit = off; set exit_on_error = off;
set idle_in_transaction_session_timeout = '15s';
"""
_NEWER = {170_000: "set transaction_timeout = 0;"}  # keyed by the server version that introduced the setting
_RESET = "reset all; reset role;"
_poll: Callable[[], Any] | None = getattr(select, "poll", None)
_POLLIN: int = getattr(select, "POLLIN", 0)


class PinnedConnection(Limited, psycopg.Connection[Any]):
    """A connection that pgjobq opened. pinned: whether its session has the settings that pgjobq relies on.

    pins: False behind a transaction pooler, where the settings of a session do not persist.
    """

    pins = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.pinned, self.made_at, self._made_in = False, time.monotonic(), os.getpid()
        close_in_child(self)

    def __del__(self, _getpid: Callable[[], int] = os.getpid) -> None:
        # A forked child drops the inherited connections and must not get a warning about them.
        if getattr(self, "_made_in", None) == _getpid():
            super().__del__()

    def pin(self, answer_time: float = ANSWER_TIME) -> None:
        """Set the settings that pgjobq relies on, in one round trip.

        The statement_timeout ends a statement just before the client would stop waiting after answer_time seconds.
        """
        self.answer_time = answer_time
        if self.pins:
            newer = "".join(text for version, text in _NEWER.items() if self.info.server_version >= version)
            own = _OWN.format(statement_timeout=_just_before(answer_time))
            self._set(_RESET + own + SHARED_SETTINGS + newer)
        self.pinned = True

    def allow(self, seconds: float) -> None:
        """Let the next statements take this many seconds each, until the pool pins the connection again."""
        self.pinned, self.answer_time = False, seconds
        if self.pins:
            self._set(f"set statement_timeout = {_just_before(seconds)}")

    def unpin(self) -> None:
        """Prepare the session for a handler: restore the role's settings, and remove the limit on the answer time.

        Time zone, isolation and keepalive stay as pgjobq needs them. The pool pins the session again after the handler.
        """
        self.pinned = False
        if self.pins:
            self._set(_RESET + SHARED_SETTINGS)
        self.answer_time = None

    def _set(self, settings: str) -> None:
        """Set all of the settings or none. Retry if a tiny statement_timeout of the role cancels the statement."""
        for tries_left in reversed(range(PIN_TRIES)):
            try:
                self.execute(settings.encode())
                return
            except psycopg.errors.QueryCanceled:
                if not tries_left:
                    raise


class LimitedAsyncConnection(Limited, psycopg.AsyncConnection[Any]):
    """A connection for an async handler's transaction."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        close_in_child(self)


def _just_before(seconds: float) -> int:
    return max(1, round(seconds * 1000 - min(1000, seconds * 100)))  # milliseconds


def connect(parameters: Mapping[str, Any], answer_time: float = ANSWER_TIME, *, pins: bool = True) -> PinnedConnection:
    """Open an autocommit connection outside the pool, for example for the listener. Raises psycopg.Error.

    pins: False behind a transaction pooler, where settings must not stay in a session. A forked child closes the
    inherited socket, so that the session ends when the parent dies.
    """
    conn = PinnedConnection.connect(**parameters, autocommit=True)
    try:
        conn.pins = pins
        conn.pin(answer_time)
    except BaseException:
        conn.close()
        raise
    return conn


class Pool(ConnectionPool[PinnedConnection]):
    """The pool that pgjobq creates. When all connections have died, a call waits only for one new connection.

    psycopg_pool's own pool would test the connections one by one and sleep 1, 2, 4, ... seconds after each dead one and
    after each failed attempt to connect. pooled: the server is a transaction pooler, so settings must not stay in a
    session.
    """

    def __init__(
        self,
        parameters: Mapping[str, Any],
        *,
        pooled: bool,
        min_size: int,
        max_size: int,
        timeout: float,
        answer_time: float,
    ) -> None:
        self._pooled, self._answer_time = pooled, answer_time
        self._renewed_at, self._made_in = 0.0, os.getpid()
        super().__init__(
            "",
            connection_class=PinnedConnection,
            kwargs={**parameters, "autocommit": True},
            min_size=min_size,
            max_size=max_size,
            timeout=timeout,
            configure=self._prepare,
            reconnect_timeout=0,  # seconds; _try_again replaces the library's slow retries
            reconnect_failed=_try_again,
            open=False,
            name="pgjobq",
        )

    def __del__(self, _getpid: Callable[[], int] = os.getpid) -> None:
        # In a forked child the pool's threads do not exist, and its locks may be held for ever.
        if getattr(self, "_made_in", None) == _getpid():
            super().__del__()

    def getconn(self, timeout: float | None = None) -> PinnedConnection:
        """Return a live, pinned connection. Raises PoolTimeout when there is none within timeout seconds."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        pause = 0.0
        while True:
            conn = super().getconn(timeout=deadline - time.monotonic())
            try:
                check_alive(conn)
                if not conn.pinned:
                    self._prepare(conn)
                return conn
            except psycopg.Error as error:
                conn.pgconn.finish()
                self.putconn(conn)
                if time.monotonic() > deadline:
                    raise PoolTimeout(f"each connection was dead: {error}") from error
            time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
            pause = min(pause * 2 + 0.01, DEAD_PAUSE)

    def putconn(self, conn: PinnedConnection) -> None:
        """Return a connection to the pool. If it is dead, replace all, because the others have probably died, too."""
        if conn.broken and conn.made_at > self._renewed_at and not self.closed:
            self._renewed_at = time.monotonic()
            self.drain()
        super().putconn(conn)

    def _prepare(self, conn: PinnedConnection) -> None:
        conn.pins = not self._pooled
        conn.pin(self._answer_time)


def _try_again(pool: ConnectionPool[Any]) -> None:
    """Connect once more if a call is waiting. Otherwise the next call connects. The pool's own thread runs this."""
    time.sleep(RETRY * random.uniform(0.5, 1.0))  # noqa: S311  # jitter need not be secret
    if pool.get_stats().get("requests_waiting"):
        pool.check()


def parameters(conninfo: str, application_name: str) -> dict[str, Any]:
    """Return the keyword arguments of psycopg.connect. The conninfo overrides the defaults, except for the encoding."""
    defaults: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT, "application_name": application_name, **KEEPALIVE}
    return {**defaults, **ci.conninfo_to_dict(conninfo), "client_encoding": "UTF8"}


def pool_parameters(pool: ConnectionPool[Any]) -> dict[str, Any]:
    """Return the connection parameters of the caller's pool, for a connection outside it.

    If the pool's conninfo or kwargs are callables, call them, as the pool does.
    """
    conninfo: Any = pool.conninfo() if callable(pool.conninfo) else pool.conninfo
    kwargs: Any = pool.kwargs() if callable(pool.kwargs) else pool.kwargs
    own = {key: value for key, value in (kwargs or {}).items() if key not in _POOL_ONLY}
    return {**parameters(conninfo or "", "pgjobq"), **own, "client_encoding": "UTF8"}


def check_alive(conn: Connection) -> None:
    """Raise psycopg.OperationalError if the server has closed this connection.

    Check the socket first, and send a statement only if it is readable. The socket of an idle connection becomes
    readable only when the server closes the connection or reports a changed setting.
    """
    if conn.closed:
        raise psycopg.OperationalError("the connection is closed")
    if readable(conn.fileno()):
        ConnectionPool.check_connection(conn)


def readable(fd: int) -> bool:
    """Return whether there is data to read on a socket, or the end of the stream."""
    if _poll is None:
        return readable_anywhere(fd)
    poll = _poll()
    poll.register(fd, _POLLIN)
    return bool(poll.poll(0))


def readable_anywhere(fd: int) -> bool:
    """Do what readable does where poll is missing: on Windows, or under gevent or eventlet. It takes 5 µs longer."""
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        return bool(selector.select(0))
