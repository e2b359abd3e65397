"""JobQueue, the class with which applications enqueue and manage jobs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from pgjobq.connect import open_storage
from pgjobq.errors import ConfigurationError, Unsupported
from pgjobq.handlers import Registry, default_registry
from pgjobq.models import Job, JobStatus, NewJob
from pgjobq.storage.base import BaseStorage

JobType = str | Callable[..., Any]


class JobQueue:
    """Enqueues and manages jobs on any storage. Thread-safe; create one and share it.

    Takes a storage, or a URL and the options of its storage. It connects at the first call.
    """

    def __init__(
        self, storage: str | BaseStorage = "", *, registry: Registry = default_registry, **options: Any
    ) -> None:
        if isinstance(storage, BaseStorage):
            if options:
                raise ConfigurationError(f"{', '.join(options)}: not allowed here; pass options to the storage")
            self.storage = storage
        elif isinstance(storage, str):
            self.storage = open_storage(storage, **options)
        else:
            raise ConfigurationError(f"storage: {type(storage).__name__} is neither a URL nor a storage; use either")
        self._registry = registry

    def enqueue(
        self,
        job: JobType,
        data: dict[str, Any] | None = None,
        *,
        priority: int | None = None,
        delay: float | None = None,
        execute_at: datetime | None = None,
        max_retries: int | None = None,
        queue: str | None = None,
        job_id: str | None = None,
        connection: Any = None,
    ) -> str:
        """Add a job and return its id.

        job: a handler, whose settings are the defaults, or the name of a type. delay: seconds from the database's
        current time. execute_at: an aware datetime. connection: a psycopg or SQLAlchemy connection or session; the job
        is added in its transaction, and exists only if that commits.
        Raises InvalidJob, DuplicateJob or StorageUnavailable. Nothing was added then, unless the connection was lost
        while the call waited for the answer. To be sure, enqueue again with the same job_id.
        """
        new = self.new_job(
            job,
            data,
            priority=priority,
            delay=delay,
            execute_at=execute_at,
            max_retries=max_retries,
            queue=queue,
            job_id=job_id,
        )
        return self.storage.enqueue_many([new], connection)[0]

    async def enqueue_async(
        self,
        job: JobType,
        data: dict[str, Any] | None = None,
        *,
        priority: int | None = None,
        delay: float | None = None,
        execute_at: datetime | None = None,
        max_retries: int | None = None,
        queue: str | None = None,
        job_id: str | None = None,
        connection: Any = None,
    ) -> str:
        """Add a job as enqueue does, without blocking the event loop. connection: an async connection or session."""
        new = self.new_job(
            job,
            data,
            priority=priority,
            delay=delay,
            execute_at=execute_at,
            max_retries=max_retries,
            queue=queue,
            job_id=job_id,
        )
        return (await self.storage.enqueue_many_async([new], connection))[0]

    def enqueue_many(self, jobs: Sequence[NewJob], *, connection: Any = None) -> list[str]:
        """Add all of the jobs, or none, in one round trip, and return their ids in order. new_job creates such jobs."""
        return self.storage.enqueue_many(jobs, connection)

    def new_job(
        self,
        job: JobType,
        data: dict[str, Any] | None = None,
        *,
        priority: int | None = None,
        delay: float | None = None,
        execute_at: datetime | None = None,
        max_retries: int | None = None,
        queue: str | None = None,
        job_id: str | None = None,
    ) -> NewJob:
        """Create a NewJob for enqueue_many. A handler provides the defaults. Raises InvalidJob."""
        values: dict[str, Any] = {"type": job}
        if not isinstance(job, str):
            handler = self._registry.for_function(job)
            values = {key: getattr(handler, key) for key in ("type", "priority", "max_retries", "queue")}
        given = {"priority": priority, "max_retries": max_retries, "queue": queue, "id": job_id, "data": data}
        values |= {key: value for key, value in given.items() if value is not None}
        return NewJob(delay=delay, execute_at=execute_at, **values)

    def get_job(self, job_id: str) -> Job | None:
        """Return the job with this id, or None."""
        return self.storage.get_job(job_id)

    def list_jobs(self, status: str | None = None, limit: int | None = None, queue: str | None = None) -> list[Job]:
        """Return at most limit jobs, newest first. status, queue: only jobs of this status and queue.

        Raises Unsupported if queue is given and the storage has no queues.
        """
        status = None if status is None else JobStatus(status)
        if queue is None:
            return self.storage.list_jobs(status, limit)
        list_jobs: Any = self.storage.list_jobs
        if "queue" not in inspect.signature(list_jobs).parameters:
            raise Unsupported(f"queue: {type(self.storage).__name__} has no queues; leave the queue out")
        jobs: list[Job] = list_jobs(status, limit, queue)
        return jobs

    def get_pending_jobs(self, limit: int | None = None) -> list[Job]:
        """Return the pending jobs, due or not, newest first."""
        return self.list_jobs(JobStatus.PENDING, limit)

    def get_running_jobs(self, limit: int | None = None) -> list[Job]:
        """Return the jobs that workers hold, newest first."""
        return self.list_jobs(JobStatus.RUNNING, limit)

    def get_completed_jobs(self, limit: int | None = None) -> list[Job]:
        """Return the completed jobs, newest first."""
        return self.list_jobs(JobStatus.COMPLETED, limit)

    def get_failed_jobs(self, limit: int | None = None) -> list[Job]:
        """Return the jobs that failed for good, newest first."""
        return self.list_jobs(JobStatus.FAILED, limit)

    def retry(self, job_id: str, delay: float = 0) -> None:
        """Run a failed, cancelled or pending job again after delay seconds.

        Raises JobNotFound, or LostJob if the job is running or completed.
        """
        self.storage.retry(job_id, delay)

    def cancel(self, job_id: str) -> bool:
        """Cancel a pending or running job. Returns False if the job was already finished. Raises JobNotFound."""
        return self.storage.cancel(job_id)

    def counts(self) -> dict[JobStatus, int]:
        """Return the exact number of jobs of each status."""
        return self.storage.counts()

    def close(self) -> None:
        """Close every connection."""
        self.storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
