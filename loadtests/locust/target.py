"""The database under test: the checks before a load test, its table, and the removal of everything it creates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

PREFIX = "loadtest"
BUSINESS = "pgjobq_loadtest"  # the schema of the business table
CLEAN_BATCH = 5000  # jobs deleted in one transaction

Connection = psycopg.Connection[Any]


class Refused(Exception):
    """The load test cannot run on this database. The message names the reason and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """The database, schema and queue under test. An empty dsn means libpq's environment variables."""

    dsn: str
    schema: str
    queue: str

    def __post_init__(self) -> None:
        if not self.queue.startswith(PREFIX):
            raise Refused(f"queue: {self.queue!r} may contain other jobs; use a name that begins with {PREFIX!r}")
        if self.schema == BUSINESS:
            raise Refused(f"schema: {BUSINESS} is reserved for the load test; install pgjobq in another schema")

    def connect(self) -> Connection:
        """Open a connection in autocommit mode."""
        conn: Connection = psycopg.connect(
            self.dsn, autocommit=True, application_name="pgjobq load test", connect_timeout=10
        )
        return conn

    def sql(self, statement: LiteralString) -> sql.Composed:
        """Return the statement with pgjobq's schema in place of {}."""
        return sql.SQL(statement).format(sql.Identifier(self.schema))

    def place(self) -> str:
        """Return host, port and database, without the password."""
        parts = conninfo_to_dict(self.dsn)
        return f"{parts.get('host', 'localhost')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"


def prepare(target: Target) -> list[str]:
    """Check that a load test may run, and create its table. Return notes for the user, or raise Refused."""
    try:
        with target.connect() as conn:
            _check(conn, target)
            _lay_table(conn, target)
            served = workers(conn, target)
    except psycopg.OperationalError as error:
        raise Refused(f"{target.place()} cannot be reached: {str(error).strip().splitlines()[-1]}") from error
    except psycopg.errors.InsufficientPrivilege as error:
        message = f"{error.diag.message_primary}; connect as the role that ran `pgjobq migrate` and may create a schema"
        raise Refused(message) from error
    return [] if served else [no_worker(target)]


def workers(conn: Connection, target: Target) -> int:
    """Return how many live workers serve the queue."""
    query = "select count(*) from {}.worker_status where alive and (queues is null or %s = any (queues))"
    return _count(conn, target, query, [target.queue])


def no_worker(target: Target) -> str:
    """Return the message for a queue without workers."""
    return (
        f"no worker serves the queue {target.queue}; in the folder loadtests/locust, "
        f"run: pgjobq worker handlers --queues {target.queue}"
    )


def unfinished(conn: Connection, target: Target) -> int:
    """Return how many jobs of the queue are pending or running."""
    query = (
        "select coalesce(sum(jobs), 0)::bigint from {}.job_stats where queue = %s and status in ('pending', 'running')"
    )
    return _count(conn, target, query, [target.queue])


def clean(target: Target) -> int:
    """Remove the jobs of this queue, their places and the load test's table. Return the number of jobs.

    Each batch is a separate transaction. The queue's workers must have stopped.
    """
    with target.connect() as conn:
        _check_installed(conn, target)
        ids = [row[0] for row in conn.execute(target.sql("select id from {}.jobs where queue = %s"), [target.queue])]
        for start in range(0, len(ids), CLEAN_BATCH):
            batch = ids[start : start + CLEAN_BATCH]
            conn.execute(target.sql("delete from {}.jobs where id = any (%s)"), [batch])
        for place in ("ready", "scheduled"):
            statement = sql.SQL("delete from {}.{} where queue = %s")
            conn.execute(statement.format(sql.Identifier(target.schema), sql.Identifier(place)), [target.queue])
        conn.execute(sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(BUSINESS)))
    return len(ids)


def _check(conn: Connection, target: Target) -> None:
    _check_installed(conn, target)
    # A worker for all queues would also claim the jobs of the load test.
    everything = conn.execute(
        target.sql("select name from {}.worker_status where alive and queues is null limit 1")
    ).fetchone()
    if everything is not None:
        raise Refused(
            f"the worker {everything[0]} serves all queues, and would claim the load test's jobs; "
            f"start it with --queues, or install pgjobq in another schema for the load test"
        )
    if left := unfinished(conn, target):
        raise Refused(
            f"the queue {target.queue} has {left:,} unfinished jobs of an earlier load test; "
            f"remove them with --clean, or let a worker finish them"
        )


def _check_installed(conn: Connection, target: Target) -> None:
    installed = conn.execute("select to_regclass(format('%%I.jobs', %s::text)) is not null", [target.schema]).fetchone()
    if installed != (True,):
        raise Refused(
            f"{target.place()}: pgjobq is not installed in the schema {target.schema}; "
            f"run: pgjobq migrate --schema {target.schema}"
        )


def _lay_table(conn: Connection, target: Target) -> None:
    with conn.transaction():
        conn.execute(target.sql("lock table {}.jobs in row exclusive mode"))  # checks the right that COPY needs
        for statement in _TABLE:
            conn.execute(target.sql(statement))


def _count(conn: Connection, target: Target, query: LiteralString, arguments: list[Any]) -> int:
    row = conn.execute(target.sql(query), arguments).fetchone()
    assert row is not None  # an aggregate always returns a row
    return int(row[0])


_TABLE: tuple[LiteralString, ...] = (
    "create schema if not exists pgjobq_loadtest",
    """create table if not exists pgjobq_loadtest.orders (
         id        bigint      generated always as identity primary key,
         email     text        not null,
         queue     text        not null,
         invoices  integer     not null default 0,
         placed_at timestamptz not null default now()
       ) with (fillfactor = 50)""",
    """create or replace function pgjobq_loadtest.enqueue_invoice() returns trigger language plpgsql as $$
       begin
         perform {}.enqueue_job('loadtest.invoice', jsonb_build_object('order_id', new.id), queue => new.queue);
         return null;
       end;
       $$""",
    """create or replace trigger orders_enqueue_invoice
         after insert on pgjobq_loadtest.orders
         for each row execute function pgjobq_loadtest.enqueue_invoice()""",
)
