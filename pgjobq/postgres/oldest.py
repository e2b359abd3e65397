"""The oldest due job of each queue, and why it is not running, in the words of `pgjobq check`."""

from __future__ import annotations

import psycopg
from psycopg import sql

from pgjobq.postgres.pool import Connection

QUEUES = 5  # how many queues to name; for the others, call oldest_jobs
TIMEOUT = 10.0  # seconds


def oldest_due(conn: Connection, schema: str) -> str | None:
    """Return a sentence for each queue whose oldest due job has waited longest, or None if no due job is waiting."""
    query = sql.SQL(
        """
        select format('queue %%s, job %%s, due for %%s s: %%s', queue, job_id,
                      round(extract(epoch from clock_timestamp() - due_at)), why)
          from {}(%s)
        """
    ).format(sql.Identifier(schema, "oldest_jobs"))
    try:
        with conn.transaction():
            conn.execute(f"set local statement_timeout = '{TIMEOUT * 1000:.0f}ms'")
            found = [told for (told,) in conn.execute(query, [QUEUES + 1])]
    except psycopg.errors.QueryCanceled:
        return f"unknown, because they could not be read within {TIMEOUT:.0f} seconds"
    more = ["more queues have due jobs; see oldest_jobs"] if len(found) > QUEUES else []
    return " ".join(found[:QUEUES] + more) or None
