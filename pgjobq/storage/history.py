"""What a storage may keep of the past, and change in bulk. Each method raises Unsupported here."""

from __future__ import annotations

from typing import Any

from pgjobq.errors import Unsupported
from pgjobq.redrive import Redrive


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
