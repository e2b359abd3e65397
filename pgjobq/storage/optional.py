"""What a storage may lack. Each method raises Unsupported here, or returns what holds without the feature."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from pgjobq.errors import Unsupported
from pgjobq.models import Job, JobStatus, NewJob, Which
from pgjobq.outcomes import JobTransaction, Pruned


class OptionalFeatures:
    """The features that a storage adds by overriding these methods. BaseStorage inherits the defaults."""

    def _refuse_told(self, jobs: Sequence[NewJob]) -> None:
        """Raise Unsupported for a unique key or an expiry, in a storage that has neither."""
        for job in jobs:
            if job.unique_key is not None:
                raise Unsupported(f"unique_key: {type(self).__name__} has no unique keys; leave it out")
            if job.expires_at is not None:
                raise Unsupported(f"expires_at: {type(self).__name__} has no expiry; leave it out")

    def check_threads(self) -> None:
        """Raise ConfigurationError if the threads of a Worker must not use this storage."""

    def get_job_in(self, connection: Any, job_id: str) -> Job | None:
        """Return the job with this id as the transaction of the caller's connection sees it, or None."""
        raise Unsupported(f"{type(self).__name__} cannot read on the caller's connection; leave out connection")

    async def get_job_in_async(self, connection: Any, job_id: str) -> Job | None:
        """Do what get_job_in does, on an async connection."""
        raise Unsupported(f"{type(self).__name__} cannot read on the caller's connection; leave out connection")

    def list_jobs_in(
        self, connection: Any, status: JobStatus | None, limit: int | None, queue: str | None
    ) -> list[Job]:
        """Return the jobs that the transaction of the caller's connection sees, newest first."""
        raise Unsupported(f"{type(self).__name__} cannot read on the caller's connection; leave out connection")

    async def list_jobs_in_async(
        self, connection: Any, status: JobStatus | None, limit: int | None, queue: str | None
    ) -> list[Job]:
        """Do what list_jobs_in does, on an async connection."""
        raise Unsupported(f"{type(self).__name__} cannot read on the caller's connection; leave out connection")

    def cancel(self, job_id: str, reason: str | None = None) -> bool:
        """Cancel a pending or running job. Return False if it was finished already. Raises JobNotFound.

        reason: kept as the job's error; None leaves the error unchanged.
        """
        raise Unsupported(f"{type(self).__name__} cannot cancel jobs")

    def cancel_jobs(self, which: Which, max_jobs: int | None = None, reason: str | None = None) -> int:
        """Cancel the pending and running jobs that match, at most max_jobs, the oldest first; returns how many.

        Not all or none: each job, or batch of jobs, is cancelled by itself.
        """
        raise Unsupported(f"{type(self).__name__} cannot cancel jobs")

    def pause(self, kind: str, name: str, until: datetime | None = None, reason: str | None = None) -> None:
        """Start no more jobs of a queue or a type (kind), until resume or until a time. See JobQueue.pause_queue."""
        raise Unsupported(f"{type(self).__name__} cannot pause queues and types")

    def resume(self, kind: str, name: str) -> bool:
        """Start jobs of a queue or a type (kind) again; False when it was not paused."""
        raise Unsupported(f"{type(self).__name__} cannot pause queues and types")

    def pauses(self) -> list[dict[str, Any]]:
        """What is paused, a dict each: kind, name, paused_at, paused_until, paused_by, reason. Here nothing is."""
        return []

    def prune(
        self,
        older_than: timedelta,
        statuses: Sequence[str] = ("completed", "cancelled"),
        *,
        queues: Sequence[str] | None = None,
    ) -> int:
        """Delete jobs that finished longer ago than older_than, of these queues or of all. Return how many."""
        raise Unsupported(f"{type(self).__name__} cannot prune jobs")

    def prune_some(
        self,
        older_than: timedelta,
        queues: Sequence[str] | None = None,
        statuses: Sequence[str] = ("completed", "cancelled"),
    ) -> Pruned:
        """Delete some of the jobs of these final statuses that are older, for a worker's background pruning.

        The default deletes all of them. queues: the queues that the worker serves; only their jobs are deleted.
        """
        served = {} if queues is None else {"queues": queues}
        return Pruned(jobs=self.prune(older_than, statuses, **served))

    def import_jobs(self, jobs: Sequence[Job]) -> int:
        """Add jobs with their state, all or none. Return how many were added. Leave jobs whose id exists unchanged.

        A running job becomes pending and keeps its attempts, or becomes failed if its tries are used up, because no
        worker of this storage runs it. Raises InvalidJob for a job that this storage cannot store.
        """
        raise Unsupported(f"{type(self).__name__} cannot import jobs with their state")

    def workers(self) -> list[dict[str, Any]]:
        """Return a dict for each registered worker: id, name, queues, started_at, alive, asleep, running.

        The default returns an empty list.
        """
        return []

    def unserved_types(self) -> list[dict[str, Any]]:
        """Return a dict for each type of due jobs that no live worker takes: queue, type, jobs.

        The default returns an empty list, because it does not know the workers.
        """
        return []

    def why(self, job_id: str) -> str:
        """Return a sentence that says why a job is not running, or what became of it. See JobQueue.why."""
        raise Unsupported(f"{type(self).__name__} cannot say why a job waits; read its fields with get_job")

    def transaction(self, job: Job) -> JobTransaction:
        """Return a transaction that completes the job when it commits; see Job.transaction in the worker."""
        raise Unsupported(f"{type(self).__name__} cannot complete jobs in a transaction; do not use transaction()")
