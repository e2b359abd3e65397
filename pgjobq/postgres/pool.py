"""Connections to PostgreSQL with defaults that fit a job queue."""

from __future__ import annotations

import select
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import conninfo as ci
from psycopg_pool import ConnectionPool

Connection = psycopg.Connection[Any]

CONNECT_TIMEOUT = 5  # seconds
_POOL_ONLY = ("autocommit", "row_factory", "cursor_factory", "prepare_threshold")
# A host that vanished is noticed after about 11 seconds (5 + 3 x 2), on either side.
KEEPALIVE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}
SERVER_KEEPALIVE = """
set tcp_keepalives_idle = 5; set tcp_keepalives_interval = 2; set tcp_keepalives_count = 3;
set tcp_user_timeout = 10000
"""


def parameters(conninfo: str, application_name: str) -> dict[str, Any]:
    """The keyword arguments for psycopg.connect; what the conninfo says itself goes first."""
    defaults: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT, "application_name": application_name, **KEEPALIVE}
    return {**defaults, **ci.conninfo_to_dict(conninfo)}


def pool_parameters(pool: ConnectionPool[Any]) -> dict[str, Any]:
    """How a pool of the caller's connects, for a connection beside it."""
    kwargs = pool.kwargs if isinstance(pool.kwargs, dict) else {}
    own = {key: value for key, value in kwargs.items() if key not in _POOL_ONLY}
    return {**own, **ci.conninfo_to_dict(pool.conninfo if isinstance(pool.conninfo, str) else "")}


def open_pool(
    connect: Mapping[str, Any], *, pooled: bool, min_size: int, max_size: int, timeout: float
) -> ConnectionPool[Connection]:
    """A pool, not opened yet. pooled: the server end is a transaction pooler, so nothing may stay in a session."""
    kwargs = {**connect, "autocommit": True}
    return ConnectionPool(
        "",
        kwargs=kwargs,
        min_size=min_size,
        max_size=max_size,
        timeout=timeout,
        configure=None if pooled else in_utc,
        check=check_alive,
        open=False,
        name="pgjobq",
    )


def in_utc(conn: Connection) -> None:
    """Have times come back in UTC, which every Job carries: no conversion later."""
    conn.execute("set timezone to 'UTC'")
    if not conn.autocommit:
        conn.commit()


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
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))
