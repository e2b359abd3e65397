"""Waiting for what comes about by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg


def until(condition: Callable[[], Any], seconds: float = 20.0, pause: float = 0.01) -> Any:
    """Wait until a condition holds, and return its value. It is looked at every `pause` seconds, and fails after so many."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"it did not come about within {seconds:g} s"
        time.sleep(pause)
    return value


def until_row(conn: psycopg.Connection[Any], query: str) -> Any:
    """Wait until a query has a row, and return it."""
    return until(lambda: conn.execute(query).fetchall())[0]
