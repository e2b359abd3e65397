"""Upgrade a table of DBJobQ, which has fewer columns and times without a time zone."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy import Connection, DateTime, String, bindparam, case, column, inspect, select, table, text, update
from sqlalchemy.schema import CreateColumn

from pgjobq.errors import ConfigurationError
from pgjobq.storage.sqlalchemy.connection import Database
from pgjobq.storage.sqlalchemy.schema import check_columns
from pgjobq.storage.sqlalchemy.table import BASE_COLUMNS, BASE_TIMES, LATER_COLUMNS, jobs
from pgjobq.storage.sqlalchemy.types import MYSQL

BATCH = 1000  # rows

# The old table may contain any times and texts.
_old = table("jobs", column("id", String), *(column(name, DateTime) for name in BASE_TIMES))


def zone_of(timezone: str | tzinfo) -> tzinfo:
    """Return the time zone of this name. Raises ConfigurationError."""
    if isinstance(timezone, tzinfo):
        return timezone
    try:
        return ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigurationError(f"timezone: {timezone!r} is unknown; use a name such as Europe/Paris or UTC") from None


def upgrade(database: Database, zone: tzinfo) -> bool:
    """Add the missing columns to the table `jobs`, whose times are in this zone. Return whether it was an old table.

    This is one transaction if the database can change tables in transactions. Raises SchemaConflict.
    """
    if not (missing := database.run(lambda conn: _missing(conn, database.server), writes=False)):
        return False
    database.run(lambda conn: _change(conn, missing, zone), writes=True)
    return True


def _missing(conn: Connection, server: str) -> list[str]:
    """Return the columns that an old table lacks, or an empty list if there is no table."""
    inspector = inspect(conn)
    if not inspector.has_table("jobs"):
        return []
    there = {one["name"] for one in inspector.get_columns("jobs")}
    check_columns(jobs, [*there, *LATER_COLUMNS], server)
    return [name for name in LATER_COLUMNS if name not in there]


def _change(conn: Connection, missing: Iterable[str], zone: tzinfo) -> None:
    inspector, kind = inspect(conn), conn.dialect.name
    zoned = {one["name"] for one in inspector.get_columns("jobs") if getattr(one["type"], "timezone", False)}
    ours = {index.name for index in jobs.indexes}
    for index in inspector.get_indexes("jobs"):
        if index["name"] in ours:  # it may lack columns, so it is created again
            conn.execute(text(f"DROP INDEX {index['name']}{' ON jobs' if kind in MYSQL else ''}"))
    _fill(conn)
    if kind == "postgresql":
        for name in BASE_TIMES:
            if name not in zoned:
                _give_zone(conn, name, zone)
    elif zone is not UTC:
        _move_times(conn, zone)
    for name in missing:
        conn.execute(text(f"ALTER TABLE jobs ADD COLUMN {_declared(conn, name)}"))
    if kind in MYSQL:
        for name in (*BASE_COLUMNS, *BASE_TIMES):
            conn.execute(text(f"ALTER TABLE jobs MODIFY COLUMN {_declared(conn, name)}"))
    ended = case((jobs.c.status.in_(("completed", "failed")), jobs.c.updated_at))
    failed = case((jobs.c.status == "failed", jobs.c.updated_at))
    conn.execute(update(jobs).values(finished_at=ended, failed_at=failed))


def _declared(conn: Connection, name: str) -> str:
    return str(CreateColumn(jobs.c[name]).compile(dialect=conn.dialect))


_FILL = (
    (
        "UPDATE jobs SET attempts = coalesce(attempts, 0), max_retries = coalesce(max_retries, 3),"
        " priority = coalesce(priority, 5), created_at = coalesce(created_at, updated_at, current_timestamp)"
    ),
    "UPDATE jobs SET updated_at = coalesce(updated_at, created_at), execute_at = coalesce(execute_at, created_at)",
)


def _fill(conn: Connection) -> None:
    """Replace nulls in columns that allowed null in the old table."""
    for statement in _FILL:
        conn.execute(text(statement))


def _give_zone(conn: Connection, name: str, zone: tzinfo) -> None:
    # The old default does not have the new type.
    conn.execute(text(f"ALTER TABLE jobs ALTER COLUMN {name} DROP DEFAULT"))
    using = f"{name} AT TIME ZONE '{zone}'"
    conn.execute(text(f"ALTER TABLE jobs ALTER COLUMN {name} TYPE TIMESTAMP WITH TIME ZONE USING {using}"))
    conn.execute(text(f"ALTER TABLE jobs ALTER COLUMN {name} SET DEFAULT CURRENT_TIMESTAMP"))


def _move_times(conn: Connection, zone: tzinfo) -> None:
    """Convert the times from this zone to UTC."""
    change = (
        update(_old)
        .where(_old.c.id == bindparam("row"))
        .values({name: bindparam(f"new_{name}", type_=DateTime) for name in BASE_TIMES})
    )
    query, last = select(_old).order_by(_old.c.id).limit(BATCH), ""
    while rows := conn.execute(query.where(_old.c.id > last)).mappings().all():
        moved = [{"row": row["id"], **{f"new_{name}": _in_utc(row[name], zone) for name in BASE_TIMES}} for row in rows]
        conn.execute(change, moved)
        last = rows[-1]["id"]


def _in_utc(value: datetime, zone: tzinfo) -> datetime:
    return value.replace(tzinfo=zone).astimezone(UTC).replace(tzinfo=None)
