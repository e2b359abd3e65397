"""The handler's own transaction, which completes its job as its last act."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, ExitStack
from types import TracebackType
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool

from pgjobq.errors import LostJob
from pgjobq.models import Job
from pgjobq.postgres.pool import Connection
from pgjobq.storage.base import JobTransaction


class PostgresTransaction(JobTransaction):
    """See JobTransaction. The sync side borrows from the pool; the async side makes a connection of its own."""

    def __init__(
        self,
        job: Job,
        *,
        pool: ConnectionPool[Connection],
        parameters: Mapping[str, Any],
        complete: bytes,
        forget: Callable[[Job], None],
    ) -> None:
        self._job, self._pool, self._parameters = job, pool, parameters
        self._complete, self._forget = complete, forget
        self._stack, self._async_stack = ExitStack(), AsyncExitStack()
        self._conn: Any = None

    def __enter__(self) -> Connection:
        with ExitStack() as stack:
            self._conn = stack.enter_context(self._pool.connection())
            stack.enter_context(self._conn.transaction())
            self._stack = stack.pop_all()
        return self._conn  # type: ignore[no-any-return]  # one attribute serves both colours

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._stack as stack:
            if error is not None:
                stack.__exit__(kind, error, traceback)
                return
            with psycopg.Cursor(self._conn, row_factory=psycopg.rows.tuple_row) as cursor:
                self._check(cursor.execute(self._complete, self._arguments()).fetchall())
        self._done()

    async def __aenter__(self) -> Any:
        async with AsyncExitStack() as stack:
            self._conn = await stack.enter_async_context(
                await psycopg.AsyncConnection.connect(**self._parameters, autocommit=True)
            )
            await stack.enter_async_context(self._conn.transaction())
            self._async_stack = stack.pop_all()
        return self._conn

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        async with self._async_stack as stack:
            if error is not None:
                await stack.__aexit__(kind, error, traceback)
                return
            async with psycopg.AsyncCursor(self._conn, row_factory=psycopg.rows.tuple_row) as cursor:
                self._check(await (await cursor.execute(self._complete, self._arguments())).fetchall())
        self._done()

    def _done(self) -> None:
        self.settled = True
        self._forget(self._job)

    def _arguments(self) -> list[Any]:
        # Kept, also where completed jobs are not: a job that is gone is then surely a lost one.
        return [self._job.worker_id, [self._job.id], [self._job.attempts], [], True]

    def _check(self, lost: list[Any]) -> None:
        if lost:
            raise LostJob(f"job {self._job.id} was given to another, cancelled or settled: rolled back")
