"""SQLAlchemyStorage: the storage on databases that SQLAlchemy supports, such as SQLite, MySQL, MariaDB, PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta, tzinfo
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, make_url
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from pgjobq.checks import check_seconds
from pgjobq.errors import ConfigurationError
from pgjobq.models import Job, JobStatus, NewJob
from pgjobq.outcomes import JobTransaction, Outcome
from pgjobq.storage.holds import Claimant, Start
from pgjobq.storage.kept_schedules import KeptSchedules, Stored
from pgjobq.storage.leased import LeasedStorage
from pgjobq.storage.sqlalchemy import (
    callers,
    claiming,
    enqueueing,
    leases,
    pruning,
    queries,
    scheduling,
    schema,
    settling,
)
from pgjobq.storage.sqlalchemy import upgrade as upgrading
from pgjobq.storage.sqlalchemy.connection import Database
from pgjobq.storage.sqlalchemy.sqlite import is_memory
from pgjobq.storage.sqlalchemy.table import JobRecord, WorkerRecord
from pgjobq.storage.sqlalchemy.transaction import SQLAlchemyTransaction

__all__ = ["JobRecord", "SQLAlchemyStorage", "WorkerRecord"]

T = TypeVar("T")


class SQLAlchemyStorage(KeptSchedules, LeasedStorage):
    """Jobs in one table, `jobs`, of any database that SQLAlchemy supports.

    Pass a URL, or your own Engine with any pool. The first call connects, and creates the tables `jobs`,
    `job_workers` and `job_schedules` if they are missing. A plain postgresql:// URL uses psycopg 3. On :memory: all
    threads share one database, which ends with this object.

    lease, poll_interval: see LeasedStorage. timeout: seconds to wait for a connection, an answer or SQLite's lock; then
    StorageUnavailable is raised. It applies only to a URL, because an Engine has its own settings.

    Claims lock rows with FOR UPDATE SKIP LOCKED (PostgreSQL, MySQL 8, MariaDB 10.6) or take SQLite's write lock with
    BEGIN IMMEDIATE. On other databases they update rows that are still pending and check how many were updated. With a
    URL, MySQL runs at READ COMMITTED and SQLite in WAL mode; an Engine is used as it is.

    Indexes: idx_status_priority is for counts and running jobs. idx_status_priority_execute, which ends with created_at
    and id, has the order of claims, and idx_queue_priority_execute has it for claims from given queues; both contain
    only pending jobs if the database has partial indexes. idx_execute_at finds pending jobs without a due time, and
    idx_created_at orders lists. In MySQL the first index is a prefix of the second but narrower. In PostgreSQL it
    excludes pending jobs, so that claims do not use it.

    Times come from the database's clock, or for SQLite from this process. Thread-safe. A transaction is retried a
    limited number of times after a conflict (deadlock, lock timeout, serialization failure), and once if its connection
    is dead. Every settle is fenced by the start that was dequeued.
    """

    keeps_results = True

    def __init__(
        self,
        url: str | URL | Engine,
        *,
        lease: float = 30.0,
        poll_interval: float = 1.0,
        timeout: float = 30.0,
    ) -> None:
        super().__init__(lease=lease, poll_interval=poll_interval)
        check_seconds("timeout", timeout)
        self._database = Database(url, timeout, schema.prepare)
        self._to_reopen: tuple[Any, dict[str, Any]] = url, {"lease": lease, "timeout": timeout}
        self._sessions = scoped_session(sessionmaker(self.engine))
        self._not_rescued: set[str] = set()

    @property
    def engine(self) -> Engine:
        """The given engine, or the engine created from the URL."""
        return self._database.engine

    @property
    def session(self) -> scoped_session[Session]:
        """This thread's Session for your own queries with JobRecord. It begins a new transaction after each commit.

        Commit or roll back its transactions, because an open transaction may block workers.
        """
        self._database.open()
        return self._sessions

    # -- adding ---------------------------------------------------------------------------------------

    def enqueue_many(self, jobs: Sequence[NewJob], connection: Any = None) -> list[str]:
        """Add jobs, all or none, and return their ids in order. A worker on the same object wakes at once.

        connection: a SQLAlchemy Connection or Session on this database. The jobs exist once its transaction commits.
        """
        if connection is None or not jobs:
            return super().enqueue_many(jobs)
        self._refuse_told(jobs)
        conn = callers.sync_connection(connection, self.engine.dialect.name)
        with self._database.translated():
            self._database.join(conn)
            schema.prepare_beside(self._database, conn)
            try:
                with conn.begin_nested():
                    enqueueing.add(conn, jobs, self._database)
            except IntegrityError:
                if there := enqueueing.existing(conn, [job.id for job in jobs]):
                    raise enqueueing.duplicate(next(job.id for job in jobs if job.id in there)) from None
                raise
        return [job.id for job in jobs]

    async def enqueue_many_async(self, jobs: Sequence[NewJob], connection: Any = None) -> list[str]:
        """Do what enqueue_many does in an event loop. connection: an AsyncConnection or AsyncSession."""
        if connection is None or not jobs:
            return await super().enqueue_many_async(jobs)
        ids: list[str] = await callers.run_sync(connection, lambda given: self.enqueue_many(jobs, given))
        return ids

    def import_jobs(self, jobs: Sequence[Job]) -> int:
        """Add jobs with their state, all or none. Return how many were added. Leave jobs whose id exists unchanged."""
        added = enqueueing.take_in(self._database, jobs) if jobs else 0
        self.wake()
        return added

    def _add(self, jobs: Sequence[NewJob]) -> None:
        enqueueing.add_all(self._database, jobs)

    def check_threads(self) -> None:
        """Raise ConfigurationError if the program's Engine has one connection for all threads."""
        if self._database.shares_connection and not self._database.own:
            raise ConfigurationError(
                "engine: a Worker's threads and the program would run in each other's transactions, because the Engine"
                " has one connection for all threads; create the queue from the URL sqlite:///:memory: and use"
                " queue.storage.engine in the program, or run jobs by worker.run_once()"
            )

    # -- working --------------------------------------------------------------------------------------

    def _claim(
        self, worker_id: Claimant, limit: int, queues: Sequence[str] | None, except_types: Sequence[str]
    ) -> list[Job]:
        self._database.open()
        return claiming.claim(self._database, worker_id, limit, queues, except_types)

    def _settle(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        return self._database.write(lambda conn: settling.settle(conn, outcomes, self._database))

    def transaction(self, job: Job) -> JobTransaction:
        """Return a transaction for the handler on a SQLAlchemy Connection. Its last statement completes the job."""
        return SQLAlchemyTransaction(job, self._database, lambda job: self._holds.drop([job]))

    def reopener(self) -> Callable[[], SQLAlchemyStorage] | None:
        """Return a function that opens this storage in another process. None for an Engine or a database in memory."""
        url, options = self._to_reopen
        if isinstance(url, Engine) or (self.engine.dialect.name == "sqlite" and is_memory(make_url(url))):
            return None
        return partial(SQLAlchemyStorage, make_url(url).render_as_string(hide_password=False), **options)

    def _enlist(self, worker_id: int, name: str) -> None:
        self._database.write(lambda conn: leases.enlist(conn, worker_id, name, self._database.now(conn), self.lease))

    def _renew(self, worker_id: int) -> bool:
        return self._database.write(lambda conn: leases.renew(conn, worker_id, self._database.now(conn), self.lease))

    def _retire(self, worker_id: int) -> None:
        self._database.write(lambda conn: leases.retire(conn, worker_id))

    def _held_by(self, worker_id: int) -> list[Job]:
        return self._database.read(lambda conn: leases.held_by(conn, worker_id))

    def _starts_of(self, worker_ids: set[int]) -> set[Start]:
        return self._database.read(lambda conn: leases.starts_of(conn, sorted(worker_ids)))

    def _rescue(self) -> int:
        return leases.rescue(self._database, self._not_rescued, self.lease)

    # -- reading and maintenance ----------------------------------------------------------------------

    def _get(self, job_id: str) -> Job | None:
        return self._database.read(lambda conn: queries.get(conn, job_id))

    def _list(self, status: JobStatus | None, limit: int | None, queue: str | None) -> list[Job]:
        return self._database.read(lambda conn: queries.newest(conn, status, limit, queue))

    def get_job_in(self, connection: Any, job_id: str) -> Job | None:
        """Return the job with this id as the transaction of the caller's connection sees it, or None."""
        return self._read_in(connection, lambda conn: queries.get(conn, job_id))

    async def get_job_in_async(self, connection: Any, job_id: str) -> Job | None:
        """Do what get_job_in does, on an AsyncConnection or AsyncSession."""
        found: Job | None = await callers.run_sync(connection, lambda given: self.get_job_in(given, job_id))
        return found

    def list_jobs_in(
        self, connection: Any, status: JobStatus | None, limit: int | None, queue: str | None
    ) -> list[Job]:
        """Return the jobs that the transaction of the caller's connection sees, newest first."""
        return self._read_in(connection, lambda conn: queries.newest(conn, status, limit, queue))

    async def list_jobs_in_async(
        self, connection: Any, status: JobStatus | None, limit: int | None, queue: str | None
    ) -> list[Job]:
        """Do what list_jobs_in does, on an AsyncConnection or AsyncSession."""
        found: list[Job] = await callers.run_sync(
            connection, lambda given: self.list_jobs_in(given, status, limit, queue)
        )
        return found

    def _read_in(self, connection: Any, work: Callable[[Connection], T]) -> T:
        conn = callers.sync_connection(connection, self.engine.dialect.name, writes=False)
        with self._database.translated():
            self._database.join(conn)
            schema.prepare_beside(self._database, conn)
            return work(conn)

    def export_jobs(self, batch: int = 1000) -> Iterator[list[Job]]:
        """Yield every job in pages, oldest first."""
        return queries.pages(self._database, batch)

    def counts(self) -> dict[JobStatus, int]:
        """Return the exact number of jobs of each status. Every status has an entry."""
        return self._database.read(queries.counts)

    def stats(self) -> list[dict[str, Any]]:
        """Return a dict for each queue and status. The counts are exact, so this scans the table."""
        return self._database.read(lambda conn: queries.stats(conn, self._database.now(conn)))

    def workers(self) -> list[dict[str, Any]]:
        """Return the registered workers: id, name, queues (None: unknown), started_at, alive, asleep, running."""
        return self._database.read(lambda conn: leases.listed(conn, self._database.now(conn)))

    def _cancel(self, job_id: str, reason: str | None) -> bool | None:
        if self._database.write(lambda conn: settling.cancel(conn, job_id, reason, self._database.now(conn))):
            return True
        return None if self._get(job_id) is None else False

    def _put_back(self, job_id: str, delay: float) -> bool:
        def work(conn: Any) -> bool:
            now = self._database.now(conn)
            return settling.put_back(conn, job_id, now + timedelta(seconds=delay), now)

        return self._database.write(work)

    def _prune(self, older_than: timedelta, statuses: list[str], queues: list[str] | None, batch: int) -> int:
        return pruning.prune(self._database, older_than, statuses, queues, batch)

    # -- schedules --------------------------------------------------------------------------------------

    def _read_schedules(self, due: datetime | None = None) -> list[Stored]:
        return self._database.read(lambda conn: scheduling.read(conn, due))

    def _read_schedule(self, schedule_id: str) -> Stored | None:
        return self._database.read(lambda conn: scheduling.read_one(conn, schedule_id))

    def _write_schedule(self, new: Stored, version: int | None, jobs: Sequence[NewJob] = ()) -> bool:
        return scheduling.write(self._database, new, version, jobs)

    def _drop_schedule(self, schedule_id: str) -> bool:
        return self._database.write(lambda conn: scheduling.drop(conn, schedule_id))

    def _schedules_clock(self) -> tuple[datetime, datetime | None]:
        return self._database.read(lambda conn: scheduling.clock(conn, self._database))

    def ping(self) -> None:
        """Connect, and create or check the tables. Raises StorageUnavailable, SchemaConflict or NotMigrated."""
        self._database.open()
        self._database.read(self._database.now)

    def upgrade(self, timezone: str | tzinfo = "UTC") -> bool:
        """Upgrade a table of DBJobQ whose times are in this time zone. Return whether the table was an old one.

        No worker may use the table in the meantime. The upgrade adds queue, started_at, finished_at, failed_at,
        worker_id and claim_id, and creates the indexes again, all in one transaction. In MySQL each change of a table
        ends the transaction, so make a backup there. The running jobs are rescued like those of a dead worker. Raises
        SchemaConflict for a table of another kind.
        """
        changed = upgrading.upgrade(self._database, upgrading.zone_of(timezone))
        self._database.open()
        return changed

    def close(self) -> None:
        """Close the connections, unless the caller owns them. Held jobs stay running until the lease expires."""
        super().close()
        self._sessions.remove()
        self._database.close()
