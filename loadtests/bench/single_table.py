"""The queue that many write first: one table, a partial index on its status. Drawn beside pgjobq by the bench."""

from __future__ import annotations

from typing import Any

import psycopg

Connection = psycopg.Connection[Any]

TABLE = """
    create table naive (
      id          bigint generated always as identity primary key,
      type        text not null,
      data        jsonb not null default '{}',
      status      text not null default 'pending',
      priority    integer not null default 5,
      attempts    integer not null default 0,
      created_at  timestamptz not null default now(),
      started_at  timestamptz,
      finished_at timestamptz
    );
    create index naive_pending on naive (priority desc, id) where status = 'pending';
"""
FILL = "insert into naive (type, data) select 'noop', jsonb_build_object('n', n) from generate_series(1, %s) as n"
CLAIM = """
    with next as materialized (
      select id from naive
       where status = 'pending'
       order by priority desc, id
       limit %s
         for update skip locked)
    update naive
       set status = 'running', attempts = attempts + 1, started_at = statement_timestamp()
      from next
     where naive.id = next.id
    returning naive.id, naive.type, naive.data, naive.attempts
"""
COMPLETE = """
    update naive set status = 'completed', finished_at = statement_timestamp()
     where id = any (%s) and status = 'running'
"""


def create(conn: Connection, jobs: int) -> None:
    """The table, filled and analysed, and the statistics that it would have in use."""
    conn.execute(TABLE)
    conn.execute(FILL, [jobs])
    conn.execute("vacuum analyze naive")


def claim(conn: Connection, batch: int) -> list[int]:
    """The ids of up to that many jobs, which now run."""
    return [row[0] for row in conn.execute(CLAIM, [batch], prepare=True)]


def complete(conn: Connection, ids: list[int]) -> None:
    """They are done."""
    conn.execute(COMPLETE, [ids], prepare=True)
