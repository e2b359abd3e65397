"""`pgjobq check`: what would keep jobs from running, each with its mend."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from pgjobq.errors import StorageError
from pgjobq.postgres.errors import translated
from pgjobq.postgres.pool import Connection, parameters
from pgjobq.postgres.schema import check_schema, newest_version

OLD_SNAPSHOT = 60.0  # seconds; older ones keep dead rows from being cleaned away
HEARD_WITHIN = 2.0  # seconds for a notification to come


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing looked at."""

    name: str
    ok: bool
    detail: str
    mend: str = ""


def examine(conninfo: str, schema: str) -> list[Finding]:
    """Look at a database. Raises StorageUnavailable when there is no answer; everything else is a finding."""
    connect = parameters(conninfo, "pgjobq check")
    with translated(), psycopg.connect(**connect, autocommit=True) as conn:
        try:
            check_schema(conn, schema)
        except StorageError as error:
            return [Finding(name="schema", ok=False, detail=str(error), mend="Run: pgjobq migrate")]
        current = Finding(name="schema", ok=True, detail=f"{schema} is at version {newest_version()}")
        with psycopg.connect(**connect, autocommit=True) as other:
            heard = _listen(conn, other)
        return [current, heard, _queue_usage(conn), _oldest_snapshot(conn), _unserved(conn, schema)]


def _listen(conn: Connection, other: Connection) -> Finding:
    channel = f"pgjobq check {os.getpid()}"
    conn.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
    other.execute("select pg_notify(%s, '')", [channel])
    heard = any(True for _ in conn.notifies(timeout=HEARD_WITHIN, stop_after=1))
    conn.execute("unlisten *")
    return Finding(
        name="listen",
        ok=heard,
        detail="a notification was heard" if heard else f"no notification came within {HEARD_WITHIN:.0f} seconds",
        mend="Behind a transaction pooler, give workers --pooled and --listen-dsn with a direct DSN.",
    )


def _queue_usage(conn: Connection) -> Finding:
    usage = float(_row(conn, "select pg_notification_queue_usage()")[0])
    return Finding(
        name="notification queue",
        ok=usage < 0.5,
        detail=f"{usage:.0%} full",
        mend="A session that listens sits in a long transaction: end it, or NOTIFY will fail when the queue is full.",
    )


def _oldest_snapshot(conn: Connection) -> Finding:
    # Sessions, replication slots and prepared transactions all hold back the cleaning of dead rows.
    row = _row(
        conn,
        """
        select holder, seconds
          from (select format('session %s of %s (%s, %s)', pid, usename, application_name, state) as holder,
                       extract(epoch from clock_timestamp() - xact_start)::float8 as seconds
                  from pg_stat_activity
                 where backend_xmin is not null and pid <> pg_backend_pid()
                union all
                select format('prepared transaction %L', gid), extract(epoch from clock_timestamp() - prepared)::float8
                  from pg_prepared_xacts
                union all
                select format('inactive replication slot %s', slot_name), 'infinity'
                  from pg_replication_slots
                 where not active and (xmin is not null or catalog_xmin is not null)) as held
         order by seconds desc nulls last
         limit 1
        """,
    )
    if row is None or row[1] is None or row[1] < OLD_SNAPSHOT:
        return Finding(name="oldest snapshot", ok=True, detail="none is older than a minute")
    age = "for ever" if row[1] == float("inf") else f"{row[1]:.0f} seconds"
    return Finding(
        name="oldest snapshot",
        ok=False,
        detail=f"{row[0]}, held {age}",
        mend="Dead rows pile up behind it: end the transaction (pg_terminate_backend), or drop the slot.",
    )


def _unserved(conn: Connection, schema: str) -> Finding:
    query = sql.SQL(
        """
        select string_agg(distinct format('%s (%s)', queue, jobs), ', ')
          from {stats}
         where status = 'pending'
           and oldest_due_age is not null
           and not exists (select from {workers} as worker
                            where worker.alive and (worker.queues is null or stats.queue = any (worker.queues)))
        """
    ).format(stats=sql.SQL("{} as stats").format(sql.Identifier(schema, "job_stats")),
             workers=sql.Identifier(schema, "worker_status"))  # fmt: skip
    queues = _row(conn, query)[0]
    return Finding(
        name="unserved queues",
        ok=queues is None,
        detail="every queue with due jobs has a worker" if queues is None else f"due jobs without a worker: {queues}",
        mend="Start one: pgjobq worker MODULE --queues NAME",
    )


def _row(conn: Connection, query: Any) -> Any:
    return conn.execute(query).fetchone()
