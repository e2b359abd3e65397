"""Wait until a condition becomes true."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg


def until(condition: Callable[[], Any], seconds: float = 20.0, pause: float = 0.01) -> Any:
    """Check a condition every `pause` seconds until it is true, and return its value. Fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"the condition did not become true within {seconds:g} s"
        time.sleep(pause)
    return value


def until_row(conn: psycopg.Connection[Any], query: str) -> Any:
    """Wait until a query returns a row, and return the first one."""
    return until(lambda: conn.execute(query).fetchall())[0]
