"""What a storage may keep of the past, and change in bulk. Each method raises Unsupported here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pgjobq.errors import Unsupported
from pgjobq.models import Job
from pgjobq.redrive import Redrive
from pgjobq.reports import Line, Report


class OptionalHistory:
    """The features that a storage adds by overriding these methods. BaseStorage inherits the defaults."""

    def attempts(self, job_id: str) -> list[dict[str, Any]]:
        """Return the tries of a job that did not succeed, oldest first. See JobQueue.attempts."""
        raise Unsupported(f"attempts: {type(self).__name__} keeps no tries; the error of the job is that of the last")

    def failures(self, limit: int) -> list[dict[str, Any]]:
        """Return the failed jobs, grouped by their fingerprint. See JobQueue.failures."""
        raise Unsupported(f"failures: {type(self).__name__} groups no failures; list the failed jobs")

    def actions(self, limit: int) -> list[dict[str, Any]]:
        """Return what operators did, newest first. See JobQueue.actions."""
        raise Unsupported(f"actions: {type(self).__name__} does not record what operators do")

    def retry_jobs(self, redrive: Redrive) -> int:
        """Retry the failed jobs that match, the oldest first; return how many. See JobQueue.retry_jobs."""
        raise Unsupported(f"{type(self).__name__} cannot retry many jobs; retry them one by one")

    def edit_job(self, job_id: str, changes: dict[str, Any], reason: str | None = None) -> None:
        """Change fields of a pending job. data is JSON. See JobQueue.edit_job."""
        raise Unsupported(f"{type(self).__name__} cannot edit jobs; cancel the job and enqueue another")

    def save_progress(self, reports: Sequence[tuple[Job, Report]]) -> None:
        """Keep the last report of each of these starts that is not over. The default drops them, and does not raise."""

    def progress(self, job_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return what the last start of each of these jobs has reported, by id. See JobQueue.progress."""
        raise Unsupported(f"progress: {type(self).__name__} does not keep what jobs report")

    def save_lines(self, lines: Sequence[tuple[Job, Line]]) -> None:
        """Keep what the handlers of these starts have logged. Can be repeated. The default drops it."""
        del lines

    def logs(self, job_id: str, after: tuple[int, int] | None = None) -> list[dict[str, Any]]:
        """Return what the tries of a job have logged, after this claim_id and seq. See JobQueue.logs."""
        raise Unsupported(f"logs: {type(self).__name__} does not keep what handlers log")
