"""Plans: what runs hot walks its index, on tables that are huge, new, or described by wrong statistics."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgjobq.postgres.schema import migrate

Connection = psycopg.Connection[Any]

FINISHED, FUTURE = 1_000_000, 200_000


@pytest.fixture(scope="module")
def big(pg_server: Any) -> Iterator[Connection]:
    """A database with a million finished jobs and 200,000 scheduled ones."""
    admin = make_conninfo(host=pg_server.host, port=pg_server.port, user=pg_server.user, password=pg_server.password)
    name = "pgjobq_big"
    with psycopg.connect(admin, dbname=pg_server.maintenance_dbname, autocommit=True) as server:
        server.execute(f"drop database if exists {name} with (force)")
        server.execute(f"create database {name}")
        dsn = make_conninfo(admin, dbname=name)
        migrate(dsn)
        with psycopg.connect(dsn, autocommit=True, options="-c search_path=pgjobq") as conn:
            conn.execute(
                f"""insert into jobs (id, type, status, created_at, finished_at, attempts)
                    select 'done-' || n, 't', 'completed', now() - interval '30 days' + n * interval '1 s',
                           now() - interval '20 days', 1
                      from generate_series(1, {FINISHED}) as n"""
            )
            conn.execute(
                f"""insert into jobs (id, type, execute_at)
                    select 'future-' || n, 't', now() + interval '1 day' from generate_series(1, {FUTURE}) as n"""
            )
            conn.execute("vacuum analyze")
            yield conn
        server.execute(f"drop database if exists {name} with (force)")


def plans_of(conn: Connection, query: str) -> str:
    """The plans of all statements that a call runs, as auto_explain logs them, with actual rows."""
    logged: list[str] = []

    def note(notice: psycopg.errors.Diagnostic) -> None:
        logged.append(notice.message_primary or "")

    conn.add_notice_handler(note)
    try:
        conn.execute("load 'auto_explain'")
        for setting in ("log_min_duration = 0", "log_nested_statements = on", "log_analyze = on", "log_buffers = on"):
            conn.execute(f"set auto_explain.{setting}")
        conn.execute("set client_min_messages = log")
        conn.execute(query)
    finally:
        conn.execute("reset client_min_messages")
        conn.execute("set auto_explain.log_min_duration = -1")
        conn.remove_notice_handler(note)
    text = "\n".join(logged)
    assert "Query Text" in text, "auto_explain logged nothing"
    return text


def pages_read(plan: str) -> int:
    """Buffers touched, the largest count of any node."""
    counts = [sum(map(int, re.findall(r"(?:hit|read)=(\d+)", line))) for line in re.findall(r"Buffers: (.*)", plan)]
    return max(counts, default=0)


def test_claim_walks_its_index(big: Connection) -> None:
    big.execute("select enqueue_jobs(array_fill('t'::text, array[300]))")
    plan = plans_of(big, "select from claim_jobs(1, '{default}', 200)")
    assert "Index Scan using ready_claim on ready" in plan
    assert "Index Scan using job_id_exists_already on jobs" in plan
    assert "Seq Scan on jobs" not in plan
    assert pages_read(plan) < 200 * 40
    big.execute("select complete_jobs(1, array(select unnest(job_ids) from claims), array_fill(1, array[200]))")


@pytest.mark.parametrize("queues", ["null", "'{default,other}'"])
def test_claims_of_many_queues_do_not_walk_what_was_taken(connect: Callable[..., Connection], queues: str) -> None:
    """Beside a long line, behind floors, and while an old snapshot keeps vacuum from what was taken."""
    conn, old = connect(), connect(autocommit=False)
    old.execute("set transaction isolation level repeatable read")
    old.execute("select count(*) from jobs")
    for queue in ("default", "other"):
        conn.execute(
            "select enqueue_jobs(array_fill('t'::text, array[12000]), queues => array_fill(%s::text, array[12000]))",
            [queue],
        )
    for _ in range(8):
        conn.execute("select from claim_jobs(1, null, 2500)")
        conn.execute("select advance_floors()")
    assert conn.execute("select count(*), min(seq) > 5000 from floors").fetchone() == (2, True)
    plan = plans_of(conn, f"select from claim_jobs(1, {queues}, 1)")
    assert pages_read(plan) < 250


def test_claim_of_nothing_touches_next_to_nothing(big: Connection) -> None:
    big.execute("select from claim_jobs(1, '{nobody}', 200)")  # reads the catalogs
    plan = plans_of(big, "select from claim_jobs(1, '{nobody}', 200)")
    assert pages_read(plan) < 60


def test_claim_past_orphans_never_scans_jobs(big: Connection) -> None:
    big.execute(
        "select enqueue_jobs(array_fill('t'::text, array[50]), queues => array_fill('orphans'::text, array[50]))"
    )
    big.execute("update jobs set status = 'cancelled', finished_at = now() where queue = 'orphans'")
    plan = plans_of(big, "select from claim_jobs(1, '{orphans}', 10)")
    assert "Seq Scan on jobs" not in plan
    assert big.execute("select count(*) from ready where queue = 'orphans'").fetchone() == (0,)


def test_settling_goes_by_the_key(big: Connection) -> None:
    big.execute("select enqueue_jobs('{t}', job_ids => '{settled}', queues => '{settle}')")
    big.execute("select from claim_jobs(1, '{settle}', 10)")
    plan = plans_of(big, "select complete_jobs(1, '{settled}', '{1}')")
    assert "Index Scan using job_id_exists_already on jobs" in plan
    assert pages_read(plan) < 100


def test_promote_walks_its_index(big: Connection) -> None:
    big.execute("insert into jobs (id, type, queue, execute_at) values ('soon', 't', 'soon', now() + interval '1 s')")
    big.execute("update scheduled set execute_at = now() - interval '1 s' where job_id = 'soon'")
    plan = plans_of(big, "select promote_jobs()")
    assert "Index Scan using scheduled_due on scheduled" in plan
    assert pages_read(plan) < 100
    assert big.execute("select count(*) from ready where job_id = 'soon'").fetchone() == (1,)


def test_rescue_finds_the_jobs_of_the_dead_by_their_key(big: Connection) -> None:
    big.execute("select enqueue_jobs('{t,t}', queues => '{dead,dead}')")
    big.execute("insert into workers (id, name) overriding system value values (777, 'dead')")
    big.execute("select from claim_jobs(777, '{dead}', 10)")
    plan = plans_of(big, "select * from rescue_jobs('0')")
    assert "Index Scan using job_id_exists_already on jobs" in plan
    assert "Seq Scan on jobs" not in plan
    assert pages_read(plan) < 1000
    assert big.execute("select count(*) from jobs where queue = 'dead' and status = 'pending'").fetchone() == (2,)


def test_prune_walks_its_index(big: Connection) -> None:
    plan = plans_of(big, "select prune_jobs('7 days', max_jobs => 500)")
    assert "Index Scan using jobs_created_at on jobs" in plan
    assert "Seq Scan on jobs" not in plan
    assert pages_read(plan) < 500 * 40
    assert big.execute("select count(*) from jobs where id between 'done-1' and 'done-4'").fetchone() != (0,)


def test_prune_goes_on_without_walking_what_was_passed_by(big: Connection) -> None:
    big.execute("alter table jobs set (autovacuum_enabled = off)")
    for _ in range(20):  # leaves 20,000 dead entries at the head of the index
        big.execute("select prune_jobs('7 days')")
    big.execute(  # and kept ones behind them
        """update jobs set status = 'failed', failed_at = finished_at
            where id = any (array(select id from jobs where status = 'completed' order by created_at, id limit 20000))"""
    )
    where = "select created_at, id from jobs where status = 'failed' order by created_at desc, id desc limit 1"
    row = big.execute(where).fetchone()
    assert row is not None
    call = f"select prune_jobs('7 days', max_jobs => 100, after_created_at => '{row[0]}', after_id => '{row[1]}')"
    plan = plans_of(big, call)
    assert "Index Cond: ((ROW(created_at, id) > ROW(" in plan
    assert "Sort Method: external" not in plan
    from_the_start = plans_of(big, "select prune_jobs('7 days', max_jobs => 100)")
    assert pages_read(plan) + 500 < pages_read(from_the_start)


def test_completing_without_keeping_goes_by_the_key(big: Connection) -> None:
    big.execute("select enqueue_jobs('{t,t}', job_ids => '{away-1,away-2}', queues => '{away,away}')")
    big.execute("select from claim_jobs(1, '{away}', 10)")
    plan = plans_of(big, "select complete_jobs(1, '{away-1,away-2,gone}', '{1,1,1}', keep => false)")
    assert "Index Scan using job_id_exists_already on jobs" in plan
    assert "Seq Scan on jobs" not in plan
    assert pages_read(plan) < 100
    assert big.execute("select count(*) from jobs where queue = 'away'").fetchone() == (0,)


@pytest.mark.parametrize(
    ("call", "most"),
    [
        ("select count(*) from list_jobs('pending', 50)", 1000),
        ("select count(*) from list_jobs('running')", 1000),
        ("select count(*) from list_jobs('failed', 50)", 1000),
        ("select count(*) from list_jobs(null, 50)", 1000),
        ("select count(*) from export_jobs(50, now() - interval '29 days')", 1000),
        ("select count(*) from job_stats", 6000),
    ],
)
def test_looking_is_cheap(big: Connection, call: str, most: int) -> None:
    plan = plans_of(big, call)
    assert "Seq Scan on jobs" not in "\n".join(line for line in plan.splitlines() if "never executed" not in line)
    assert pages_read(plan) < most


def test_stats_estimate_what_they_do_not_count(big: Connection) -> None:
    rows = big.execute("select queue, jobs, estimated from job_stats where status = 'completed'").fetchall()
    assert len(rows) == 1
    queue, jobs, estimated = rows[0]
    assert (queue, estimated) == (None, True)
    assert 0.9 * FINISHED < jobs < 1.1 * FINISHED


@pytest.mark.parametrize("statistics", ["none", "empty", "pending"])
@pytest.mark.parametrize("batch", [1, 200, 2000])
def test_plans_do_not_depend_on_statistics(connect: Callable[..., Connection], statistics: str, batch: int) -> None:
    """Planned while the tables are tiny or described wrongly, and kept while they grow."""
    conn = connect()
    if statistics == "empty":
        conn.execute("analyze")
    # Plans are made now, and kept by the session.
    conn.execute("select enqueue_job('t', job_id => 'first')")
    conn.execute("select from claim_jobs(1, '{default}', 5)")
    conn.execute("select complete_jobs(1, '{first}', '{1}')")
    conn.execute("select enqueue_jobs(array_fill('t'::text, array[20000]))")
    if statistics == "pending":
        conn.execute("analyze")  # says that none is running
    for _ in range(2):
        claim = plans_of(
            conn,
            f"create temp table got on commit drop as select id, attempts from claim_jobs(1, '{{default}}', {batch})",
        )
        assert "Seq Scan on jobs" not in claim
        assert "Index Scan using ready_claim on ready" in claim
        ids = [
            row[0] for row in conn.execute("select unnest(job_ids) from claims where id = (select max(id) from claims)")
        ]
        assert len(ids) == batch
        settle = plans_of(
            conn, f"select complete_jobs(1, array[{','.join(repr(id_) for id_ in ids)}], array_fill(1, array[{batch}]))"
        )
        for plan in (claim, settle):
            assert "Index Scan using job_id_exists_already on jobs" in plan or "Bitmap Index Scan on job_id" in plan
            assert pages_read(plan) < 400 + 60 * batch


WORK = """
    select enqueue_job('t');
    select enqueue_job('t', execute_at => now() + interval '1 hour');
    select enqueue_job('t', queue => 'other');
    select enqueue_jobs('{t,t,t}');
    insert into got select * from claim_jobs(1, '{default}', 2);
    insert into got select * from claim_jobs(1, null, 1);
    insert into got select * from claim_jobs(1, null, 3);
    select retry_job(id, 0, 'x', 1, attempts) from got limit 1;
    select fail_job(1, id, attempts, 'x') from got offset 1 limit 1;
    select release_jobs(1, array[id], array[attempts]) from got offset 2 limit 1;
    select complete_jobs(1, array_agg(id), array_agg(attempts), array_agg(claim_id)) from got;
    delete from got;
"""


@pytest.mark.parametrize("workers", ["nobody else", "a fleet"])
def test_nothing_hot_is_planned_anew(connect: Callable[..., Connection], workers: str) -> None:
    """Jobs go through: alone; beside one that sleeps and is rung for them, one of another queue, and one that polls."""
    conn = connect()
    conn.execute("create extension if not exists pg_stat_statements schema public")
    conn.execute("select register_worker('by hand')")
    crew = [
        "arm_doorbell(register_worker('asleep'), '{default}', 60, 'bell')",
        "arm_doorbell(register_worker('asleep'), '{nothing}', 60, 'bell')",
        "quiet_doorbell(register_worker('polling'), '{other}', 60, 'bell')",
    ]
    for state in crew if workers == "a fleet" else ():
        connect().execute(f"select {state}")
    for setting in ("track = 'all'", "track_planning = on"):
        conn.execute(f"set pg_stat_statements.{setting}")
    conn.execute("create temp table got as select * from claim_jobs(1)")

    def work() -> None:
        for _ in range(8):  # more often than PostgreSQL tries plans for the arguments of a single call
            for statement in WORK.split(";"):
                conn.execute(statement)

    work()
    conn.execute(
        "select public.pg_stat_statements_reset(dbid => oid) from pg_database where datname = current_database()"
    )
    work()
    told = """
        select plans, calls, query from public.pg_stat_statements
         where not toplevel and dbid = (select oid from pg_database where datname = current_database())
    """
    calls = conn.execute(told).fetchall()
    assert len(calls) > 20
    assert [row for row in calls if row[0]] == []
