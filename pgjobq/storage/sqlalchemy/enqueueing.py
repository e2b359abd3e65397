"""Add jobs, all or none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Insert,
    bindparam,
    insert,
    literal_column,
    select,
)
from sqlalchemy.exc import IntegrityError

from pgjobq.arrival import arriving, arriving_result
from pgjobq.errors import DuplicateJob, InvalidJob, StorageUnavailable
from pgjobq.models import Job, NewJob
from pgjobq.storage.sqlalchemy.conditions import AMONG_IDS, chunks
from pgjobq.storage.sqlalchemy.connection import Database, Overtaken
from pgjobq.storage.sqlalchemy.results import keep_results
from pgjobq.storage.sqlalchemy.rows import NEW_COLUMNS, new_row, new_rows, row_of
from pgjobq.storage.sqlalchemy.table import jobs
from pgjobq.storage.sqlalchemy.types import MYSQL

SMALLEST_PACKET = 1_000_000  # bytes; MySQL accepts at least this much by default


def add(conn: Connection, new: Sequence[NewJob], database: Database) -> None:
    """Insert new jobs, in order. Raises DuplicateJob for an id given twice, IntegrityError for one that exists."""
    seen: set[str] = set()
    for job in new:
        if job.id in seen:
            raise duplicate(job.id)
        seen.add(job.id)
    clock = database.traits.now
    if len(new) == 1 and new[0].delay is None and clock is not None:
        # This saves the round trip that reads the time.
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
    """Return the error for an id that exists already."""
    return DuplicateJob(f"job_id: {job_id!r} exists already; use another id")


def add_all(database: Database, new: Sequence[NewJob]) -> None:
    """Add jobs in a separate transaction. Raises DuplicateJob."""

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
    """Raise InvalidJob if MySQL closed the connection because a job is too large."""
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
            f"data: it has {size} bytes, and {database.server} limits statements to max_allowed_packet = {most};"
            " store the large part elsewhere and enqueue a reference to it",
            field="data",
        ) from error


def existing(conn: Connection, ids: Sequence[str]) -> set[str]:
    """Return those of these ids that exist."""
    query = select(jobs.c.id).where(AMONG_IDS)
    return {id_ for some in chunks(ids) for id_ in conn.scalars(query, {"ids": some})}


def take_in(database: Database, arrivals: Sequence[Job]) -> int:
    """Add the jobs whose ids do not exist, with their state. Return how many were added. Raises InvalidJob."""
    rows = {job.id: row_of(*arriving(job)) for job in reversed(arrivals)}  # of two jobs with one id, keep the first
    found = {job.id: text for job in reversed(arrivals) if (text := arriving_result(job)) is not None}

    def work(conn: Connection) -> int:
        there = existing(conn, list(rows))
        fresh = [row for id_, row in reversed(rows.items()) if id_ not in there]
        try:
            if fresh:
                conn.execute(insert(jobs), fresh)
                keep_results(conn, {row["id"]: found.get(row["id"]) for row in fresh}, None)
        except IntegrityError as error:
            conn.rollback()
            if existing(conn, list(rows)) == there:
                raise
            raise Overtaken from error
        return len(fresh)

    with refusing_oversized(database, [*(str(row["data"]) for row in rows.values()), *found.values()]):
        return database.write(work)
