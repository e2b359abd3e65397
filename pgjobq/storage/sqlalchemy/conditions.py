"""Conditions of statements that are given the ids they work on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from sqlalchemy import ColumnElement, bindparam, case, literal_column

from pgjobq.storage.sqlalchemy.table import jobs
from pgjobq.storage.sqlalchemy.types import Moment

T = TypeVar("T")

MAX_IDS = 500  # MariaDB converts a much longer list to a table, and SQLite has a limit

NOW = bindparam("now", type_=Moment)
AMONG_IDS = jobs.c.id.in_(bindparam("ids", expanding=True))


def chunks(items: Sequence[T]) -> list[Sequence[T]]:
    """Split the items into lists that fit in a statement."""
    return [items[start : start + MAX_IDS] for start in range(0, len(items), MAX_IDS)]


def met(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return the condition in a form that no index supports, so that the plan begins with the ids.

    If the statistics were taken when every job was pending, they say that no job is running. Plans based on them would
    read the whole table.
    """
    return case((condition, 1), else_=0) == literal_column("1")
