"""Workers for the tests that call the SQL functions by hand."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

Connection = psycopg.Connection[Any]


@pytest.fixture
def workers(conn: Connection) -> None:
    """Workers 1 to 9 are registered. No session holds their locks: no test with a rescue may count on them."""
    conn.execute("insert into workers (name) select 'by hand' from generate_series(1, 9)")
