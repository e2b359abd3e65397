"""The tables: `jobs`, and `job_workers` for the leases. Also as mapped classes, for queries of one's own."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index, Integer, String, Table, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pgjobq.models import MAX_NAME
from pgjobq.storage.sqlalchemy.types import MYSQL, Key, LongText, Moment, utc_now

_IN_MYSQL = {
    f"{name}_{option}": value for name in MYSQL for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"))
}


class Base(DeclarativeBase):
    """The tables of a SQLAlchemyStorage; Base.metadata holds them, for a migration tool."""


class JobRecord(Base):
    """A row of `jobs`, for queries of one's own: `storage.session.query(JobRecord)`.

    data is JSON text. A pending job has its due time in execute_at; one that was due at once has created_at there.
    Times are aware, in UTC; a naive datetime in a query is taken as local time. claim_id is of the claim that started
    it last, and never comes again.
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


class WorkerRecord(Base):
    """A row of `job_workers`: a worker, and until when it holds its jobs."""

    __tablename__ = "job_workers"
    __table_args__ = _IN_MYSQL

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(MAX_NAME))
    started_at: Mapped[datetime] = mapped_column(Moment)
    lease_until: Mapped[datetime] = mapped_column(Moment)


def _table(record: type[Base]) -> Table:
    table = record.__table__
    assert isinstance(table, Table)  # Mapped classes may stand for other things than tables.
    return table


jobs, workers = _table(JobRecord), _table(WorkerRecord)

# Claims read pending jobs alone, in an order that an index gives: where the database can, that index holds no others.
_PENDING = text("status = 'pending'")
_order = (jobs.c.priority.desc(), jobs.c.execute_at, jobs.c.created_at, jobs.c.id)

CLAIM, CLAIM_QUEUE = "idx_status_priority_execute", "idx_queue_priority_execute"

# Counting by status, and what is running. PostgreSQL would take it for claims, too, and sort what it finds.
Index("idx_status_priority", jobs.c.status, jobs.c.priority.desc(), postgresql_where=text("status <> 'pending'"))
# Claims from all queues, and from given ones.
Index(CLAIM, jobs.c.status, *_order, sqlite_where=_PENDING, postgresql_where=_PENDING)
Index(CLAIM_QUEUE, jobs.c.status, jobs.c.queue, *_order, sqlite_where=_PENDING, postgresql_where=_PENDING)
# Pending jobs that somebody inserted with null as their due time.
Index("idx_execute_at", jobs.c.execute_at)
# Lists, the newest first; exports and pruning, the oldest first.
Index("idx_created_at", jobs.c.created_at.desc())

# What DBJobQ's table has, and what came later.
BASE_COLUMNS = ("id", "type", "data", "status", "error", "attempts", "max_retries", "priority")
BASE_TIMES = ("execute_at", "created_at", "updated_at")
LATER_COLUMNS = ("queue", "started_at", "finished_at", "failed_at", "worker_id", "claim_id", "crashes")
