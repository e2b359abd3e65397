"""Shorthands for calls of the SQL functions."""

from __future__ import annotations

from typing import Any

import psycopg

from helpers.until import until

Connection = psycopg.Connection[Any]


def one(conn: Connection, query: str, *arguments: Any) -> Any:
    """Return the first column of the first row."""
    row = conn.execute(query, arguments).fetchone()
    assert row is not None
    return row[0]


def register(conn: Connection, **options: Any) -> int:
    """Register a worker on this connection and return its id."""
    names = "".join(f", {name} => %s" for name in options)
    return int(one(conn, f"select register_worker('w'{names})", *options.values()))


def enqueue(conn: Connection, jobs: int, name: str = "j", queue: str = "default") -> list[str]:
    """Enqueue this number of jobs, and return their ids in order."""
    ids = [f"{name}{n:06}" for n in range(jobs)]
    conn.execute("select enqueue_jobs(%s, queues => %s, job_ids => %s)", [["t"] * jobs, [queue] * jobs, ids])
    return ids


def claim(conn: Connection, worker: int, jobs: int = 1, queues: list[str] | None = None) -> list[str]:
    """Claim up to this number of jobs, and return their ids in order."""
    return [row[0] for row in conn.execute("select id from claim_jobs(%s, %s, %s)", [worker, queues, jobs])]


def end(session: Connection, watcher: Connection) -> None:
    """Close a session and wait until the server has noticed. The server releases the locks when the backend ends."""
    pid = session.info.backend_pid
    session.close()
    until(
        lambda: watcher.execute("select count(*) from pg_stat_activity where pid = %s", [pid]).fetchone() == (0,),
        seconds=30,
    )
