"""SQLAlchemyStorage: the seam on any database that SQLAlchemy reaches: SQLite, MySQL, MariaDB, PostgreSQL and more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta, tzinfo
from typing import Any

from sqlalchemy import URL, Engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from pgjobq.checks import check_seconds
from pgjobq.models import Job, JobStatus, NewJob
from pgjobq.outcomes import JobTransaction, Outcome
from pgjobq.storage.holds import Claimant, Start
from pgjobq.storage.leased import LeasedStorage
from pgjobq.storage.sqlalchemy import callers, claiming, enqueueing, leases, pruning, queries, schema, settling
from pgjobq.storage.sqlalchemy import upgrade as upgrading
from pgjobq.storage.sqlalchemy.connection import Database
from pgjobq.storage.sqlalchemy.table import JobRecord, WorkerRecord
from pgjobq.storage.sqlalchemy.transaction import SQLAlchemyTransaction

__all__ = ["JobRecord", "SQLAlchemyStorage", "WorkerRecord"]


class SQLAlchemyStorage(LeasedStorage):
    """Jobs in one table, `jobs`, of any database that SQLAlchemy reaches.

    Give a URL, or an Engine of your own with any pool. Nothing is connected before the first call, which makes the
    tables `jobs` and `job_workers` where they are missing. Plain postgresql:// is for psycopg 3. On :memory: all
    threads share one database, which ends with this object.

    lease, poll_interval: see LeasedStorage. timeout: seconds to wait for the database, be it a connection, an answer
    or SQLite's lock, then StorageUnavailable; for a URL alone, an Engine has its own.

    Claims lock rows by FOR UPDATE SKIP LOCKED (PostgreSQL, MySQL 8, MariaDB 10.6), take SQLite's write lock by
    BEGIN IMMEDIATE, or elsewhere update rows on the condition that they are still pending and see how many were. A
    URL of MySQL's is worked on at READ COMMITTED and one of SQLite's in WAL mode; an Engine is taken as it is.

    Indexes: idx_status_priority counts, and finds running jobs; idx_status_priority_execute, with created_at and id at
    its end, gives the order of claims, and holds pending jobs alone where the database can; so does
    idx_queue_priority_execute for claims from given queues; idx_execute_at finds pending jobs without a due time;
    idx_created_at orders lists. In MySQL the first is a prefix of the second, and there because it is narrow; in
    PostgreSQL it leaves pending jobs to the second, lest it be taken for claims.

    Times come from the database's clock, SQLite's from this process's. Thread-safe. What is retried: a transaction that
    met another (deadlock, lock timeout, serialization failure), with a bound; and one whose connection turned out to
    be dead, once. What is fenced: every settle, by the start dequeued.
    """

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
        self._sessions = scoped_session(sessionmaker(self.engine))
        self._not_rescued: set[str] = set()

    @property
    def engine(self) -> Engine:
        """The engine: the one given, or made of the URL."""
        return self._database.engine

    @property
    def session(self) -> scoped_session[Session]:
        """A Session of this thread's, for queries of one's own with JobRecord; it begins anew after each commit.

        Its transactions are the caller's: commit or roll back, for an open one may keep workers waiting.
        """
        self._database.open()
        return self._sessions

    # -- adding ---------------------------------------------------------------------------------------

    def enqueue_many(self, jobs: Sequence[NewJob], connection: Any = None) -> list[str]:
        """Add jobs, all or none; their ids, in order. A worker on the same object wakes at once.

        connection: a SQLAlchemy Connection or Session on this database; the jobs exist when its transaction commits.
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
        """enqueue_many for an event loop; connection is an AsyncConnection or AsyncSession."""
        if connection is None or not jobs:
            return await super().enqueue_many_async(jobs)
        ids: list[str] = await callers.run_sync(connection, lambda given: self.enqueue_many(jobs, given))
        return ids

    def import_jobs(self, jobs: Sequence[Job]) -> int:
        """Add jobs with their state, all or none; those whose id exists are left as they are. How many were added."""
        added = enqueueing.take_in(self._database, jobs) if jobs else 0
        self.wake()
        return added

    def _add(self, jobs: Sequence[NewJob]) -> None:
        enqueueing.add_all(self._database, jobs)

    # -- working --------------------------------------------------------------------------------------

    def _claim(
        self, worker_id: Claimant, limit: int, queues: Sequence[str] | None, except_types: Sequence[str]
    ) -> list[Job]:
        self._database.open()
        return claiming.claim(self._database, worker_id, limit, queues, except_types)

    def _settle(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        return self._database.write(lambda conn: settling.settle(conn, outcomes, self._database))

    def transaction(self, job: Job) -> JobTransaction:
        """A transaction of the handler's own on a SQLAlchemy Connection, which completes the job as its last act."""
        return SQLAlchemyTransaction(job, self._database, lambda job: self._holds.drop([job]))

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

    # -- looking after --------------------------------------------------------------------------------

    def _get(self, job_id: str) -> Job | None:
        return self._database.read(lambda conn: queries.get(conn, job_id))

    def _list(self, status: JobStatus | None, limit: int | None, queue: str | None) -> list[Job]:
        return self._database.read(lambda conn: queries.newest(conn, status, limit, queue))

    def export_jobs(self, batch: int = 1000) -> Iterator[list[Job]]:
        """Every job, oldest first, by pages."""
        return queries.pages(self._database, batch)

    def counts(self) -> dict[JobStatus, int]:
        """How many jobs there are of each status, all statuses named; exact."""
        return self._database.read(queries.counts)

    def stats(self) -> list[dict[str, Any]]:
        """Jobs by queue and status, a dict each; exact, and so a scan."""
        return self._database.read(lambda conn: queries.stats(conn, self._database.now(conn)))

    def workers(self) -> list[dict[str, Any]]:
        """Registered workers: id, name, queues (unknown: None), started_at, alive, asleep, running."""
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

    def ping(self) -> None:
        """Connect, and make or check the tables. Raises StorageUnavailable, SchemaConflict or NotMigrated."""
        self._database.open()
        self._database.read(self._database.now)

    def upgrade(self, timezone: str | tzinfo = "UTC") -> bool:
        """Bring a table of DBJobQ's up to date, its times being of this zone; whether it was one.

        No worker may use it meanwhile. Adds queue, started_at, finished_at, failed_at, worker_id and claim_id, and
        makes the indexes again. In one transaction, but for MySQL, where each change of the table ends one: make a
        backup there.
        Its running jobs are rescued as those of a dead worker. Raises SchemaConflict for a table of another kind.
        """
        changed = upgrading.upgrade(self._database, upgrading.zone_of(timezone))
        self._database.open()
        return changed

    def close(self) -> None:
        """Let go of the connections, where they are this object's own. Jobs still held stay so until the lease ends."""
        super().close()
        self._sessions.remove()
        self._database.close()
