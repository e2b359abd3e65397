"""The handler's own transaction. Its last statement completes the job."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from sqlalchemy import Connection, RootTransaction

from pgjobq.errors import LostJob, StorageError, Unsupported
from pgjobq.limits import Limited
from pgjobq.models import Job
from pgjobq.outcomes import JobTransaction
from pgjobq.storage.sqlalchemy.connection import Database
from pgjobq.storage.sqlalchemy.settling import complete


class SQLAlchemyTransaction(JobTransaction):
    """See JobTransaction. Yields a SQLAlchemy Connection. On SQLite it holds the write lock until the block ends."""

    def __init__(self, job: Job, database: Database, forget: Callable[[Job], None]) -> None:
        self._job, self._database, self._forget = job, database, forget
        self._stack = ExitStack()
        self._conn: Connection | None = None
        self._transaction: RootTransaction | None = None
        self._limit: float | None = None

    def __enter__(self) -> Connection:
        self._database.open()
        with ExitStack() as stack:
            stack.enter_context(self._database.room.taken())
            stack.enter_context(self._database.translated())
            self._conn = stack.enter_context(self._database.connection(writes=True))
            self._transaction = self._conn.get_transaction() or self._conn.begin()
            self._limit = self._of_driver(self._conn, None)
            self._stack = stack.pop_all()
        return self._conn

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        conn, transaction = self._conn, self._transaction
        assert conn is not None  # entered
        assert transaction is not None
        self._of_driver(conn, self._limit)
        with self._database.translated(), self._stack:
            if error is not None:
                conn.rollback()
                return
            if not transaction.is_active:
                raise StorageError(
                    f"job {self._job.id}: the handler ended the transaction itself, so the job could not be"
                    " completed in it; leave commit and rollback to job.transaction()"
                )
            if not complete(conn, self._job, self._result, self._database):
                conn.rollback()
                raise LostJob(f"job {self._job.id} was given to another worker, cancelled or settled; rolled back")
            conn.commit()
        self.settled = True
        self._forget(self._job)

    def _of_driver(self, conn: Connection, limit: float | None) -> float | None:
        """Set the time limit of pgjobq's driver class and return the old one. Handlers' statements have no limit."""
        if conn.closed or conn.invalidated:
            return None
        driver: Any = conn.connection.driver_connection
        before: float | None = getattr(driver, "answer_time", None)
        if isinstance(driver, Limited):
            driver.answer_time = limit
        return before

    async def __aenter__(self) -> Any:
        raise Unsupported("this storage has no transactions for async handlers; use a sync handler")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Never entered."""
