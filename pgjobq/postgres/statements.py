"""Statements that call SQL functions, formatted for the schema in which pgjobq is installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from psycopg import sql

T = TypeVar("T")
Rows = list[Any]  # tuples

JOB_COLUMNS = (
    "id, queue, type, data::text, status, priority, attempts, max_retries, execute_at, error, created_at, updated_at,"
    " started_at, finished_at, failed_at, worker_id, claim_id, crashes,"
    " unique_key, expires_at, case when status = 'completed' then {schema}.job_result(id)::text end"
)


class FunctionCall(NamedTuple, Generic[T]):
    """A statement that calls an SQL function, and the function that converts its rows to the result.

    binary: fetch the rows in the binary format. large: allow this call more time than the others.
    """

    statement: bytes
    arguments: Sequence[Any]
    read: Callable[[Rows], T]
    binary: bool = False
    large: bool = False


class InSchema(dict[str, bytes]):
    """Formatted statements, keyed by their text. In the text, {schema} is the schema and {columns} is JOB_COLUMNS.

    A statement is formatted when it is first used. After that, using it costs one lookup in a dict.
    """

    def __init__(self, schema: str) -> None:
        super().__init__()
        self._parts = {"schema": placeable(schema), "columns": sql.SQL(JOB_COLUMNS).format(schema=placeable(schema))}

    def __missing__(self, text: str) -> bytes:
        ready = self[text] = sql.SQL(text).format(**self._parts).as_bytes(None)
        return ready


def placeable(*names: str) -> sql.Composable:
    """Return the names as a quoted identifier for a statement with placeholders, with each % doubled."""
    return sql.Identifier(*(name.replace("%", "%%") for name in names))
