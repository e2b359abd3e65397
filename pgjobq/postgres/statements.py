"""Format the text of statements for the schema in which pgjobq is installed."""

from __future__ import annotations

from psycopg import sql

JOB_COLUMNS = (
    "id, queue, type, data::text, status, priority, attempts, max_retries, execute_at, error, created_at, updated_at,"
    " started_at, finished_at, failed_at, worker_id, claim_id, crashes,"
    " unique_key, expires_at"
)


class InSchema(dict[str, bytes]):
    """Formatted statements, keyed by their text. In the text, {schema} is the schema and {columns} is JOB_COLUMNS.

    A statement is formatted when it is first used. After that, using it costs one lookup in a dict.
    """

    def __init__(self, schema: str) -> None:
        super().__init__()
        self._parts = {"schema": placeable(schema), "columns": sql.SQL(JOB_COLUMNS)}

    def __missing__(self, text: str) -> bytes:
        ready = self[text] = sql.SQL(text).format(**self._parts).as_bytes(None)
        return ready


def placeable(*names: str) -> sql.Composable:
    """Return the names as a quoted identifier for a statement with placeholders, with each % doubled."""
    return sql.Identifier(*(name.replace("%", "%%") for name in names))
