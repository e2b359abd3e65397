"""Fetch results that do not depend on the connection's row factory, cursor factory or adapters."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

import psycopg
from psycopg.adapt import AdaptersMap
from psycopg.postgres import register_default_adapters, types
from psycopg.rows import tuple_row

from pgjobq.postgres.statements import FunctionCall

T = TypeVar("T")


@cache
def _adapters() -> AdaptersMap:
    """Return psycopg's default adapters, without those that the program has registered."""
    adapters = AdaptersMap(types=types)
    register_default_adapters(adapters)
    return adapters


class PlainCursor(psycopg.Cursor[tuple[Any, ...]]):
    """A cursor that returns tuples of plain values on any connection."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        super().__init__(connection, row_factory=tuple_row)

    @property
    def adapters(self) -> AdaptersMap:
        """psycopg's default adapters."""
        return _adapters()


class PlainAsyncCursor(psycopg.AsyncCursor[tuple[Any, ...]]):
    """PlainCursor for an AsyncConnection."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        super().__init__(connection, row_factory=tuple_row)

    @property
    def adapters(self) -> AdaptersMap:
        """psycopg's default adapters."""
        return _adapters()


def fetch(conn: psycopg.Connection[Any], call: FunctionCall[T]) -> T:
    """Execute a call on this connection and return its result."""
    with PlainCursor(conn) as cursor:
        return call.read(cursor.execute(call.statement, call.arguments, binary=call.binary).fetchall())
