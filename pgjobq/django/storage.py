"""A queue whose calls run on Django's own connection, in the transaction of the request."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import psycopg
from asgiref.sync import sync_to_async
from django.db import connections

from pgjobq.django.conf import conninfo, current
from pgjobq.errors import Unsupported
from pgjobq.models import Job, NewJob
from pgjobq.postgres.database import Database
from pgjobq.postgres.drivers import translated
from pgjobq.postgres.fetching import fetch
from pgjobq.postgres.statements import FunctionCall
from pgjobq.queue import JobQueue
from pgjobq.storage.postgres_storage import PostgresStorage

T = TypeVar("T")


class DjangoDatabase(Database):
    """Executes calls on the connection that Django has for this thread or task."""

    alias: str

    def run(self, call: FunctionCall[T]) -> T:
        """Execute a call in the current transaction, or alone if there is none, and return its result."""
        connection = connections[self.alias]
        connection.validate_no_broken_transaction()
        # Django marks its connection as broken after an error, and replaces it after the request.
        with translated(), connection.wrap_database_errors:
            connection.ensure_connection()
            raw = connection.connection
            # The driver's own cursors return plain values and aware times whatever the project's settings are.
            if isinstance(raw, psycopg.Connection):
                return fetch(raw, call)
            with raw.cursor() as cursor:
                cursor.execute(call.statement.replace(b"%b", b"%s"), list(call.arguments))
                return call.read(cursor.fetchall())


class DjangoStorage(PostgresStorage):
    """The storage of `queue`. It enqueues, reads, retries and cancels; `manage.py pgjobq worker` runs the jobs."""

    database_class = DjangoDatabase
    _database: DjangoDatabase

    def __init__(self, alias: str, schema: str) -> None:
        address = conninfo(alias)
        super().__init__(address, schema=schema)
        self._database.alias = self.alias = alias
        self._apart = PostgresStorage(address, schema=schema)  # it connects when something waits

    def enqueue_many(self, jobs: Sequence[NewJob], connection: Any = None) -> list[str]:
        """Add jobs in the current transaction of Django's connection, or of the connection that is given."""
        return super().enqueue_many(jobs, connections[self.alias] if connection is None else connection)

    async def enqueue_many_async(self, jobs: Sequence[NewJob], connection: Any = None) -> list[str]:
        """Do what enqueue_many does, in the thread in which Django's async ORM works."""
        if connection is not None:
            return await super().enqueue_many_async(jobs, connection)
        return await sync_to_async(self.enqueue_many)(jobs)

    def wait_for_many(self, job_ids: Sequence[str], timeout: float) -> list[Job]:
        """Wait on a connection of pgjobq's own, which sees only jobs that are committed."""
        return self._apart.wait_for_many(job_ids, timeout)

    async def wait_for_many_async(self, job_ids: Sequence[str], timeout: float) -> list[Job]:  # noqa: ASYNC109  # as in the storages
        """Do what wait_for_many does, without blocking the event loop."""
        return await self._apart.wait_for_many_async(job_ids, timeout)

    def _dequeue(self, limit: int, queues: Sequence[str] | None) -> list[Job]:
        raise Unsupported("the queue of pgjobq.django runs no jobs; run `manage.py pgjobq worker`")

    def close(self) -> None:
        """Close pgjobq's own connections. Django closes its own."""
        self._apart.close()
        super().close()


class DjangoQueue(JobQueue):
    """A JobQueue on Django's connection. Its async methods work where Django's async ORM works."""

    def __init__(self, alias: str, schema: str) -> None:
        super().__init__(DjangoStorage(alias, schema))

    async def get_job_async(self, job_id: str, *, connection: Any = None) -> Job | None:
        """Do what get_job does, without blocking the event loop."""
        if connection is not None:
            return await super().get_job_async(job_id, connection=connection)
        return await sync_to_async(self.get_job)(job_id)

    async def list_jobs_async(
        self, status: str | None = None, limit: int | None = None, queue: str | None = None, *, connection: Any = None
    ) -> list[Job]:
        """Do what list_jobs does, without blocking the event loop."""
        if connection is not None:
            return await super().list_jobs_async(status, limit, queue, connection=connection)
        return await sync_to_async(self.list_jobs)(status, limit, queue)

    async def retry_async(self, job_id: str, delay: float | timedelta = 0) -> None:
        """Do what retry does, without blocking the event loop."""
        await sync_to_async(self.retry)(job_id, delay)

    async def cancel_async(self, job_id: str, reason: str | None = None) -> bool:
        """Do what cancel does, without blocking the event loop."""
        return await sync_to_async(self.cancel)(job_id, reason)


def current_queue() -> DjangoQueue:
    """Return the queue for the present settings."""
    conf = current()
    return _queue(conf.database, conf.schema)


@cache
def _queue(alias: str, schema: str) -> DjangoQueue:
    return DjangoQueue(alias, schema)
