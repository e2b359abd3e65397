"""What PostgreSQL keeps of the past, and the changes of many failed jobs or of one pending job."""

from __future__ import annotations

import json
from typing import Any

from pgjobq.errors import JobNotFound
from pgjobq.postgres import answers
from pgjobq.postgres.database import Database
from pgjobq.postgres.statements import FunctionCall, InSchema
from pgjobq.redrive import Redrive

BATCH = 5000  # jobs
_ATTEMPTS = ("attempt", "worker", "worker_id", "started_at", "ended_at", "outcome", "error_class", "error")
_SPAN = ("first_failed_at", "last_failed_at", "sample_id")
_FAILURES = ("fingerprint", "type", "error_class", "message", "jobs", *_SPAN)
_ACTIONS = ("at", "role", "actor", "action", "target", "jobs", "reason")
_RETRY = """select retried, reached_created_at::text, reached_id
    from {schema}.retry_jobs(%s, %s, %s, %s::timestamptz, %s::timestamptz, %s::integer, make_interval(secs => %s),
                             %s::jsonb, %s, %s, %s::timestamptz, %s::timestamptz, %s)"""
_EDIT = """select {schema}.edit_job(%s, %s::jsonb, %s, %s::integer, %s::timestamptz, %s::integer, %s)"""


class PostgresHistory:
    """The part of PostgresStorage that looks back, retries many jobs and edits one."""

    schema: str
    _database: Database

    def attempts(self, job_id: str) -> list[dict[str, Any]]:
        """Return the tries of a job that did not succeed, oldest first."""
        text = f"select {', '.join(_ATTEMPTS)} from {{schema}}.list_attempts(%s)"  # noqa: S608  # the names of columns
        found: list[dict[str, Any]] = self._ask(text, [job_id], answers.dicts(*_ATTEMPTS))
        return found

    def failures(self, limit: int) -> list[dict[str, Any]]:
        """Read the view failures."""
        text = f"select {', '.join(_FAILURES)} from {{schema}}.failures order by last_failed_at desc limit %s"  # noqa: S608  # the names of columns
        found: list[dict[str, Any]] = self._ask(text, [limit], answers.dicts(*_FAILURES))
        return found

    def actions(self, limit: int) -> list[dict[str, Any]]:
        """Read the view actions."""
        text = f"select {', '.join(_ACTIONS)} from {{schema}}.actions order by id desc limit %s"  # noqa: S608  # the names of columns
        found: list[dict[str, Any]] = self._ask(text, [limit], answers.dicts(*_ACTIONS))
        return found

    def retry_jobs(self, redrive: Redrive) -> int:
        """Retry the failed jobs that match, by calls of retry_jobs that go on where the one before ended."""
        starting_at: Any = redrive.starting_at
        if starting_at is None and redrive.spread:
            starting_at = self._ask("select clock_timestamp()", [], answers.value)  # the same for all batches
        which = [redrive.queue, redrive.type, redrive.fingerprint, redrive.failed_since, redrive.failed_until]
        patch = None if redrive.data_patch is None else json.dumps(redrive.data_patch)
        how = [float(redrive.spread), patch, redrive.dry_run, redrive.reason, starting_at]
        if redrive.dry_run:
            return int(self._ask(_RETRY, [*which, redrive.max_jobs, *how, None, None], answers.row)[0])
        done: int = 0
        position: tuple[str | None, str | None] = (None, None)
        while True:
            batch = BATCH if redrive.max_jobs is None else min(BATCH, redrive.max_jobs - done)
            some, *reached = self._ask(_RETRY, [*which, batch, *how, *position], answers.row)
            done, position = done + some, (reached[0], reached[1])
            if position[1] is None or done == redrive.max_jobs:
                return done

    def edit_job(self, job_id: str, changes: dict[str, Any], reason: str | None = None) -> None:
        """Change fields of a pending job."""
        fields = [changes.get(name) for name in ("data", "queue", "priority", "execute_at", "max_retries")]
        if not self._ask(_EDIT, [job_id, *fields, reason], answers.value):
            raise JobNotFound(f"there is no job {job_id!r}")

    def _ask(self, text: str, arguments: list[Any], read: Any) -> Any:
        return self._database.run(FunctionCall(InSchema(self.schema)[text], arguments, read, large=True))
