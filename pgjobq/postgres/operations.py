"""What operators do with a PostgresStorage: read, count, repair and pause."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from pgjobq.checks import check_whole_number
from pgjobq.models import Job, JobStatus
from pgjobq.postgres import callers
from pgjobq.postgres.database import Database
from pgjobq.postgres.errors import translated
from pgjobq.postgres.history import PostgresHistory
from pgjobq.postgres.pausing import Pauses
from pgjobq.postgres.repairing import Repaired, repair
from pgjobq.postgres.reporting import PostgresReports
from pgjobq.postgres.transfer import exported


class PostgresOperations(PostgresHistory, PostgresReports):
    """The part of PostgresStorage for operators."""

    _database: Database
    _pauses: Pauses
    schema: str

    def get_job_in(self, connection: Any, job_id: str) -> Job | None:
        """Return the job with this id as the transaction of the caller's connection sees it, or None."""
        with translated():
            return callers.get_job(connection, self.schema, job_id)

    async def get_job_in_async(self, connection: Any, job_id: str) -> Job | None:
        """Do what get_job_in does, on an async connection."""
        with translated():
            return await callers.get_job_async(connection, self.schema, job_id)

    def list_jobs_in(
        self, connection: Any, status: JobStatus | None, limit: int | None, queue: str | None
    ) -> list[Job]:
        """Return the jobs that the transaction of the caller's connection sees, newest first."""
        with translated():
            return callers.list_jobs(connection, self.schema, status, limit, queue)

    async def list_jobs_in_async(
        self, connection: Any, status: JobStatus | None, limit: int | None, queue: str | None
    ) -> list[Job]:
        """Do what list_jobs_in does, on an async connection."""
        with translated():
            return await callers.list_jobs_async(connection, self.schema, status, limit, queue)

    def export_jobs(self, batch: int = 1000) -> Iterator[list[Job]]:
        """Yield every job in pages, oldest first."""
        return exported(self._database, batch)

    def repair(self, batch: int = 50_000) -> Repaired:
        """Put jobs in line that were added without triggers, in transactions of one batch each."""
        check_whole_number("batch", batch, 1, 2**31 - 1)
        return repair(self._database, batch)

    def counts(self) -> dict[JobStatus, int]:
        """Return the exact number of jobs of each status. Every status has an entry. This scans the table."""
        found = dict.fromkeys(JobStatus, 0)
        return found | {
            JobStatus(status): jobs for status, jobs in self._database.run(self._database.calls.count_jobs())
        }

    def stats(self) -> list[dict[str, Any]]:
        """Read the view job_stats: queue, status, jobs, estimated, oldest_due_age (seconds). This is cheap."""
        return self._database.run(self._database.calls.job_stats())

    def workers(self) -> list[dict[str, Any]]:
        """Read the view worker_status: id, name, queues, started_at, alive, asleep, running."""
        return self._database.run(self._database.calls.worker_status())

    def pause(self, kind: str, name: str, until: datetime | None = None, reason: str | None = None) -> None:
        """Start no more jobs of a queue or a type (kind), until resume or until a time."""
        self._pauses.pause(kind, name, until, reason)

    def resume(self, kind: str, name: str) -> bool:
        """Start jobs of a queue or a type (kind) again; False when it was not paused."""
        return self._pauses.resume(kind, name)

    def pauses(self) -> list[dict[str, Any]]:
        """What is paused: kind, name, paused_at, paused_until, paused_by, reason."""
        return self._pauses.now()

    def why(self, job_id: str) -> str:
        """Return a sentence that says why a job is not running, or what became of it. See JobQueue.why."""
        return self._database.run(self._database.calls.why_job(job_id))

    def unserved_types(self) -> list[dict[str, Any]]:
        """Return the types of due jobs that no live worker takes: queue, type, jobs.

        This checks at most 10,000 places of each queue.
        """
        return self._database.run(self._database.calls.unserved_types())
