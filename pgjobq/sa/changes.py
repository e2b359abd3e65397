"""Changes that no worker makes: adding jobs, cancelling, putting back, pruning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Insert,
    bindparam,
    delete,
    insert,
    literal_column,
    null,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from pgjobq.errors import DuplicateJob, InvalidJob, StorageError, StorageUnavailable
from pgjobq.events import EventLog
from pgjobq.models import Job, NewJob
from pgjobq.sa.apart import each_apart
from pgjobq.sa.conditions import AMONG_IDS, chunks, met
from pgjobq.sa.database import Database, Overtaken
from pgjobq.sa.rows import NEW_COLUMNS, new_row, new_rows, row_of
from pgjobq.sa.table import jobs
from pgjobq.sa.types import MYSQL
from pgjobq.storage.arrival import arriving

log = EventLog("pgjobq.storage")

SMALLEST_PACKET = 1_000_000  # bytes that every MySQL takes, unless made not to


def add(conn: Connection, new: Sequence[NewJob], database: Database) -> None:
    """Insert new jobs, in order. Raises DuplicateJob for an id given twice, IntegrityError for one that exists."""
    seen: set[str] = set()
    for job in new:
        if job.id in seen:
            raise duplicate(job.id)
        seen.add(job.id)
    clock = database.traits.now
    if len(new) == 1 and new[0].delay is None and clock is not None:
        # A round trip less than to ask for the time.
        row = new_row(new[0])
        at_once = row["execute_at"] is None
        if at_once:
            del row["execute_at"]
        conn.execute(_insert_one(clock, at_once=at_once), row)
    else:
        conn.execute(insert(jobs), new_rows(new, database.now(conn)))


@cache
def _insert_one(clock: ColumnElement[Any], *, at_once: bool) -> Insert:
    stamped = ("created_at", "updated_at", "execute_at") if at_once else ("created_at", "updated_at")
    given = {name: bindparam(name, type_=jobs.c[name].type) for name in NEW_COLUMNS if name not in stamped}
    return insert(jobs).values(given | dict.fromkeys(stamped, clock))


def duplicate(job_id: str) -> DuplicateJob:
    """The error for an id that exists already."""
    return DuplicateJob(f"job_id: {job_id!r} exists already; give another id")


def add_all(database: Database, new: Sequence[NewJob]) -> None:
    """Add jobs in a transaction of its own. Raises DuplicateJob."""

    def work(conn: Connection) -> None:
        try:
            add(conn, new, database)
        except IntegrityError:
            conn.rollback()
            if there := existing(conn, [job.id for job in new]):
                raise duplicate(next(job.id for job in new if job.id in there)) from None
            raise

    with refusing_oversized(database, [job.json for job in new]):
        database.write(work)


@contextmanager
def refusing_oversized(database: Database, texts: Sequence[str]) -> Iterator[None]:
    """Say so when it was the size of a job that made MySQL close the connection."""
    try:
        yield
    except StorageUnavailable as error:
        size = max(len(text.encode()) for text in texts)
        if database.engine.dialect.name not in MYSQL or size < SMALLEST_PACKET:
            raise
        most = database.read(lambda conn: conn.scalar(select(literal_column("@@max_allowed_packet"))))
        if size < int(most or 0):
            raise
        raise InvalidJob(
            f"data: has {size} bytes, and {database.server} takes statements of less than max_allowed_packet = {most};"
            " store the bulk elsewhere and enqueue a reference",
            field="data",
        ) from error


def existing(conn: Connection, ids: Sequence[str]) -> set[str]:
    """Those of these ids that exist."""
    query = select(jobs.c.id).where(AMONG_IDS)
    return {id_ for some in chunks(ids) for id_ in conn.scalars(query, {"ids": some})}


def take_in(database: Database, arrivals: Sequence[Job]) -> int:
    """Add jobs with their state, unless their id is there already; how many were added. Raises InvalidJob."""
    rows = {job.id: row_of(*arriving(job)) for job in reversed(arrivals)}  # of two with one id, the first

    def work(conn: Connection) -> int:
        there = existing(conn, list(rows))
        fresh = [row for id_, row in reversed(rows.items()) if id_ not in there]
        try:
            if fresh:
                conn.execute(insert(jobs), fresh)
        except IntegrityError as error:
            conn.rollback()
            if existing(conn, list(rows)) == there:
                raise
            raise Overtaken from error
        return len(fresh)

    with refusing_oversized(database, [str(row["data"]) for row in rows.values()]):
        return database.write(work)


def cancel(conn: Connection, job_id: str, reason: str | None, now: datetime) -> bool:
    """pending or running -> cancelled; False when it is neither."""
    values = {"status": "cancelled", "finished_at": now, "updated_at": now, "claim_id": null()}
    if reason is not None:
        values["error"] = reason
    return _change(conn, job_id, ("pending", "running"), values)


def put_back(conn: Connection, job_id: str, due: datetime, now: datetime) -> bool:
    """failed, cancelled or pending -> pending, due then; False when it is in no such state."""
    values = {"status": "pending", "execute_at": due, "updated_at": now}
    # MySQL reads the new value of a column that was set before, and crashes is the last of the table.
    values |= {"attempts": jobs.c.attempts - jobs.c.crashes, "crashes": 0}
    values |= dict.fromkeys(("finished_at", "failed_at", "claim_id"), null())
    return _change(conn, job_id, ("pending", "failed", "cancelled"), values)


def _change(conn: Connection, job_id: str, states: Sequence[str], values: dict[str, Any]) -> bool:
    return (
        conn.execute(update(jobs).where(jobs.c.id == job_id, met(jobs.c.status.in_(states))).values(values)).rowcount
        == 1
    )


def prune(
    database: Database, older_than: timedelta, statuses: Sequence[str], queues: Sequence[str] | None, batch: int
) -> int:
    """Delete jobs that finished longer ago than older_than, in batches of their own transaction; how many.

    A job that the database keeps, because a row of the user's points at it, holds up no other.
    """
    cutoff = database.read(database.now) - older_than
    old = (jobs.c.status.in_(statuses)) & (jobs.c.finished_at <= cutoff)
    if queues is not None:
        old &= jobs.c.queue.in_(queues)
    pruned = 0
    kept: dict[str, StorageError] = {}
    place: tuple[datetime, str] | None = None  # where the last batch ended

    def find(conn: Connection) -> list[Any]:
        # By created_at, because a job finishes after it was created; then downwards by id, which is how MySQL's index
        # on created_at, the newest first, goes when it is read from its end.
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
    return sum(conn.execute(delete(jobs).where(AMONG_IDS, met(old)), {"ids": some}).rowcount for some in chunks(ids))
