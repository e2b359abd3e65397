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
from pgjobq.reports import Report

# Nothing is lost if the server crashes before this commit is on disk, because the table is empty then. By the id, so
# that two workers lock the rows in the same order.
_SAVE = """select {schema}.set_progress(report.id, report.claim_id, report.fraction, report.message, report.meta::jsonb)
    from (select set_config('synchronous_commit', 'off', true)) as asynchronous (setting)
   cross join lateral (
     select * from unnest(%s::text[], %s::bigint[], %s::float8[], %s::text[], %s::text[])
              as given (id, claim_id, fraction, message, meta)
      order by given.id collate "C"
     offset 0) as report"""
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
