"""Functions that read the rows of an answer, for the `read` of a FunctionCall."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pgjobq.postgres.statements import Rows

Dicts = list[dict[str, Any]]


def rows(rows: Rows) -> Rows:
    """Return the rows as they are."""
    return rows


def row(rows: Rows) -> Any:
    """Return the only row."""
    return rows[0]


def value(rows: Rows) -> Any:
    """Return the only value."""
    return rows[0][0]


def values(rows: Rows) -> list[Any]:
    """Return the first value of each row."""
    return [row[0] for row in rows]


def value_set(rows: Rows) -> set[Any]:
    """Return the first value of each row as a set."""
    return {row[0] for row in rows}


def dicts(*names: str) -> Callable[[Rows], Dicts]:
    """Return a function that makes each row a dict with these names."""
    return lambda rows: [dict(zip(names, row, strict=True)) for row in rows]
