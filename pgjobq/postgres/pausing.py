"""Pausing: queues and types of which no worker starts a job."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pgjobq.postgres.database import Database
from pgjobq.postgres.statements import FunctionCall, InSchema

_PAUSE = {
    "queue": "select {schema}.pause_queue(%s, %s, %s)",
    "type": "select {schema}.pause_type(%s, %s, %s)",
}
_RESUME = {"queue": "select {schema}.resume_queue(%s)", "type": "select {schema}.resume_type(%s)"}
_PAUSES = """
select 'queue', name, paused_at, paused_until, paused_by, reason from {schema}.queues where paused
union all
select 'type', type, paused_at, paused_until, paused_by, reason from {schema}.paused_types
 order by 1, 2
"""
_NAMES = ("kind", "name", "paused_at", "paused_until", "paused_by", "reason")


class Pauses:
    """The pauses of one schema. kind is "queue" or "type"."""

    def __init__(self, database: Database, schema: str) -> None:
        self._run, self._sql = database.run, InSchema(schema)

    def pause(self, kind: str, name: str, until: datetime | None, reason: str | None) -> None:
        """Start no more jobs of it."""
        self._run(FunctionCall(self._sql[_PAUSE[kind]], [name, until, reason], len))

    def resume(self, kind: str, name: str) -> bool:
        """Start jobs of it again; whether it was paused."""
        return self._run(FunctionCall(self._sql[_RESUME[kind]], [name], lambda rows: bool(rows[0][0])))

    def now(self) -> list[dict[str, Any]]:
        """What is paused at this moment."""
        return self._run(FunctionCall(self._sql[_PAUSES], [], _dicts))


def _dicts(rows: list[Any]) -> list[dict[str, Any]]:
    return [dict(zip(_NAMES, row, strict=True)) for row in rows]
