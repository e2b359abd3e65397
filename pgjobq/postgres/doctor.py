"""The checks of `pgjobq check`: each looks for one cause that keeps jobs from running, and names the remedy."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from pgjobq.errors import NotMigrated, SchemaTooNew
from pgjobq.postgres.errors import translated
from pgjobq.postgres.oldest import oldest_due
from pgjobq.postgres.pool import Connection, parameters
from pgjobq.postgres.schema import check_schema, command_for, migrate_command, newest_version
from pgjobq.postgres.script import sql_dir

OLD_SNAPSHOT = 60.0  # seconds; vacuum cannot remove the dead rows behind an older snapshot
HEARD_WITHIN = 2.0  # seconds to wait for a notification
MISPLACED = 1000  # jobs; counting stops here
LOOKED_WITHIN = 10.0  # seconds; time limit of the scan of all jobs


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def examine(conninfo: str, schema: str) -> list[Finding]:
    """Check a database. Raises StorageUnavailable when it does not answer, StorageError for a user without a role.

    If the check of the server or the schema fails, that is the only finding.
    """
    connect = parameters(conninfo, "pgjobq check")
    with translated(), psycopg.connect(**connect, autocommit=True) as conn:
        for found in (server := _server(conn), current := _schema(conn, schema)):
            if not found.ok:
                return [found]
        with psycopg.connect(**connect, autocommit=True) as other:
            heard = _listen(conn, other)
        return [
            server,
            current,
            heard,
            _queue_usage(conn),
            _oldest_snapshot(conn),
            _publications(conn, schema),
            _triggers(conn, schema),
            _misplaced(conn, schema),
            _pauses(conn, schema),
            _unserved(conn, schema),
            _unserved_types(conn, schema),
            _oldest(conn, schema),
        ]


def _server(conn: Connection) -> Finding:
    try:
        with conn.transaction():
            conn.execute("set local search_path = pg_catalog, pg_temp")
            conn.execute((sql_dir() / "server.sql").read_bytes())
    except (psycopg.NotSupportedError, psycopg.errors.ReadOnlySqlTransaction) as error:
        told = error.diag
        return Finding(name="server", ok=False, detail=told.message_primary or "", remedy=told.message_hint or "")
    version = conn.execute("select current_setting('server_version')").fetchone()
    return Finding(name="server", ok=True, detail=f"PostgreSQL {version and version[0]}, writable")


def _schema(conn: Connection, schema: str) -> Finding:
    try:
        check_schema(conn, schema)
    except NotMigrated as error:
        return Finding(name="schema", ok=False, detail=str(error), remedy=f"Run: {migrate_command(schema)}")
    except SchemaTooNew as error:
        remedy = "Upgrade pgjobq to the version that migrated the schema, or to a later one."
        return Finding(name="schema", ok=False, detail=str(error), remedy=remedy)
    return Finding(name="schema", ok=True, detail=f"{schema} is at version {newest_version()}")


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
        remedy="Behind a transaction pooler, start workers with --pooled and with --listen-dsn and a direct DSN.",
    )


def _queue_usage(conn: Connection) -> Finding:
    usage = float(_row(conn, "select pg_notification_queue_usage()")[0])
    return Finding(
        name="notification queue",
        ok=usage < 0.5,
        detail=f"{usage:.0%} full",
        remedy="A listening session is in a long transaction. End it, because NOTIFY fails when the queue is full.",
    )


def _oldest_snapshot(conn: Connection) -> Finding:
    # Sessions, replication slots and prepared transactions can all keep vacuum from removing dead rows.
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
        sees_all = _row(conn, "select pg_has_role('pg_read_all_stats', 'usage')")[0]
        detail = (
            "no snapshot is older than a minute"
            if sees_all
            else "no snapshot of this user is older than a minute; grant pg_read_all_stats to see those of other users"
        )
        return Finding(name="oldest snapshot", ok=True, detail=detail)
    age = "for an unknown time" if row[1] == float("inf") else f"for {row[1]:.0f} seconds"
    return Finding(
        name="oldest snapshot",
        ok=False,
        detail=f"{row[0]}, held {age}",
        remedy="Vacuum cannot remove dead rows. End the transaction (pg_terminate_backend) or drop the slot.",
    )


def _publications(conn: Connection, schema: str) -> Finding:
    # PostgreSQL refuses to update or delete a row that it publishes and cannot identify.
    tables = _row(
        conn,
        """
        select array_agg(distinct published.tablename::text)
          from pg_publication_tables as published
          join pg_publication using (pubname)
          join pg_class on pg_class.relname = published.tablename
                       and pg_class.relnamespace = to_regnamespace(quote_ident(schemaname))
         where schemaname = %s
           and (pubupdate or pubdelete)
           and relreplident <> 'f'
           and not exists (select from pg_index
                            where indrelid = pg_class.oid
                              and case relreplident when 'd' then indisprimary when 'i' then indisreplident end)
        """,
        [schema],
    )[0]
    statements = [
        sql.SQL("alter table {} replica identity full").format(sql.Identifier(schema, table)).as_string(None)
        for table in tables or []
    ]
    return Finding(
        name="publications",
        ok=not statements,
        detail=f"tables published without a replica identity, so jobs cannot be claimed or settled: {', '.join(tables)}"
        if tables
        else "every published table has a replica identity",
        remedy=f"Run: {'; '.join(statements)}; or remove the tables from the publication.",
    )


def _triggers(conn: Connection, schema: str) -> Finding:
    # An interrupted restore with --disable-triggers leaves the triggers disabled for all sessions.
    query = """
        select string_agg(wanted.name, ', ' order by wanted.name)
          from unnest(array['jobs_inserted', 'jobs_updated']) as wanted (name)
         where not exists (select from pg_trigger
                            where tgrelid = to_regclass(%s) and tgname = wanted.name and tgenabled in ('O', 'A'))
    """
    off = _row(conn, query, [sql.Identifier(schema, "jobs").as_string(None)])[0]
    return Finding(
        name="triggers",
        ok=off is None,
        detail="the triggers of the table jobs are enabled"
        if off is None
        else f"missing or disabled triggers, so new jobs get no place in line: {off}",
        remedy=f"Run: {migrate_command(schema)}; then {command_for('repair', schema)}",
    )


def _misplaced(conn: Connection, schema: str) -> Finding:
    query = sql.SQL(
        "select count(*) filter (where status = 'pending'), count(*) filter (where status = 'running') from {}(%s)"
    ).format(sql.Identifier(schema, "misplaced_jobs"))
    name, remedy = "misplaced jobs", f"Run: {command_for('repair', schema)}"
    try:
        with conn.transaction():
            conn.execute(f"set local statement_timeout = '{LOOKED_WITHIN * 1000:.0f}ms'")
            pending, running = _row(conn, query, [MISPLACED])
    except psycopg.errors.QueryCanceled:
        detail = (
            f"unknown, because the table jobs could not be read within {LOOKED_WITHIN:.0f} seconds; repair reads all"
        )
        return Finding(name=name, ok=True, detail=detail, remedy=remedy)
    if not pending + running:
        return Finding(name=name, ok=True, detail="every pending job has a place in line, every running job a claim")
    most = "at least " if pending + running == MISPLACED else ""
    return Finding(
        name=name,
        ok=False,
        detail=f"{most}{pending} pending jobs without a place in line, {running} running jobs without a claim",
        remedy=remedy,
    )


def _pauses(conn: Connection, schema: str) -> Finding:
    # No fault, but jobs that wait because of it look like jobs that nothing takes.
    query = sql.SQL(
        """
        select string_agg(format('%s %s by %s%s%s', kind, name, paused_by, ' until ' || paused_until, ': ' || reason),
                          '; ' order by kind, name)
          from (select 'queue' as kind, name, paused_by, paused_until, reason from {queues} where paused
                union all
                select 'type', type, paused_by, paused_until, reason from {types}) as pause
        """
    ).format(queues=sql.Identifier(schema, "queues"), types=sql.Identifier(schema, "paused_types"))
    paused = _row(conn, query)[0]
    return Finding(name="pauses", ok=True, detail="nothing is paused" if paused is None else f"paused: {paused}")


def _unserved(conn: Connection, schema: str) -> Finding:
    query = sql.SQL(
        """
        select string_agg(distinct format('%s (%s)', queue, jobs), ', ')
          from {stats}
         where status = 'pending'
           and oldest_due_age is not null
           and not exists (select from {queues} as queues where queues.paused and queues.name = stats.queue)
           and not exists (select from {workers} as worker
                            where worker.alive and (worker.queues is null or stats.queue = any (worker.queues)))
        """
    ).format(stats=sql.SQL("{} as stats").format(sql.Identifier(schema, "job_stats")),
             workers=sql.Identifier(schema, "worker_status"), queues=sql.Identifier(schema, "queues"))  # fmt: skip
    queues = _row(conn, query)[0]
    return Finding(
        name="unserved queues",
        ok=queues is None,
        detail="every queue with due jobs has a worker" if queues is None else f"due jobs without a worker: {queues}",
        remedy="Start a worker: pgjobq worker MODULE --queues NAME",
    )


def _unserved_types(conn: Connection, schema: str) -> Finding:
    # _unserved reports the queues that no worker serves, so this check leaves them out.
    query = sql.SQL(
        """
        select string_agg(format('%s (%s in %s)', type, jobs, queue), ', ' order by type, queue)
          from {types}() as unserved
         where exists (select from {workers} as worker
                        where worker.alive and (worker.queues is null or unserved.queue = any (worker.queues)))
        """
    ).format(types=sql.Identifier(schema, "unserved_types"), workers=sql.Identifier(schema, "worker_status"))
    types = _row(conn, query)[0]
    return Finding(
        name="unserved types",
        ok=types is None,
        detail="some worker takes every type of the due jobs"
        if types is None
        else f"due jobs of types that no worker takes: {types}",
        remedy="Start a worker with a module that has handlers for these types, or cancel the jobs.",
    )


def _oldest(conn: Connection, schema: str) -> Finding:
    # A job that waits is no fault in itself; the other checks report the faults that make it wait.
    waiting = oldest_due(conn, schema)
    return Finding(name="oldest jobs", ok=True, detail="no due job is waiting" if waiting is None else waiting)


def _row(conn: Connection, query: Any, arguments: list[Any] | None = None) -> Any:
    return conn.execute(query, arguments).fetchone()
