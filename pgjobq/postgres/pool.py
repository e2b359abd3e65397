"""Connections to PostgreSQL that depend on nothing around them: not on settings, forks, or packets that are lost."""

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
RETRY = 0.3  # seconds between two tries to connect while a call waits
PIN_TRIES = 10  # for the settings of a session
DEAD_PAUSE = 0.25  # seconds at most before another look, when every connection is dead as soon as it is made
_POOL_ONLY = ("autocommit", "row_factory", "cursor_factory", "prepare_threshold", "context")
# A host that vanished is noticed after about 11 seconds (5 + 3 x 2), on either side.
KEEPALIVE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}
SERVER_KEEPALIVE = """
set tcp_keepalives_idle = 5; set tcp_keepalives_interval = 2; set tcp_keepalives_count = 3;
set tcp_user_timeout = 10000
"""
# For handlers' transactions too. Times come back in UTC, which every Job carries: no conversion later.
SHARED_SETTINGS = f"""{SERVER_KEEPALIVE};
set timezone = 'UTC'; set default_transaction_isolation = 'read committed'; set default_transaction_read_only = off;
set default_transaction_deferrable = off;
"""
# What the role, the database or the environment may have set otherwise. synchronous_commit is not ours to choose.
# The limits come first: those of the role are still in force then.
_OWN = """
set statement_timeout = {statement_timeout}; set lock_timeout = 0; set idle_session_timeout = 0;
set datestyle = 'ISO'; set intervalstyle = 'postgres'; set extra_float_digits = 1; set bytea_output = 'hex';
set standard_conforming_strings = on; set array_nulls = on; set transform_null_equals = off;
set search_path = pg_catalog, pg_temp; set row_security = on; set client_min_messages = 'warning';
set plan_cache_mode = 'auto'; set jit = off; set exit_on_error = off;
set idle_in_transaction_session_timeout = '15s';
"""
_NEWER = {170_000: "set transaction_timeout = 0;"}  # by the version that brought the setting
_RESET = "reset all; reset role;"
_poll: Callable[[], Any] | None = getattr(select, "poll", None)
_POLLIN: int = getattr(select, "POLLIN", 0)


class PinnedConnection(Limited, psycopg.Connection[Any]):
    """A connection of pgjobq's own. pinned: whether its session has the settings that pgjobq relies on.

    pins: False where a session's settings do not stay, behind a transaction pooler.
    """

    pins = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.pinned, self.made_at, self._made_in = False, time.monotonic(), os.getpid()
        close_in_child(self)

    def __del__(self, _getpid: Callable[[], int] = os.getpid) -> None:
        # A forked child lets go of what it inherited, and is not to be warned of it.
        if getattr(self, "_made_in", None) == _getpid():
            super().__del__()

    def pin(self, answer_time: float = ANSWER_TIME) -> None:
        """Set what pgjobq relies on, in one round trip. The server ends a statement just before the client would."""
        self.answer_time = answer_time
        if self.pins:
            newer = "".join(text for version, text in _NEWER.items() if self.info.server_version >= version)
            own = _OWN.format(statement_timeout=_just_before(answer_time))
            self._set(_RESET + own + SHARED_SETTINGS + newer)
        self.pinned = True

    def allow(self, seconds: float) -> None:
        """Give the statements to come so long. The pool pins the connection again."""
        self.pinned, self.answer_time = False, seconds
        if self.pins:
            self._set(f"set statement_timeout = {_just_before(seconds)}")

    def unpin(self) -> None:
        """Give the session to a handler: the role's own settings, but for times, isolation and keepalive. No limit.

        The pool pins it again, whatever the handler has set.
        """
        self.pinned = False
        if self.pins:
            self._set(_RESET + SHARED_SETTINGS)
        self.answer_time = None

    def _set(self, settings: str) -> None:
        """Set them all or none. Tried again when the role's own statement_timeout, of a few milliseconds, ends it."""
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
    """A connection in autocommit, for what needs a session of its own, such as a listener. Raises psycopg.Error.

    pins: False behind a transaction pooler, where nothing may stay in a session. A forked child closes the socket, so
    that it does not keep a dead parent's session alive.
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
    """A pool of pgjobq's own, opened by open(). Where every connection has died, a call waits for a fresh one only.

    pooled: the server end is a transaction pooler, so nothing may stay in a session. The library's pool tests its
    connections one by one and sleeps 1, 2, 4 s after each that is dead, and so it does after each try to connect.
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
            reconnect_timeout=0,  # seconds of its own slow tries; see _try_again
            reconnect_failed=_try_again,
            open=False,
            name="pgjobq",
        )

    def __del__(self, _getpid: Callable[[], int] = os.getpid) -> None:
        # In a forked child its threads are not there, and its locks may be held for ever.
        if getattr(self, "_made_in", None) == _getpid():
            super().__del__()

    def getconn(self, timeout: float | None = None) -> PinnedConnection:
        """A connection that lives, and is pinned. Raises PoolTimeout when there is none within timeout seconds."""
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
        """Give back a connection. When it is a dead one, all are replaced: what ended it has ended the others."""
        if conn.broken and conn.made_at > self._renewed_at and not self.closed:
            self._renewed_at = time.monotonic()
            self.drain()
        super().putconn(conn)

    def _prepare(self, conn: PinnedConnection) -> None:
        conn.pins = not self._pooled
        conn.pin(self._answer_time)


def _try_again(pool: ConnectionPool[Any]) -> None:
    """Connect once more, in a thread of the pool's, when a call is waiting; else the next call does."""
    time.sleep(RETRY * random.uniform(0.5, 1.0))  # noqa: S311  # spread, not secrecy
    if pool.get_stats().get("requests_waiting"):
        pool.check()


def parameters(conninfo: str, application_name: str) -> dict[str, Any]:
    """The keyword arguments for psycopg.connect; what the conninfo says itself goes first, but for the encoding."""
    defaults: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT, "application_name": application_name, **KEEPALIVE}
    return {**defaults, **ci.conninfo_to_dict(conninfo), "client_encoding": "UTF8"}


def pool_parameters(pool: ConnectionPool[Any]) -> dict[str, Any]:
    """How a pool of the caller's connects now, for a connection beside it. Calls what it was given to be called."""
    conninfo: Any = pool.conninfo() if callable(pool.conninfo) else pool.conninfo
    kwargs: Any = pool.kwargs() if callable(pool.kwargs) else pool.kwargs
    own = {key: value for key, value in (kwargs or {}).items() if key not in _POOL_ONLY}
    return {**parameters(conninfo or "", "pgjobq"), **own, "client_encoding": "UTF8"}


def check_alive(conn: Connection) -> None:
    """Raise if the server has closed this connection: a look at the socket, and rarely a statement.

    An idle connection has nothing to read, unless its server went away, or changed a setting.
    """
    if conn.closed:
        raise psycopg.OperationalError("the connection is closed")
    if readable(conn.fileno()):
        ConnectionPool.check_connection(conn)


def readable(fd: int) -> bool:
    """Whether there is something to read on a socket, the end of the stream included."""
    if _poll is None:
        return readable_anywhere(fd)
    poll = _poll()
    poll.register(fd, _POLLIN)
    return bool(poll.poll(0))


def readable_anywhere(fd: int) -> bool:
    """readable, where there is no poll: on Windows, or when gevent or eventlet has taken it away. Costs 5 µs more."""
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        return bool(selector.select(0))
