"""The part of JobQueue with which operators look back, retry many jobs and edit one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from pgjobq.checks import check_reason, check_whole_number
from pgjobq.handlers import Registry
from pgjobq.redrive import Redrive, check_changes
from pgjobq.storage.base import BaseStorage


class Operating:
    """What jobs leave behind, retry_jobs and edit_job. A storage that lacks one of them raises Unsupported."""

    storage: BaseStorage
    _registry: Registry

    def attempts(self, job_id: str) -> list[dict[str, Any]]:
        """Return the tries of a job that did not succeed, oldest first.

        A dict each: attempt, worker, worker_id, started_at, ended_at, outcome (raised, timed out, worker died,
        cancelled or released), error_class and error. A job that succeeds at once has none.
        """
        return self.storage.attempts(job_id)

    def progress(self, job_id: str) -> dict[str, Any] | None:
        """Return what the last start of a job has reported with `job.progress`, or None if that is nothing.

        A dict: fraction, message, meta and updated_at. A pending job has none, and none is left after the database
        server has crashed.
        """
        return self.storage.progress([job_id]).get(job_id)

    def logs(self, job_id: str) -> list[dict[str, Any]]:
        """Return what the tries of a job have logged, if its handler has capture_logs, in the order of the lines.

        A dict each: attempt, logged_at, level, logger and line, and claim_id and seq, which name the line.
        """
        return self.storage.logs(job_id)

    def failures(self, limit: int = 100) -> list[dict[str, Any]]:
        """Return the failed jobs, grouped by type and by error without numbers, ids and quoted strings.

        A dict each, the latest failure first: fingerprint, type, error_class, message (the first line of a sample's
        error), jobs, first_failed_at, last_failed_at and sample_id. It reads every failed job.
        """
        check_whole_number("limit", limit, 0, 2**31 - 1)
        return self.storage.failures(limit)

    def actions(self, limit: int = 100) -> list[dict[str, Any]]:
        """Return what operators did, newest first: retry, run now, cancel, pause, resume and edit.

        A dict each: at, role (of the database session), actor (the setting pgjobq.actor), action, target, jobs (how
        many it changed) and reason. Workers delete actions after 90 days.
        """
        check_whole_number("limit", limit, 0, 2**31 - 1)
        return self.storage.actions(limit)

    def retry_jobs(
        self,
        *,
        queue: str | None = None,
        type: str | Callable[..., Any] | None = None,
        fingerprint: str | None = None,
        failed_since: datetime | None = None,
        failed_until: datetime | None = None,
        max_jobs: int | None = None,
        spread: float = 0.0,
        starting_at: datetime | None = None,
        data_patch: dict[str, Any] | None = None,
        dry_run: bool = False,
        reason: str | None = None,
    ) -> int:
        """Retry the failed jobs that match all that is given, the oldest first; return how many.

        At least one of queue, type, fingerprint, failed_since and failed_until is needed. type: a name, or a handler.
        Each job gets one try, even if all are used up. spread: seconds over which they are due evenly, beginning at
        starting_at (None: now). data_patch: keys that replace those of each job's data. dry_run: only count them.
        Jobs are retried in batches, each by itself. After an error, call it again: what was retried matches no longer.
        Skips jobs that another transaction holds, or whose unique key is taken. Raises InvalidJob, and Unsupported.
        """
        name = type if type is None or isinstance(type, str) else self._registry.for_function(type).type
        redrive = Redrive(
            queue=queue,
            type=name,
            fingerprint=fingerprint,
            failed_since=failed_since,
            failed_until=failed_until,
            max_jobs=max_jobs,
            spread=spread,
            starting_at=starting_at,
            data_patch=data_patch,
            dry_run=dry_run,
            reason=reason,
        )
        return self.storage.retry_jobs(redrive)

    def edit_job(
        self,
        job_id: str,
        *,
        data: dict[str, Any] | None = None,
        queue: str | None = None,
        priority: int | None = None,
        execute_at: datetime | None = None,
        max_retries: int | None = None,
        reason: str | None = None,
    ) -> None:
        """Change a pending job. What is None stays as it is. data: the new data, all of it.

        Raises JobNotFound, LostJob if the job runs or has finished, InvalidJob for an invalid value, and Unsupported.
        To let a scheduled job run at once, use retry.
        """
        fields = {"data": data, "queue": queue, "priority": priority, "execute_at": execute_at}
        changes = check_changes({**fields, "max_retries": max_retries})
        check_reason(reason)
        self.storage.edit_job(job_id, changes, reason)
