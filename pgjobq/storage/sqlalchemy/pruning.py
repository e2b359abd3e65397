"""Delete jobs that finished long ago."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, bindparam, delete, exists, select

from pgjobq.errors import StorageError
from pgjobq.events import EventLog
from pgjobq.storage.sqlalchemy.apart import each_apart
from pgjobq.storage.sqlalchemy.conditions import AMONG_IDS, chunks, met
from pgjobq.storage.sqlalchemy.connection import Database
from pgjobq.storage.sqlalchemy.table import jobs, results

log = EventLog("pgjobq.storage")


def prune(
    database: Database, older_than: timedelta, statuses: Sequence[str], queues: Sequence[str] | None, batch: int
) -> int:
    """Delete jobs that finished longer ago than older_than, one batch per transaction. Return how many.

    Skip a job that the database refuses to delete because a row of the user references it.
    """
    cutoff = database.read(database.now) - older_than
    old = (jobs.c.status.in_(statuses)) & (jobs.c.finished_at <= cutoff)
    if queues is not None:
        old &= jobs.c.queue.in_(queues)
    pruned = 0
    kept: dict[str, StorageError] = {}
    place: tuple[datetime, str] | None = None  # where the last batch ended

    def find(conn: Connection) -> list[Any]:
        # Order by created_at, because a job finishes after it was created. Then order by id descending, because that is
        # the order of MySQL's index on created_at (newest first) when it is read backwards.
        query = select(jobs.c.id, jobs.c.created_at).where(jobs.c.created_at <= cutoff, met(old))
        if place is not None:
            moment, job_id = place
            later = (jobs.c.created_at > moment) | ((jobs.c.created_at == moment) & (jobs.c.id < job_id))
            query = query.where(jobs.c.created_at >= moment, met(later))
        return list(conn.execute(query.order_by(jobs.c.created_at, jobs.c.id.desc()).limit(batch)).all())

    while found := database.read(find):
        ids = [row.id for row in found]
        pruned += each_apart(ids, lambda some: database.write(lambda conn: _delete(conn, some, old)), kept.__setitem__)
        place = found[-1].created_at, found[-1].id
        if len(found) < batch:
            break
    if kept:
        job_id, error = next(iter(kept.items()))
        log.warning("jobs.not_pruned", extra={"jobs": len(kept), "job_id": job_id, "error": str(error)})
    return pruned


def _delete(conn: Connection, ids: Sequence[str], old: Any) -> int:
    deleted = 0
    for some in chunks(ids):
        deleted += conn.execute(delete(jobs).where(AMONG_IDS, met(old)), {"ids": some}).rowcount
        conn.execute(_RESULTS, {"ids": some})
    return deleted


# The results of those that were deleted.
_RESULTS = delete(results).where(
    results.c.job_id.in_(bindparam("ids", expanding=True)), ~exists().where(jobs.c.id == results.c.job_id)
)
