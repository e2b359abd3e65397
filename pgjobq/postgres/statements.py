"""The text of statements, made ready for the schema in which pgjobq was installed."""

from __future__ import annotations

from psycopg import sql

JOB_COLUMNS = (
    "id, queue, type, data::text, status, priority, attempts, max_retries, execute_at, error, created_at, updated_at,"
    " started_at, finished_at, failed_at, worker_id, claim_id, crashes"
)


class InSchema(dict[str, bytes]):
    """Statements by their text, in which {schema} stands for the schema and {columns} for JOB_COLUMNS.

    A statement is made ready when it is first asked for. Afterwards asking costs what a dict costs.
    """

    def __init__(self, schema: str) -> None:
        super().__init__()
        self._parts = {"schema": placeable(schema), "columns": sql.SQL(JOB_COLUMNS)}

    def __missing__(self, text: str) -> bytes:
        ready = self[text] = sql.SQL(text).format(**self._parts).as_bytes(None)
        return ready


def placeable(*names: str) -> sql.Composable:
    """The names as a quoted identifier for a statement with placeholders, where a % in them would begin one."""
    return sql.Identifier(*(name.replace("%", "%%") for name in names))
