"""The handler's own transaction. Its last statement completes the job."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from types import TracebackType
from typing import Any

import psycopg

from pgjobq.errors import Cancelled, LostJob
from pgjobq.models import Job
from pgjobq.outcomes import JobTransaction
from pgjobq.postgres.database import Database
from pgjobq.postgres.errors import translated
from pgjobq.postgres.fetching import PlainAsyncCursor, fetch
from pgjobq.postgres.pool import SHARED_SETTINGS, Connection, LimitedAsyncConnection, PinnedConnection
from pgjobq.postgres.statements import FunctionCall

CANCEL_TIME = 5.0  # seconds that the request to cancel a statement may take


class PostgresTransaction(JobTransaction):
    """See JobTransaction. The sync side takes a connection from the pool, and the async side opens its own connection.

    The handler's statements have no time limit. The completion has the same limit as every other call.
    """

    def __init__(self, job: Job, database: Database, forget: Callable[[Job], None]) -> None:
        self._job, self._database, self._forget = job, database, forget
        self._stack, self._async_stack = ExitStack(), AsyncExitStack()
        self._conn: Any = None
        self._open, self._interrupted = (
            False,
            False,
        )  # of the sync side: whether its statements may be cancelled, and were
        self._ending = threading.Lock()  # a cancel must not meet the statement of another borrower

    def interrupt(self) -> bool:
        """Cancel the statement that runs, if the transaction is open. An async one's ends with its task."""
        with self._ending:
            if self._open:
                self._interrupted = True
                self._conn.cancel_safe(timeout=CANCEL_TIME)
            return self._open

    def __enter__(self) -> Connection:
        with ExitStack() as stack:
            stack.enter_context(self._database.room.taken())
            with translated():
                self._database.open()
                conn = self._conn = stack.enter_context(self._database.pool.connection())
                if isinstance(conn, PinnedConnection):
                    conn.unpin()
            stack.enter_context(self._conn.transaction())
            self._open = True
            stack.callback(self._end)
            if getattr(self._job, "lost", False):  # after the line above: an interrupt sees that, or this sees the loss
                raise self._cancelled()
            self._stack = stack.pop_all()
        return self._conn  # type: ignore[no-any-return]  # the attribute serves the sync and the async side

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()
        if isinstance(self._conn, PinnedConnection):
            self._conn.answer_time = self._database.answer_timeout
        with self._stack as stack:
            if error is not None:
                stack.__exit__(kind, error, traceback)
                if self._interrupted and isinstance(error, psycopg.errors.QueryCanceled):
                    raise self._cancelled() from error
                return
            with translated():
                lost = fetch(self._conn, self._completion())
            self._check(lost)
        self._done()

    async def __aenter__(self) -> Any:
        async with AsyncExitStack() as stack:
            with translated():
                connecting = LimitedAsyncConnection.connect(**self._database.parameters, autocommit=True)
                conn = self._conn = await stack.enter_async_context(await connecting)
                if self._database.pins:
                    await conn.execute(SHARED_SETTINGS)
                conn.answer_time = None
            await stack.enter_async_context(self._conn.transaction())
            self._async_stack = stack.pop_all()
        return self._conn

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._conn.answer_time = self._database.answer_timeout
        async with self._async_stack as stack:
            if error is not None:
                await stack.__aexit__(kind, error, traceback)
                return
            await self._complete()
        self._done()

    async def _complete(self) -> None:
        with translated():
            call = self._completion()
            async with PlainAsyncCursor(self._conn) as cursor:
                await cursor.execute(call.statement, call.arguments)
                lost = call.read(await cursor.fetchall())
        self._check(lost)

    def _end(self) -> None:
        with self._ending:
            self._open = False

    def _cancelled(self) -> Cancelled:
        return Cancelled(f"job {self._job.id} was cancelled or lost, or its time is over: rolled back")

    def _done(self) -> None:
        self.settled = True
        self._forget(self._job)

    def _completion(self) -> FunctionCall[set[str]]:
        job = self._job
        # Keep the job even if completed jobs are deleted, so that a missing job always means a lost one.
        results: list[str | None] | None = None if self._result is None else [self._result]
        return self._database.calls.complete_jobs(job.worker_id, [job.id], [job.claim_id], [], True, results)

    def _check(self, lost: set[str]) -> None:
        if lost:
            raise LostJob(
                f"job {self._job.id} was given to another worker, cancelled or settled; the transaction was rolled back"
            )
