"""Workers for the tests that call the SQL functions by hand."""

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
    """Workers 1 to 9 are registered. No session holds their locks: no test with a rescue may count on them."""
    conn.execute("insert into workers (name) select 'by hand' from generate_series(1, 9)")


@pytest.fixture
def me(conn: Connection) -> int:
    """The id of a worker, which the test's own connection keeps alive."""
    return register(conn)


@pytest.fixture
def heard(connect: Connect) -> Callable[[], list[str]]:
    """What a listener on the schema's channel has heard since it was asked last."""
    listener = connect()
    listener.execute("listen pgjobq")
    return lambda: [notification.payload for notification in listener.notifies(timeout=0.2)]


@pytest.fixture
def sleeper(connect: Connect) -> Callable[..., Sleeper]:
    """Makes workers by hand."""
    return lambda queues=None: Sleeper(connect(), queues)
