"""JobQueue, the class with which applications enqueue and manage jobs."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, Unpack

from pgjobq.checks import check_execute_at
from pgjobq.connect import open_storage
from pgjobq.errors import ConfigurationError, Unsupported
from pgjobq.handlers import Registry, default_registry
from pgjobq.ids import JobId
from pgjobq.models import NewJob, Which
from pgjobq.operating import Operating
from pgjobq.options import JobOptions, JobType
from pgjobq.plain import seconds_of
from pgjobq.reads import QueueReads, in_thread
from pgjobq.scheduling import QueueSchedules
from pgjobq.storage.base import BaseStorage
from pgjobq.unique import OPTIONS
from pgjobq.waits import WaitsForJobs

_OPTIONS = JobOptions.__annotations__.keys()


class JobQueue(QueueReads, WaitsForJobs, Operating, QueueSchedules):
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
        connection: Any = None,
        **options: Unpack[JobOptions],
    ) -> JobId:
        """Add a job and return its id.

        job: a handler, whose settings are the defaults and whose parameters must fit the data, or the name of a type.
        data: what JSON can store; a UUID, Decimal, datetime, date or time becomes a string, and an Enum its value.
        delay: seconds from the database's current time, or a timedelta. execute_at: an aware datetime. connection: a
        psycopg or psycopg2 connection or cursor, a SQLAlchemy connection or session, or Django's connection; the job is
        added in its transaction, and exists only if that commits.
        Raises InvalidJob, DuplicateJob or StorageUnavailable. Nothing was added then, unless the connection was lost
        while the call waited for the answer. To be sure, enqueue again with the same job_id.

        unique_key: if another job has the key, the call ends in that job, and returns its id with an outcome. A handler
        may declare the key and its options by @job(unique=...). unique_while: "unfinished", or "pending", which does
        not count a running job. unique_for: for how many seconds after it was enqueued a job has its key, even if it
        has ended.
        on_conflict: "keep" that job, "replace" its fields, "debounce" it, or "error", which raises KeyTaken. debounce
        delays the job by the delay of this call, to at most debounce_ceiling seconds after it was first enqueued.
        expires_at: an aware datetime; a job that has not started by then is cancelled. Storages without keys or without
        expiry raise Unsupported.
        """
        new = self.new_job(job, data, **options)
        return _with_outcome(self.storage.enqueue_many([new], connection)[0])

    async def enqueue_async(
        self,
        job: JobType,
        data: dict[str, Any] | None = None,
        *,
        connection: Any = None,
        **options: Unpack[JobOptions],
    ) -> JobId:
        """Add a job as enqueue does, without blocking the event loop.

        connection: an async connection of psycopg or asyncpg, or a SQLAlchemy AsyncConnection or AsyncSession.
        """
        new = self.new_job(job, data, **options)
        return _with_outcome((await self.storage.enqueue_many_async([new], connection))[0])

    def enqueue_many(self, jobs: Sequence[NewJob], *, connection: Any = None) -> list[JobId]:
        """Add all of the jobs, or none, in one round trip, and return their ids in order. new_job creates such jobs."""
        return [_with_outcome(job_id) for job_id in self.storage.enqueue_many(jobs, connection)]

    def new_job(self, job: JobType, data: dict[str, Any] | None = None, **options: Unpack[JobOptions]) -> NewJob:
        """Create a NewJob for enqueue_many. A handler provides the defaults. Raises InvalidJob."""
        values: dict[str, Any] = {"type": job}
        if not isinstance(job, str):
            handler = self._registry.for_function(job)
            handler.check_data(data)
            values = {key: getattr(handler, key) for key in ("type", "priority", "max_retries", "queue")}
            values |= {name: getattr(handler, name) for name in OPTIONS}
            if options.get("unique_key") is None:
                values["unique_key"] = handler.unique_key(data)
        if unknown := options.keys() - _OPTIONS:
            raise TypeError(f"{min(unknown)!r} is not an option of a job; the options are {', '.join(_OPTIONS)}")
        given: dict[str, Any] = {"data": data, **options}
        if "job_id" in given:
            given["id"] = given.pop("job_id")
        return NewJob(**(values | {name: value for name, value in given.items() if value is not None}))

    def retry(self, job_id: str, delay: float | timedelta = 0) -> None:
        """Run a failed, cancelled or pending job again after a delay, in seconds or a timedelta.

        Raises JobNotFound, or LostJob if the job is running or completed.
        """
        self.storage.retry(job_id, seconds_of(delay))

    async def retry_async(self, job_id: str, delay: float | timedelta = 0) -> None:
        """Do what retry does, without blocking the event loop."""
        await in_thread(self.retry, job_id, delay)

    def cancel(self, job_id: str, reason: str | None = None) -> bool:
        """Cancel a pending or running job. Returns False if the job was already finished. Raises JobNotFound.

        The worker of a running job stops its handler if it can. reason: kept as the job's error. Raises Unsupported for
        a reason if the storage keeps none.
        """
        if reason is None:
            return self.storage.cancel(job_id)
        if "reason" not in inspect.signature(self.storage.cancel).parameters:
            raise Unsupported(f"reason: {type(self.storage).__name__} keeps no reason; leave it out")
        return self.storage.cancel(job_id, reason)

    async def cancel_async(self, job_id: str, reason: str | None = None) -> bool:
        """Do what cancel does, without blocking the event loop."""
        cancelled: bool = await in_thread(self.cancel, job_id, reason)
        return cancelled

    def cancel_jobs(
        self,
        *,
        queue: str | None = None,
        type: JobType | None = None,
        unique_key: str | None = None,
        created_before: datetime | None = None,
        max_jobs: int | None = None,
        reason: str | None = None,
    ) -> int:
        """Cancel the pending and running jobs that match all that is given, the oldest first; returns how many.

        At least one of queue, type, unique_key and created_before is needed. type: a name, or a handler. max_jobs: the
        largest number of jobs. Jobs are cancelled in batches, each by itself. Raises InvalidJob, and Unsupported if the
        storage cannot.
        """
        name = type if type is None or isinstance(type, str) else self._registry.for_function(type).type
        which = Which(queue=queue, type=name, unique_key=unique_key, created_before=created_before)
        return self.storage.cancel_jobs(which, max_jobs, reason)

    def pause_queue(self, queue: str, *, until: datetime | None = None, reason: str | None = None) -> None:
        """Have no worker start jobs of this queue, until resume_queue or until a time.

        Running jobs go on, and jobs can still be enqueued. After this returns, the only jobs of the queue that start
        are those of a claim that was under way. A second pause replaces the end and the reason. Raises InvalidJob for
        an end that has passed, and Unsupported if the storage cannot pause.
        """
        self.storage.pause("queue", queue, _end(until), reason)

    def resume_queue(self, queue: str) -> bool:
        """Have workers start jobs of this queue again; False if it was not paused."""
        return self.storage.resume("queue", queue)

    def pause_type(self, job_type: str, *, until: datetime | None = None, reason: str | None = None) -> None:
        """Have no worker start jobs of this type, in any queue. See pause_queue."""
        self.storage.pause("type", job_type, _end(until), reason)

    def resume_type(self, job_type: str) -> bool:
        """Have workers start jobs of this type again; False if it was not paused."""
        return self.storage.resume("type", job_type)

    def pauses(self) -> list[dict[str, Any]]:
        """What is paused, a dict each: kind (queue or type), name, paused_at, paused_until, paused_by and reason."""
        return self.storage.pauses()

    def close(self) -> None:
        """Close every connection."""
        self.storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _with_outcome(job_id: str) -> JobId:
    return job_id if isinstance(job_id, JobId) else JobId(job_id)


def _end(until: datetime | None) -> datetime | None:
    check_execute_at(until, "until")
    return until
