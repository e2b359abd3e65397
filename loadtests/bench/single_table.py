"""A simple queue: one table with a partial index on its status. The bench's charts compare pgjobq with it."""

from __future__ import annotations

from typing import Any

import psycopg

Connection = psycopg.Connection[Any]

TABLE = """
    create table single_table (
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
    create index single_table_pending on single_table (priority desc, id) where status = 'pending';
"""
FILL = (
    "insert into single_table (type, data) select 'noop', jsonb_build_object('n', n) from generate_series(1, %s) as n"
)
CLAIM = """
    with next as materialized (
      select id from single_table
       where status = 'pending'
       order by priority desc, id
       limit %s
         for update skip locked)
    update single_table
       set status = 'running', attempts = attempts + 1, started_at = statement_timestamp()
      from next
     where single_table.id = next.id
    returning single_table.id, single_table.type, single_table.data, single_table.attempts
"""
COMPLETE = """
    update single_table set status = 'completed', finished_at = statement_timestamp()
     where id = any (%s) and status = 'running'
"""


def create(conn: Connection, jobs: int) -> None:
    """Create the table, fill it, and analyse it."""
    conn.execute(TABLE)
    conn.execute(FILL, [jobs])
    conn.execute("vacuum analyze single_table")


def claim(conn: Connection, batch: int) -> list[int]:
    """Set up to `batch` jobs to running, and return their ids."""
    return [row[0] for row in conn.execute(CLAIM, [batch], prepare=True)]


def complete(conn: Connection, ids: list[int]) -> None:
    """Complete these jobs."""
    conn.execute(COMPLETE, [ids], prepare=True)
