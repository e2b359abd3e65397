"""Read jobs: one job, lists, counts, and pages of all jobs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, case, func, select

from pgjobq.models import Job, JobStatus
from pgjobq.storage.sqlalchemy.connection import Database
from pgjobq.storage.sqlalchemy.rows import COLUMNS, job_of
from pgjobq.storage.sqlalchemy.table import jobs, results


def _jobs() -> Select[Any]:
    """Return the query for jobs, with their results as the last column."""
    same = (results.c.claim_id == jobs.c.claim_id) | (results.c.claim_id.is_(None) & jobs.c.claim_id.is_(None))
    its = (results.c.job_id == jobs.c.id) & (jobs.c.status == "completed") & same
    return select(*COLUMNS, results.c.result).select_from(jobs.outerjoin(results, its))


def get(conn: Connection, job_id: str) -> Job | None:
    """Return the job with this id, or None."""
    row = conn.execute(_jobs().where(jobs.c.id == job_id)).one_or_none()
    return None if row is None else job_of(row[:-1], row[-1])


def newest(conn: Connection, status: JobStatus | None, limit: int | None, queue: str | None) -> list[Job]:
    """Return jobs, newest first."""
    query = _jobs().order_by(jobs.c.created_at.desc()).limit(limit)
    if status is not None:
        query = query.where(jobs.c.status == str(status))
    if queue is not None:
        query = query.where(jobs.c.queue == queue)
    return [job_of(row[:-1], row[-1]) for row in conn.execute(query)]


def counts(conn: Connection) -> dict[JobStatus, int]:
    """Return the number of jobs of each status."""
    query = select(jobs.c.status, func.count()).group_by(jobs.c.status)
    return dict.fromkeys(JobStatus, 0) | {JobStatus(status): found for status, found in conn.execute(query)}


def stats(conn: Connection, now: datetime) -> list[dict[str, Any]]:
    """Return the exact number of jobs by queue and status, and the age of the oldest due job."""
    due = case(((jobs.c.status == "pending") & (jobs.c.execute_at <= now), jobs.c.execute_at))
    query = select(jobs.c.queue, jobs.c.status, func.count(), func.min(due)).group_by(jobs.c.queue, jobs.c.status)
    return [
        {
            "queue": queue,
            "status": status,
            "jobs": found,
            "estimated": False,
            "oldest_due_age": None if oldest is None else (now - oldest).total_seconds(),
        }
        for queue, status, found, oldest in conn.execute(query)
    ]


def pages(database: Database, size: int) -> Iterator[list[Job]]:
    """Yield every job, oldest first, in pages of about size jobs. Each page is a separate read."""
    after: datetime | None = None
    while True:
        page = database.read(lambda conn, after=after: _page(conn, after, size))  # type: ignore[misc]
        if not page:
            return
        after = page[-1].created_at
        for begin in range(0, len(page), size):
            yield page[begin : begin + size]


def _page(conn: Connection, after: datetime | None, size: int) -> list[Job]:
    """Return the next jobs, and by id all jobs that were created at the same moment as the last of them."""
    query = _jobs().order_by(jobs.c.created_at).limit(size)
    if after is not None:
        query = query.where(jobs.c.created_at > after)
    rows = list(conn.execute(query).all())
    if len(rows) == size:
        last = rows[-1].created_at
        ties = conn.execute(_jobs().where(jobs.c.created_at == last)).all()
        rows = [row for row in rows if row.created_at < last] + list(ties)
    return [job_of(row[:-1], row[-1]) for row in sorted(rows, key=lambda row: (row.created_at, row.id))]
