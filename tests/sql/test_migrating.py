"""Migrating a busy queue: tables are locked only for a real change, and each lock is awaited for half a second."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from helpers.until import until
from psycopg.conninfo import make_conninfo

from pgjobq import StorageError
from pgjobq.devserver import DevServer, find_bindir
from pgjobq.postgres.schema import migrate, newest_version
from pgjobq.postgres.script import sql_dir

Connection = psycopg.Connection[Any]

# Every change of these rows would have locked a table.
LOCKING = """
select 'trigger', tgname, pg_trigger.xmin::text, tgenabled::text from pg_trigger where tgrelid = 'pgjobq.jobs'::regclass
union all
select 'view', ev_class::regclass::text, pg_rewrite.xmin::text, null
  from pg_rewrite join pg_class on pg_class.oid = ev_class where relnamespace = 'pgjobq'::regnamespace
union all
select 'comment', objoid::regclass::text || objsubid, pg_description.xmin::text, description
  from pg_description join pg_class on pg_class.oid = objoid
 where classoid = 'pg_class'::regclass and relnamespace = 'pgjobq'::regnamespace
order by 1, 2
"""
# What people do in a transaction that they leave open, and commands that run for a long time.
AT_WORK = {
    "enqueue": "select enqueue_job('t')",
    "insert": "insert into jobs (type) values ('t')",
    "claim": "select * from claim_jobs(register_worker('w'))",
    "cancel": "update jobs set status = 'cancelled'",
    "stats": "select * from job_stats, worker_status",
    "vacuum": "lock table jobs, ready, claims, workers, schema_version in share update exclusive mode",
    "index": "lock table jobs, ready in share mode",
}


def psql(dsn: str) -> None:
    """Install with psql alone."""
    command = [str(find_bindir() / "psql"), dsn, "--quiet", "--file", str(sql_dir() / "install.sql")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def python(dsn: str) -> None:
    """Install with Python, without patience for locks."""
    migrate(dsn, patience=0)


def drop_triggers(conn: Connection) -> None:
    """Drop both triggers, so that migrate must lock jobs to create them."""
    conn.execute("drop trigger jobs_inserted on jobs; drop trigger jobs_updated on jobs")


@pytest.mark.parametrize("install", [python, psql])
@pytest.mark.parametrize("statement", AT_WORK.values(), ids=AT_WORK)
def test_up_to_date_database_is_migrated_beside_open_transactions(
    dsn: str, connect: Callable[..., Connection], install: Callable[[str], None], statement: str
) -> None:
    before = connect().execute(LOCKING).fetchall()
    held = connect(autocommit=False)
    held.execute("select enqueue_job('t')")
    held.commit()
    held.execute(statement)
    install(dsn)
    held.rollback()
    assert connect().execute(LOCKING).fetchall() == before


def test_no_enqueue_waits_long_for_a_migration_that_must_lock(dsn: str, connect: Callable[..., Connection]) -> None:
    held, conn = connect(autocommit=False), connect()
    drop_triggers(conn)
    held.execute("set application_name = 'report'")
    held.execute("select enqueue_job('t')")
    waits: list[float] = []
    with ThreadPoolExecutor(1) as pool:
        migration = pool.submit(migrate, dsn, patience=3)
        while not migration.done():
            began = time.monotonic()
            conn.execute("select enqueue_job('t')")
            waits.append(time.monotonic() - began)
    assert 0.3 < max(waits) < 1, "an enqueue must wait for the migration, but not for long"
    message = str(migration.exception())
    assert isinstance(migration.exception(), StorageError)
    assert (
        f"in use by session {held.info.backend_pid} of {held.info.user} (report, idle in transaction), since" in message
    )
    assert "pg_terminate_backend" in message
    assert conn.execute("select count(*) from pg_trigger where tgrelid = 'jobs'::regclass").fetchone() == (0,)
    held.rollback()
    migrate(dsn, patience=0)
    assert conn.execute("select count(*) from pg_trigger where tgrelid = 'jobs'::regclass").fetchone() == (2,)


def test_migration_continues_when_the_table_is_unlocked(dsn: str, connect: Callable[..., Connection]) -> None:
    held, conn = connect(autocommit=False), connect()
    drop_triggers(conn)
    held.execute("select enqueue_job('t')")
    tries: set[Any] = set()
    query = (
        "select xact_start from pg_stat_activity where application_name = 'pgjobq migrate' and wait_event_type = 'Lock'"
    )
    with ThreadPoolExecutor(1) as pool:
        migration: Future[Any] = pool.submit(migrate, dsn)
        while len(tries) < 2 and not migration.done():
            tries.update(conn.execute(query).fetchall())
        held.commit()
        assert migration.result().notices == []
    assert conn.execute("select count(*) from pg_trigger where tgrelid = 'jobs'::regclass").fetchone() == (2,)


def test_blocking_prepared_transaction_is_named() -> None:
    with DevServer(settings={"max_prepared_transactions": "2"}) as server:
        migrate(server.dsn)
        with psycopg.connect(server.dsn, autocommit=True, options="-c search_path=pgjobq") as conn:
            drop_triggers(conn)
            conn.execute("begin; insert into jobs (type) values ('t'); prepare transaction 'order 7'")
            with pytest.raises(StorageError, match="in use by prepared transaction 'order 7'; end"):
                migrate(server.dsn, patience=0)
            conn.execute("rollback prepared 'order 7'")


def test_autovacuum_gives_way_to_a_migration() -> None:
    settings = {
        "autovacuum_naptime": "1s",
        "autovacuum_vacuum_cost_delay": "100ms",
        "autovacuum_vacuum_cost_limit": "1",
    }
    with DevServer(settings=settings) as server, psycopg.connect(server.dsn, autocommit=True) as conn:
        migrate(server.dsn)
        conn.execute("set search_path = pgjobq")
        conn.execute("alter table jobs set (autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0)")
        conn.execute("insert into jobs (type) select 't' from generate_series(1, 5000)")
        conn.execute("delete from jobs")
        drop_triggers(conn)
        at_work = "select pid from pg_stat_progress_vacuum where relid = 'jobs'::regclass"
        vacuum = until(lambda: conn.execute(at_work).fetchone(), seconds=60, pause=0.001)
        migrate(server.dsn, patience=0)
        assert conn.execute(at_work).fetchone() != vacuum


@pytest.mark.parametrize(
    "change",
    [
        "drop trigger jobs_updated on jobs",
        "alter table jobs disable trigger jobs_inserted",
        "create or replace trigger jobs_updated after update on jobs for each row execute function place_changed_job()",
        "create or replace view job_stats as select queue, status::text, 1::bigint as jobs, true as estimated, null::interval as oldest_due_age from jobs",
        "comment on view worker_status is 'mine'",
        "comment on column jobs.id is 'mine'",
        "drop view worker_status",
    ],
)
@pytest.mark.parametrize("install", [python, psql])
def test_migration_restores_changed_objects(
    dsn: str, connect: Callable[..., Connection], install: Callable[[str], None], change: str
) -> None:
    conn = connect()
    query = """
        select pg_get_viewdef('job_stats'::regclass), pg_get_viewdef('worker_status'::regclass),
               obj_description('worker_status'::regclass), col_description('jobs'::regclass, 1),
               array(select format('%s %s', pg_get_triggerdef(oid), tgenabled) from pg_trigger
                      where tgrelid = 'jobs'::regclass order by tgname),
               has_table_privilege('pgjobq_read', 'worker_status', 'select')
    """
    before = conn.execute(query).fetchall()
    conn.execute(change.encode())
    install(dsn)
    assert conn.execute(query).fetchall() == before


def test_trigger_that_a_user_set_to_fire_always_is_kept(dsn: str, connect: Callable[..., Connection]) -> None:
    conn = connect()
    conn.execute("alter table jobs enable always trigger jobs_inserted")
    before = conn.execute(LOCKING).fetchall()
    migrate(dsn)
    assert conn.execute(LOCKING).fetchall() == before


def test_installer_needs_no_right_to_create_temporary_tables(empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        conn.execute("create role pgjobq_test_plain")
        try:
            conn.execute(f"revoke temporary on database {conn.info.dbname} from public")
            conn.execute("create schema pgjobq authorization pgjobq_test_plain")
            for _ in range(2):
                migrate(make_conninfo(empty_dsn, options="-c role=pgjobq_test_plain"))
            assert conn.execute("select * from pgjobq.job_stats").fetchall() == []
        finally:
            conn.execute("drop owned by pgjobq_test_plain cascade; drop role pgjobq_test_plain")


def test_settings_of_the_database_do_not_affect_the_installation(empty_dsn: str) -> None:
    settings = {
        "default_transaction_isolation": "serializable",
        "quote_all_identifiers": "on",
        "search_path": "nowhere",
        "standard_conforming_strings": "off",
        "client_min_messages": "error",
    }
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        for name, value in settings.items():
            conn.execute(f"alter database {conn.info.dbname} set {name} = '{value}'")
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: migrate(empty_dsn), range(4)))
        before = conn.execute(LOCKING).fetchall()
        migrate(empty_dsn)
        assert conn.execute(LOCKING).fetchall() == before
        assert conn.execute("select count(*) from pgjobq.schema_version").fetchone() == (newest_version(),)


def test_migration_waits_for_another_installer(dsn: str, connect: Callable[..., Connection]) -> None:
    held = connect(autocommit=False)
    held.execute("select pg_advisory_xact_lock(hashtext('pgjobq install'), hashtext('pgjobq'))")
    ended = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        hasty = make_conninfo(dsn, options="-c statement_timeout=400 -c lock_timeout=400")
        migration = pool.submit(migrate, hasty, patience=0)
        migration.add_done_callback(lambda _: ended.set())
        assert not ended.wait(0.8), "the migration must wait, because this lock blocks no enqueue"
        held.commit()
        assert migration.result().notices == []
