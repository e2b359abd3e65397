"""Statements whose results do not depend on the connection: not on its row factory, cursor factory or adapters."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

import psycopg
from psycopg.adapt import AdaptersMap
from psycopg.postgres import register_default_adapters, types
from psycopg.rows import tuple_row

from pgjobq.postgres.calls import FunctionCall

T = TypeVar("T")


@cache
def _adapters() -> AdaptersMap:
    """psycopg's own, as they were before a program registered others of its own."""
    adapters = AdaptersMap(types=types)
    register_default_adapters(adapters)
    return adapters


class PlainCursor(psycopg.Cursor[tuple[Any, ...]]):
    """A cursor that gives tuples of plain values on any connection."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        super().__init__(connection, row_factory=tuple_row)

    @property
    def adapters(self) -> AdaptersMap:
        """psycopg's own."""
        return _adapters()


class PlainAsyncCursor(psycopg.AsyncCursor[tuple[Any, ...]]):
    """PlainCursor for an AsyncConnection."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        super().__init__(connection, row_factory=tuple_row)

    @property
    def adapters(self) -> AdaptersMap:
        """psycopg's own."""
        return _adapters()


def fetch(conn: psycopg.Connection[Any], call: FunctionCall[T]) -> T:
    """What a call returns."""
    with PlainCursor(conn) as cursor:
        return call.read(cursor.execute(call.statement, call.arguments, binary=call.binary).fetchall())
