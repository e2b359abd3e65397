"""Conditions of statements that are given the ids they work on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from sqlalchemy import ColumnElement, bindparam, case, literal_column

from pgjobq.storage.sqlalchemy.table import jobs
from pgjobq.storage.sqlalchemy.types import Moment

T = TypeVar("T")

MAX_IDS = 500  # MariaDB makes a table of a much longer list, and SQLite has a limit

NOW = bindparam("now", type_=Moment)
AMONG_IDS = jobs.c.id.in_(bindparam("ids", expanding=True))


def chunks(items: Sequence[T]) -> list[Sequence[T]]:
    """The items, in lists that a statement can hold."""
    return [items[start : start + MAX_IDS] for start in range(0, len(items), MAX_IDS)]


def met(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """The condition in a form that no index serves: beside the ids it must never lead the plan.

    Statistics taken when every job was pending say that none is running; a plan made from them reads the table.
    """
    return case((condition, 1), else_=0) == literal_column("1")
