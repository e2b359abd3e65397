"""Fixtures for the tests that call the SQL functions directly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from helpers.calls import register
from helpers.sleeper import Sleeper

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]


@pytest.fixture
def workers(conn: Connection) -> None:
    """Register workers 1 to 9. No session holds their keys, so tests that rescue jobs must not use them."""
    conn.execute("insert into workers (name) select 'by hand' from generate_series(1, 9)")


@pytest.fixture
def me(conn: Connection) -> int:
    """The id of a worker that the connection `conn` keeps alive."""
    return register(conn)


@pytest.fixture
def heard(connect: Connect) -> Callable[[], list[str]]:
    """Return a function that returns the payloads on the schema's channel since its last call."""
    listener = connect()
    listener.execute("listen pgjobq")
    return lambda: [notification.payload for notification in listener.notifies(timeout=0.2)]


@pytest.fixture
def sleeper(connect: Connect) -> Callable[..., Sleeper]:
    """Return a function that registers a worker, on a connection of its own, whose states the test sets."""
    return lambda queues=None: Sleeper(connect(), queues)
