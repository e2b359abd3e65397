"""Read and write the table of schedules. See KeptSchedules."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from json import dumps, loads
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from pgjobq.models import NewJob
from pgjobq.schedules import Schedule
from pgjobq.storage.kept_schedules import Stored
from pgjobq.storage.sqlalchemy.connection import Database, Overtaken
from pgjobq.storage.sqlalchemy.enqueueing import add, existing
from pgjobq.storage.sqlalchemy.table import schedules


def _stored(row: Any) -> Stored:
    return Stored(Schedule.from_dict(loads(row.schedule)), row.version, row.due_at)


def read(conn: Connection, due: datetime | None) -> list[Stored]:
    """Return all schedules, or those that are due at this time."""
    query = select(schedules).order_by(schedules.c.id)
    if due is not None:
        query = query.where(schedules.c.due_at <= due)
    return [_stored(row) for row in conn.execute(query)]


def read_one(conn: Connection, schedule_id: str) -> Stored | None:
    """Return the schedule with this id, or None."""
    row = conn.execute(select(schedules).where(schedules.c.id == schedule_id)).first()
    return None if row is None else _stored(row)


def write(database: Database, new: Stored, version: int | None, jobs: Sequence[NewJob]) -> bool:
    """Store a schedule if its version is the expected one, and add the jobs that do not exist, in one transaction."""
    text = dumps(new.schedule.to_dict())
    values = {"version": new.version, "due_at": new.due_at, "schedule": text}

    def work(conn: Connection) -> bool:
        try:
            if version is None:
                conn.execute(insert(schedules).values(id=new.schedule.id, **values))
            else:
                mine = (schedules.c.id == new.schedule.id) & (schedules.c.version == version)
                if conn.execute(update(schedules).where(mine).values(**values)).rowcount != 1:
                    return False
        except IntegrityError:
            conn.rollback()
            return False  # another transaction has created it
        there = existing(conn, [job.id for job in jobs])
        if fresh := [job for job in jobs if job.id not in there]:
            try:
                add(conn, fresh, database)
            except IntegrityError as error:  # another transaction has added one meanwhile
                conn.rollback()
                raise Overtaken from error
        return True

    return database.write(work)


def drop(conn: Connection, schedule_id: str) -> bool:
    """Delete a schedule. Return False if there is none."""
    return conn.execute(delete(schedules).where(schedules.c.id == schedule_id)).rowcount == 1


def clock(conn: Connection, database: Database) -> tuple[datetime, datetime | None]:
    """Return the time of the database, and the earliest due_at."""
    return database.now(conn), conn.scalar(select(func.min(schedules.c.due_at)))
