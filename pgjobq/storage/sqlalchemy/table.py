"""The tables `jobs`, `job_results`, `job_workers` (leases) and `job_schedules`, also as mapped classes for users."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index, Integer, String, Table, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pgjobq.models import MAX_NAME
from pgjobq.schedules import MAX_ID
from pgjobq.storage.sqlalchemy.types import MYSQL, Key, LongText, Moment, utc_now

_IN_MYSQL = {
    f"{name}_{option}": value for name in MYSQL for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"))
}


class Base(DeclarativeBase):
    """The base of the mapped classes. Migration tools find the tables in Base.metadata."""


class JobRecord(Base):
    """A row of `jobs`, for your own queries: `storage.session.query(JobRecord)`.

    data is JSON text. execute_at is the due time of a pending job; it equals created_at if the job was due at once.
    Times are aware, in UTC. A naive datetime in a query is taken as local time. claim_id is the number of the claim
    that started the job last, and is never used again.
    """

    __tablename__ = "jobs"
    __table_args__ = _IN_MYSQL

    id: Mapped[str] = mapped_column(Key(MAX_NAME), primary_key=True)
    type: Mapped[str] = mapped_column(Key(MAX_NAME))
    data: Mapped[str] = mapped_column(LongText)
    status: Mapped[str] = mapped_column(Key(16))
    error: Mapped[str | None] = mapped_column(LongText)
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    max_retries: Mapped[int] = mapped_column(Integer, server_default=text("3"))
    priority: Mapped[int] = mapped_column(Integer, server_default=text("5"))
    execute_at: Mapped[datetime | None] = mapped_column(Moment, server_default=utc_now())
    created_at: Mapped[datetime] = mapped_column(Moment, server_default=utc_now())
    updated_at: Mapped[datetime] = mapped_column(Moment, server_default=utc_now())
    queue: Mapped[str] = mapped_column(Key(MAX_NAME), server_default="default")
    started_at: Mapped[datetime | None] = mapped_column(Moment)
    finished_at: Mapped[datetime | None] = mapped_column(Moment)
    failed_at: Mapped[datetime | None] = mapped_column(Moment)
    worker_id: Mapped[int | None] = mapped_column(BigInteger)
    claim_id: Mapped[int | None] = mapped_column(BigInteger)
    crashes: Mapped[int] = mapped_column(Integer, server_default=text("0"))


class ResultRecord(Base):
    """A row of `job_results`: what the handler of a job returned, as JSON text.

    It counts only while the job is completed and has the same claim_id. An imported job has none.
    """

    __tablename__ = "job_results"
    __table_args__ = _IN_MYSQL

    job_id: Mapped[str] = mapped_column(Key(MAX_NAME), primary_key=True)
    claim_id: Mapped[int | None] = mapped_column(BigInteger)
    result: Mapped[str] = mapped_column(LongText)


class WorkerRecord(Base):
    """A row of `job_workers`: a worker, and the end of its lease."""

    __tablename__ = "job_workers"
    __table_args__ = _IN_MYSQL

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(MAX_NAME))
    started_at: Mapped[datetime] = mapped_column(Moment)
    lease_until: Mapped[datetime] = mapped_column(Moment)


class ScheduleRecord(Base):
    """A row of `job_schedules`. schedule is Schedule.to_dict() as JSON; each change adds one to version."""

    __tablename__ = "job_schedules"
    __table_args__ = _IN_MYSQL

    id: Mapped[str] = mapped_column(Key(MAX_ID), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger)
    due_at: Mapped[datetime | None] = mapped_column(Moment, index=True)
    schedule: Mapped[str] = mapped_column(LongText)


def _table(record: type[Base]) -> Table:
    table = record.__table__
    assert isinstance(table, Table)  # a mapped class may also map something other than a table
    return table


jobs, workers, results = _table(JobRecord), _table(WorkerRecord), _table(ResultRecord)
schedules = _table(ScheduleRecord)

# Claims read only pending jobs, in the order of an index. If the database has partial indexes, it holds no other jobs.
_PENDING = text("status = 'pending'")
_order = (jobs.c.priority.desc(), jobs.c.execute_at, jobs.c.created_at, jobs.c.id)

CLAIM, CLAIM_QUEUE = "idx_status_priority_execute", "idx_queue_priority_execute"

# For counts by status and for running jobs. In PostgreSQL it excludes pending jobs, because PostgreSQL would use it for
# claims and sort the result.
Index("idx_status_priority", jobs.c.status, jobs.c.priority.desc(), postgresql_where=text("status <> 'pending'"))
# For claims from all queues, and from given queues.
Index(CLAIM, jobs.c.status, *_order, sqlite_where=_PENDING, postgresql_where=_PENDING)
Index(CLAIM_QUEUE, jobs.c.status, jobs.c.queue, *_order, sqlite_where=_PENDING, postgresql_where=_PENDING)
# For pending jobs that were inserted with null as their due time.
Index("idx_execute_at", jobs.c.execute_at)
# For lists, newest first, and for exports and pruning, oldest first.
Index("idx_created_at", jobs.c.created_at.desc())

# The columns of DBJobQ's table, and the columns that were added later.
BASE_COLUMNS = ("id", "type", "data", "status", "error", "attempts", "max_retries", "priority")
BASE_TIMES = ("execute_at", "created_at", "updated_at")
LATER_COLUMNS = ("queue", "started_at", "finished_at", "failed_at", "worker_id", "claim_id", "crashes")
