"""The part of JobQueue that waits for jobs and their results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Unpack

from pgjobq.errors import JobFailed, Unsupported
from pgjobq.ids import JobId
from pgjobq.models import Job, JobStatus
from pgjobq.options import JobOptions, JobType
from pgjobq.storage.base import BaseStorage


class WaitsForJobs(ABC):
    """Waits on any storage. On PostgreSQL, all waits of a storage share one connection, which is notified."""

    storage: BaseStorage

    @abstractmethod
    def enqueue(
        self, job: JobType, data: dict[str, Any] | None = None, *, connection: Any = None, **options: Unpack[JobOptions]
    ) -> JobId:
        """Add a job."""

    @abstractmethod
    async def enqueue_async(
        self, job: JobType, data: dict[str, Any] | None = None, *, connection: Any = None, **options: Unpack[JobOptions]
    ) -> JobId:
        """Add a job."""

    def wait_for(self, job_id: str, timeout: float) -> Job:
        """Wait until a job is completed, failed or cancelled, and return it; at most timeout seconds.

        Raises JobNotFound if there is no such job, or it is deleted meanwhile, and WaitTimeout if the time is over; the
        job is not cancelled then. A handler that waits for a job which its own worker has to run needs a second slot
        there, or both wait for each other.
        """
        return self.storage.wait_for_many([job_id], timeout)[0]

    def wait_for_many(self, job_ids: Sequence[str], timeout: float) -> list[Job]:
        """Wait until all of these jobs have ended, and return them in this order; at most timeout seconds for all.

        Raises as wait_for does. WaitTimeout has the jobs that have ended, and the ids of the others.
        """
        return self.storage.wait_for_many(job_ids, timeout)

    async def wait_for_async(self, job_id: str, timeout: float) -> Job:  # noqa: ASYNC109  # as in wait_for
        """Do what wait_for does, without blocking the event loop or a thread."""
        return (await self.storage.wait_for_many_async([job_id], timeout))[0]

    async def wait_for_many_async(self, job_ids: Sequence[str], timeout: float) -> list[Job]:  # noqa: ASYNC109
        """Do what wait_for_many does, without blocking the event loop or a thread."""
        return await self.storage.wait_for_many_async(job_ids, timeout)

    def call_and_wait(
        self, job: JobType, data: dict[str, Any] | None = None, *, timeout: float, **options: Unpack[JobOptions]
    ) -> Any:
        """Enqueue a job, wait until it has completed, and return its result.

        options: as for enqueue. Raises JobFailed, with the job, if it failed or was cancelled, and WaitTimeout and
        JobNotFound as wait_for does. Raises Unsupported if the storage keeps no results.
        """
        self._need_results()
        return _result(self.wait_for(self.enqueue(job, data, **options), timeout))

    async def call_and_wait_async(
        self,
        job: JobType,
        data: dict[str, Any] | None = None,
        *,
        timeout: float,  # noqa: ASYNC109  # as in call_and_wait
        **options: Unpack[JobOptions],
    ) -> Any:
        """Do what call_and_wait does, without blocking the event loop or a thread."""
        self._need_results()
        return _result(await self.wait_for_async(await self.enqueue_async(job, data, **options), timeout))

    def _need_results(self) -> None:
        if not self.storage.keeps_results:
            raise Unsupported(f"{type(self.storage).__name__} keeps no results; use enqueue and wait_for")


def _result(job: Job) -> Any:
    if job.status is JobStatus.COMPLETED:
        return job.result
    verb = "failed" if job.status is JobStatus.FAILED else "was cancelled"
    raise JobFailed(f"job {job.id!r} ({job.type}) {verb}" + (f": {job.error}" if job.error else ""), job=job)
