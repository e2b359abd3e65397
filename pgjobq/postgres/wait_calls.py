"""Typed methods for the SQL functions with which a session waits for jobs; see Calls."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from pgjobq.models import Job
from pgjobq.postgres import answers
from pgjobq.postgres.rows import stored_job
from pgjobq.postgres.statements import FunctionCall, InSchema, Rows


class WaitCalls:
    """The functions of one schema."""

    def __init__(self, schema: str) -> None:
        self._sql, self._table = InSchema(schema), sql.Identifier(schema, "jobs").as_string(None)

    def wait_for_jobs(self, ids: Sequence[str], done: Sequence[str]) -> FunctionCall[str]:
        """Be notified when these jobs end, and no longer of those in done. Return the channel to listen on."""
        statement = self._sql["select {schema}.wait_for_jobs(%b::text[], %b::text[])"]
        return FunctionCall(statement, [list(ids), list(done)], answers.value)

    def stop_waiting(self) -> FunctionCall[Rows]:
        """End all waits of the session."""
        return FunctionCall(self._sql["select {schema}.stop_waiting()"], [], answers.rows)

    def ended_jobs(self, ids: Sequence[str]) -> FunctionCall[dict[str, Job | None]]:
        """Return the jobs that have ended, and None for an id that does not exist."""
        text = """select asked, {columns}
            from (select ended.id as asked, (ended.job).* from {schema}.ended_jobs(%b::text[]) as ended) as ended"""
        return FunctionCall(self._sql[text], [list(ids)], _ended, binary=True)

    def may_end_jobs(self, among: Sequence[str] | None = None) -> FunctionCall[list[str]]:
        """Return the open transactions that may end jobs without a notification; or which of these are still open."""
        if among is None:
            text = "select unnest({schema}.open_transactions(%s::regclass))::text"
            return FunctionCall(self._sql[text], [self._table], answers.values)
        text = "select unnest({schema}.open_transactions(null, %s::xid8[]))::text"
        return FunctionCall(self._sql[text], [list(among)], answers.values)


def _ended(rows: Rows) -> dict[str, Job | None]:
    return {row[0]: None if row[1] is None else stored_job(row[1:]) for row in rows}
