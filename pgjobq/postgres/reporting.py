"""What running jobs report of themselves, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pgjobq.models import Job
from pgjobq.postgres import answers
from pgjobq.postgres.database import Database
from pgjobq.postgres.fetching import fetch
from pgjobq.postgres.settling import database_encoding, storable
from pgjobq.postgres.statements import FunctionCall, InSchema
from pgjobq.reports import Line, Report

# Nothing is lost if the server crashes before this commit is on disk, because the table is empty then. By the id, so
# that two workers lock the rows in the same order.
_SAVE = """select {schema}.set_progress(report.id, report.claim_id, report.fraction, report.message, report.meta::jsonb)
    from (select set_config('synchronous_commit', 'off', true)) as asynchronous (setting)
   cross join lateral (
     select * from unnest(%s::text[], %s::bigint[], %s::float8[], %s::text[], %s::text[])
              as given (id, claim_id, fraction, message, meta)
      order by given.id collate "C"
     offset 0) as report"""
# The worker writes the lines again if it does not get the answer, and a crash of the server loses those of a moment.
_ADD = """select {schema}.add_log_lines(%s::text[], %s::bigint[], %s::integer[], %s::integer[], %s::timestamptz[],
                                        %s::text[], %s::text[], %s::text[])
    from (select set_config('synchronous_commit', 'off', true)) as asynchronous (setting)"""
_LOGS = ("attempt", "claim_id", "seq", "logged_at", "level", "logger", "line")
_TAIL = """select attempt, claim_id, seq, logged_at, level, logger, line
    from {schema}.job_logs
   where job_id = %s and (claim_id, seq) > (%s::bigint, %s::integer)
   order by claim_id, seq"""
_PROGRESS = ("fraction", "message", "meta", "updated_at")
_READ = "select job_id, fraction, message, meta, updated_at from {schema}.job_progress where job_id = any (%s::text[])"


class PostgresReports:
    """The part of PostgresStorage for what jobs report."""

    schema: str
    _database: Database

    def save_progress(self, reports: Sequence[tuple[Job, Report]]) -> None:
        """Write these reports. Those of starts that are over are dropped."""
        with self._database.connection() as conn:
            encoding = database_encoding(conn)
            rows = [
                (job.id, job.claim_id, report.fraction, storable(report.message, encoding), report.meta)
                for job, report in reports
            ]
            columns = [list(column) for column in zip(*rows, strict=True)]
            fetch(conn, FunctionCall(InSchema(self.schema)[_SAVE], columns, answers.rows))

    def progress(self, job_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Read the view job_progress for these jobs."""
        call = FunctionCall(InSchema(self.schema)[_READ], [list(job_ids)], answers.rows)
        return {job_id: dict(zip(_PROGRESS, row, strict=True)) for job_id, *row in self._database.run(call)}

    def save_lines(self, lines: Sequence[tuple[Job, Line]]) -> None:
        """Write these lines. Those of starts that are over are dropped."""
        with self._database.connection() as conn:
            encoding = database_encoding(conn)
            rows = [
                (job.id, job.claim_id, job.attempts, line.seq, line.logged_at, *_texts(line, encoding))
                for job, line in lines
            ]
            columns = [list(column) for column in zip(*rows, strict=True)]
            fetch(conn, FunctionCall(InSchema(self.schema)[_ADD], columns, answers.rows))

    def logs(self, job_id: str, after: tuple[int, int] | None = None) -> list[dict[str, Any]]:
        """Read the view job_logs for this job."""
        arguments = [job_id, *(after or (0, 0))]
        call = FunctionCall(InSchema(self.schema)[_TAIL], arguments, answers.dicts(*_LOGS), large=True)
        return self._database.run(call)


def _texts(line: Line, encoding: str) -> list[str | None]:
    return [storable(text, encoding) for text in (line.level, line.logger, line.text)]
