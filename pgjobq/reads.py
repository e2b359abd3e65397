"""The part of JobQueue that reads jobs, in pgjobq's own connections or in the caller's transaction."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from pgjobq.checks import check_name, check_whole_number
from pgjobq.errors import Unsupported
from pgjobq.models import MAX_NAME, Job, JobStatus
from pgjobq.storage.base import BaseStorage


class QueueReads:
    """The methods of a JobQueue that read. JobQueue inherits them."""

    storage: BaseStorage

    def get_job(self, job_id: str, *, connection: Any = None) -> Job | None:
        """Return the job with this id, or None.

        connection: one that enqueue takes. Its transaction sees the jobs that it has enqueued before they are
        committed, which suits a test whose transaction is rolled back.
        """
        if connection is None:
            return self.storage.get_job(job_id)
        check_name("job_id", job_id, "the id of a job", MAX_NAME)
        return self.storage.get_job_in(connection, job_id)

    async def get_job_async(self, job_id: str, *, connection: Any = None) -> Job | None:
        """Do what get_job does, without blocking the event loop. connection: one that enqueue_async takes."""
        if connection is None:
            found: Job | None = await in_thread(self.get_job, job_id)
            return found
        check_name("job_id", job_id, "the id of a job", MAX_NAME)
        return await self.storage.get_job_in_async(connection, job_id)

    def list_jobs(
        self,
        status: str | None = None,
        limit: int | None = None,
        queue: str | None = None,
        *,
        connection: Any = None,
    ) -> list[Job]:
        """Return at most limit jobs, newest first. status, queue: only jobs of this status and queue.

        connection: see get_job. Raises Unsupported if queue is given and the storage has no queues.
        """
        wanted = None if status is None else JobStatus(status)
        if connection is not None:
            _check(limit, queue)
            return [] if limit == 0 else self.storage.list_jobs_in(connection, wanted, limit, queue)
        if queue is None:
            return self.storage.list_jobs(wanted, limit)
        list_jobs: Any = self.storage.list_jobs
        if "queue" not in inspect.signature(list_jobs).parameters:
            raise Unsupported(f"queue: {type(self.storage).__name__} has no queues; leave the queue out")
        jobs: list[Job] = list_jobs(wanted, limit, queue)
        return jobs

    async def list_jobs_async(
        self,
        status: str | None = None,
        limit: int | None = None,
        queue: str | None = None,
        *,
        connection: Any = None,
    ) -> list[Job]:
        """Do what list_jobs does, without blocking the event loop. connection: one that enqueue_async takes."""
        if connection is None:
            jobs: list[Job] = await in_thread(self.list_jobs, status, limit, queue)
            return jobs
        wanted = None if status is None else JobStatus(status)
        _check(limit, queue)
        return [] if limit == 0 else await self.storage.list_jobs_in_async(connection, wanted, limit, queue)

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

    def why(self, job_id: str) -> str:
        """Return a sentence that says why a job is not running, such as "The job is due at ...", for people to read.

        Of several reasons it names the first. For a running job it names the worker, for a finished job the outcome,
        and for an id without a job it says that there is none. Raises Unsupported on storages other than PostgreSQL.
        """
        return self.storage.why(job_id)

    def counts(self) -> dict[JobStatus, int]:
        """Return the exact number of jobs of each status."""
        return self.storage.counts()


def _check(limit: int | None, queue: str | None) -> None:
    if limit is not None:
        check_whole_number("limit", limit, 0, 2**31 - 1)
    if queue is not None:
        check_name("queue", queue, "the name of a queue", MAX_NAME)


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a blocking function in a thread of its own."""
    import asyncio  # imported here, because a program without async code does not need it

    return await asyncio.to_thread(function, *arguments)
