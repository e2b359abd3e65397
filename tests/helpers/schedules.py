"""Schedules whose time has come, without waiting for it."""

from __future__ import annotations

from typing import Any

import psycopg

Connection = psycopg.Connection[Any]

MOVE = """
with moved as (
  update schedules
     set next_run = coalesce(%(to)s::timestamptz, schedules.next_run),
         place_at = coalesce(%(to)s::timestamptz, clock_timestamp() - interval '1 ms')
    from schedules as old
   where schedules.id = old.id and schedules.id = %(id)s
  returning schedules.place, schedules.place_at
)
update scheduled set execute_at = moved.place_at from moved where scheduled.seq = moved.place
"""


def create(conn: Connection, id: str, expression: str = "0 9 * * *", **options: Any) -> None:
    """Create a schedule of type t."""
    given = "".join(f", {name} => %({name})s" for name in options)
    conn.execute(
        f"select create_schedule(%(id)s, 't', %(expression)s{given})".encode(),
        {"id": id, "expression": expression, **options},
    )


def make_due(conn: Connection, id: str, at: str) -> None:
    """Have the schedule's next run at this moment, which has passed, as if nothing had claimed since."""
    conn.execute(MOVE, {"id": id, "to": at})
    assert conn.execute("select next_run <= clock_timestamp() from schedules where id = %s", [id]).fetchone() == (True,)


def schedule(conn: Connection, id: str) -> dict[str, Any]:
    """The columns of a schedule."""
    row = conn.execute("select to_jsonb(schedules) from schedules where id = %s", [id]).fetchone()
    assert row is not None
    return row[0]  # type: ignore[no-any-return]  # a row of any type


def jobs(conn: Connection) -> list[str]:
    """The ids of all jobs, in the order in which a worker claims them."""
    query = "select jobs.id from jobs left join ready on ready.job_id = jobs.id order by ready.seq, jobs.execute_at"
    return [id for (id,) in conn.execute(query)]


def places(conn: Connection) -> list[tuple[str, bool]]:
    """The places of schedules, and whether each is the schedule's own."""
    return conn.execute(
        """select scheduled.schedule_id, coalesce((schedules.place, schedules.place_at) = (scheduled.seq, scheduled.execute_at), false)
             from scheduled left join schedules on schedules.id = scheduled.schedule_id
            where scheduled.schedule_id is not null order by 1, scheduled.seq"""
    ).fetchall()
