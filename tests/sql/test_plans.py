"""Plans: hot statements use their indexes on tables that are huge, new, or have wrong statistics."""

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
            conn.execute("select register_worker('by hand')")  # worker 1
            yield conn
        server.execute(f"drop database if exists {name} with (force)")


def plans_of(conn: Connection, query: str) -> str:
    """Return the plans of all statements that a call runs, as auto_explain logs them, with actual rows."""
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
    """Return the largest number of buffers that a node of the plan read."""
    counts = [sum(map(int, re.findall(r"(?:hit|read)=(\d+)", line))) for line in re.findall(r"Buffers: (.*)", plan)]
    return max(counts, default=0)


def walked(plan: str) -> list[str]:
    """Return the nodes that scan a whole large table, or a whole index without a condition."""
    nodes = re.split(r"\n(?=\s*->|\S)", plan)
    scans = [node for node in nodes if re.search(r" on (jobs|ready|scheduled|claims)\b", node.split("\n")[0])]
    return [
        node
        for node in scans
        if "never executed" not in node and "Scan" in node and not re.search(r"(Index|TID) Cond|Recheck Cond", node)
    ]


def most_sorted(plan: str) -> int:
    """Return the number of rows of the largest sort."""
    sorts = re.findall(r"-> +(?:Incremental )?Sort .*rows=([\d.]+) loops=", plan)
    return max((int(float(rows)) for rows in sorts), default=0)


SETTLED = "from (select id, unnest(job_ids) as job_id from claims where worker_id = 1) as held"
SETTLE = f"select complete_jobs(1, array_agg(job_id), array_agg(id)) {SETTLED}"


def test_claim_uses_its_index(big: Connection) -> None:
    big.execute("select enqueue_jobs(array_fill('t'::text, array[300]))")
    plan = plans_of(big, "select from claim_jobs(1, '{default}', 200)")
    assert "Index Scan using ready_claim on ready" in plan
    assert "Index Scan using job_id_exists_already on jobs" in plan
    assert walked(plan) == []
    assert pages_read(plan) < 200 * 40
    assert big.execute(SETTLE).fetchall() == []


@pytest.mark.parametrize("queues", ["null", "'{default,other}'"])
def test_claims_of_many_queues_do_not_scan_taken_places(connect: Callable[..., Connection], queues: str) -> None:
    """There is a long line behind floors, and an old snapshot keeps vacuum from removing taken places."""
    conn, old = connect(), connect(autocommit=False)
    conn.execute("select register_worker('by hand')")
    old.execute("set transaction isolation level repeatable read")
    old.execute("select count(*) from jobs")
    for queue in ("default", "other"):
        conn.execute(
            "select enqueue_jobs(array_fill('t'::text, array[12000]), queues => array_fill(%s::text, array[12000]))",
            [queue],
        )
    state: tuple[Any, ...] = (0, [])
    for _ in range(8):
        conn.execute("select from claim_jobs(1, null, 2500)")
        state = conn.execute("select safe, open::text[] from advance_floors(%s, %s::xid8[])", state).fetchone() or ()
    assert conn.execute("select count(*), min(seq) > 5000 from floors").fetchone() == (2, True)
    plan = plans_of(conn, f"select from claim_jobs(1, {queues}, 1)")
    assert walked(plan) == []
    assert most_sorted(plan) < 100
    assert pages_read(plan) < 250


@pytest.mark.parametrize("batch", [1, 200])
def test_claim_of_hundreds_of_queues_reads_a_few_places_of_each(connect: Callable[..., Connection], batch: int) -> None:
    conn = connect()
    conn.execute("select register_worker('by hand')")
    conn.execute(
        """select enqueue_jobs(array_fill('t'::text, array[30000]),
                               priorities => array(select mod(n, 3) from generate_series(1, 30000) as n),
                               queues => array(select 'q' || mod(n, 300) from generate_series(1, 30000) as n))"""
    )
    for _ in range(2):
        plan = plans_of(conn, f"select from claim_jobs(1, null, {batch})")
        assert walked(plan) == []
        assert most_sorted(plan) <= 2 * (300 + 4 * max(batch, 16))  # of 30,000 places
        assert pages_read(plan) < 300 * 13 + 60 * batch


def test_claim_of_an_empty_queue_reads_few_pages(big: Connection) -> None:
    big.execute("select from claim_jobs(1, '{nobody}', 200)")  # this call reads the catalogs
    plan = plans_of(big, "select from claim_jobs(1, '{nobody}', 200)")
    assert pages_read(plan) < 60


def test_claim_past_orphans_never_scans_jobs(big: Connection) -> None:
    big.execute(
        "select enqueue_jobs(array_fill('t'::text, array[500]), queues => array_fill('orphans'::text, array[500]))"
    )
    big.execute("update jobs set status = 'cancelled', finished_at = now() where queue = 'orphans'")
    plan = plans_of(big, "select from claim_jobs(1, '{orphans}', 10)")
    assert "postponed" in plan  # one of the plans is that of drop_orphans
    assert walked(plan) == []
    assert pages_read(plan) < 500 * 40
    assert big.execute("select count(*) from ready where queue = 'orphans'").fetchone() == (0,)


def test_claim_past_many_jobs_with_the_same_execute_at_is_not_quadratic(connect: Callable[..., Connection]) -> None:
    conn = connect()
    conn.execute("select register_worker('by hand')")
    conn.execute("select enqueue_jobs(array_fill('t'::text, array[1500]))")
    conn.execute("update jobs set execute_at = now() + interval '1 day'")
    plan = plans_of(conn, "select from claim_jobs(1, '{default}', 10)")
    assert walked(plan) == []
    assert pages_read(plan) < 1500 * 40  # the claim must not read every job for every job
    assert conn.execute("select count(*) from ready").fetchone() == (0,)
    assert conn.execute("select count(*) from scheduled").fetchone() == (1500,)


@pytest.mark.parametrize(
    "settle",
    [
        "complete_jobs(1, array[%(id)s], array[%(claim)s::bigint])",
        "complete_jobs(1, array[%(id)s], array[%(claim)s::bigint], array[%(claim)s::bigint])",
        "complete_jobs(1, array[%(id)s, 'gone'], array[%(claim)s::bigint, 1], keep => false)",
        "fail_job(%(id)s, %(claim)s, 'x')",
        "retry_job(%(id)s, 3600, 'x', %(claim)s)",
        "release_jobs(array[%(id)s, 'gone'], array[%(claim)s::bigint, 1], 3600)",
        "lost_jobs(array[%(id)s, 'gone'], array[%(claim)s::bigint, 1])",
        "cancel_job(%(id)s)",
    ],
)
def test_settling_uses_the_primary_key(big: Connection, settle: str) -> None:
    for _ in range(2):  # the first call reads the catalogs
        big.execute("select enqueue_job('t', queue => 'settle')")
        started = big.execute("select id, claim_id from claim_jobs(1, '{settle}', 10)").fetchall()
        assert len(started) == 1
        given = psycopg.ClientCursor(big).mogrify(f"select {settle}", {"id": started[0][0], "claim": started[0][1]})
        plan = plans_of(big, given)
        big.execute("delete from jobs where id = %s", [started[0][0]])
    assert "Index Scan using job_id_exists_already on jobs" in plan
    assert walked(plan) == []
    assert pages_read(plan) < 100


def test_promote_uses_its_index(big: Connection) -> None:
    big.execute("insert into jobs (id, type, queue, execute_at) values ('soon', 't', 'soon', now() + interval '1 s')")
    big.execute("update scheduled set execute_at = now() - interval '1 s' where job_id = 'soon'")
    plan = plans_of(big, "select promote_jobs()")
    assert "Index Scan using scheduled_due on scheduled" in plan
    assert walked(plan) == []
    assert pages_read(plan) < 100
    assert big.execute("select count(*) from ready where job_id = 'soon'").fetchone() == (1,)


def test_rescue_finds_the_jobs_of_a_dead_worker_by_their_key(big: Connection) -> None:
    big.execute("select enqueue_jobs('{t,t}', queues => '{dead,dead}')")
    big.execute("insert into workers (id, name) overriding system value values (777, 'dead')")
    big.execute("select from claim_jobs(777, '{dead}', 10)")
    plan = plans_of(big, "select * from rescue_jobs('0')")
    assert "Index Scan using job_id_exists_already on jobs" in plan
    assert [node for node in walked(plan) if not re.search(r" on claims\b", node)] == []
    assert pages_read(plan) < 1000
    assert big.execute("select count(*) from jobs where queue = 'dead' and status = 'pending'").fetchone() == (2,)


def test_prune_uses_its_index(big: Connection) -> None:
    plan = plans_of(big, "select prune_jobs('7 days', max_jobs => 500)")
    assert "Index Scan using jobs_created_at on jobs" in plan
    assert "Seq Scan on jobs" not in plan
    assert pages_read(plan) < 500 * 40
    assert big.execute("select count(*) from jobs where id between 'done-1' and 'done-4'").fetchone() != (0,)


def test_prune_continues_without_scanning_what_it_passed(big: Connection) -> None:
    big.execute("alter table jobs set (autovacuum_enabled = off)")
    for _ in range(20):  # this leaves 20,000 dead entries at the start of the index
        big.execute("select prune_jobs('7 days')")
    big.execute(  # jobs that are kept follow
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


def pages_of_jobs(conn: Connection) -> int:
    row = conn.execute("select pg_relation_size('jobs') / current_setting('block_size')::bigint").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize(
    ("call", "most"),
    [
        ("select count(*) from unserved_types()", 35000),
        ("select count(*) from list_jobs('pending', 50)", 1000),
        ("select count(*) from list_jobs('running')", 1000),
        ("select count(*) from list_jobs('failed', 50)", 1000),
        ("select count(*) from list_jobs(null, 50)", 1000),
        ("select count(*) from export_jobs(50, now() - interval '29 days')", 1000),
        ("select count(*) from job_stats", 6000),
    ],
)
def test_reading_functions_read_few_pages(big: Connection, call: str, most: int) -> None:
    plan = plans_of(big, call)
    assert "Seq Scan on jobs" not in "\n".join(line for line in plan.splitlines() if "never executed" not in line)
    assert pages_read(plan) < most


def test_misplaced_jobs_are_found_in_one_scan(big: Connection) -> None:
    """The scan looks up places and claims in hash tables, not one by one."""
    plan = plans_of(big, "select count(*) from misplaced_jobs()")
    assert len(re.findall("Seq Scan on jobs", plan)) == 1
    assert re.search(r"Hash (Right )?Anti Join", plan)
    assert "Nested Loop" not in plan
    assert pages_read(plan) < 3 * pages_of_jobs(big)


def test_repair_uses_the_primary_key(big: Connection) -> None:
    big.execute("set session_replication_role = replica")
    big.execute("insert into jobs (id, type) select 'bare-' || n, 't' from generate_series(1, 2000) as n")
    big.execute("set session_replication_role = origin")
    try:
        plan = plans_of(big, "select placed from repair_jobs(5000)")
        assert len(re.findall("Seq Scan on jobs", plan)) == 1  # the scan of misplaced_jobs
        assert "Join Filter: (jobs.id = job.id)" not in plan
    finally:
        big.execute("delete from jobs where id like 'bare-%'; delete from ready where job_id like 'bare-%'")


def test_stats_estimate_counts_of_finished_jobs(big: Connection) -> None:
    rows = big.execute("select queue, jobs, estimated from job_stats where status = 'completed'").fetchall()
    assert len(rows) == 1
    queue, jobs, estimated = rows[0]
    assert (queue, estimated) == (None, True)
    assert 0.9 * FINISHED < jobs < 1.1 * FINISHED


@pytest.mark.parametrize("statistics", ["none", "empty", "pending"])
@pytest.mark.parametrize("batch", [1, 200, 2000])
@pytest.mark.parametrize("queues", ["'{default}'", "null"])
def test_plans_do_not_depend_on_statistics(
    connect: Callable[..., Connection], statistics: str, batch: int, queues: str
) -> None:
    """The session plans while the tables are tiny or have wrong statistics, and keeps the plans while they grow."""
    conn = connect()
    if statistics == "empty":
        conn.execute("analyze")
    # The session makes its plans here and keeps them.
    conn.execute("select register_worker('by hand')")
    conn.execute("select enqueue_job('t', job_id => 'first')")
    conn.execute(f"select from claim_jobs(1, {queues}, 5)")
    conn.execute(SETTLE)
    conn.execute("select enqueue_jobs(array_fill('t'::text, array[20000]))")
    if queues == "null":
        conn.execute(
            "select enqueue_jobs(array_fill('t'::text, array[20]), queues => array(select 'q' || n from generate_series(1, 20) as n))"
        )
    if statistics == "pending":
        conn.execute("analyze")  # the statistics say that no job is running
    for orphans in (0, 50):
        conn.execute(
            "update jobs set status = 'cancelled' where id = any (array(select job_id from ready order by seq limit %s))",
            [orphans],
        )
        claim = plans_of(
            conn, f"create temp table got on commit drop as select id from claim_jobs(1, {queues}, {batch})"
        )
        assert ("postponed" in claim) == (orphans > 0)  # this is the plan of drop_orphans
        assert "Index Scan using ready_claim on ready" in claim
        assert conn.execute("select cardinality(job_ids) from claims").fetchall() == [(batch,)]
        settle = plans_of(conn, SETTLE)
        assert conn.execute("select count(*) from jobs where status = 'running'").fetchone() == (0,)
        for plan in (claim, settle):
            assert "Index Scan using job_id_exists_already on jobs" in plan or "Bitmap Index Scan on job_id" in plan
            assert [node for node in walked(plan) if not re.search(r" on claims\b", node)] == []
            assert most_sorted(plan) <= max(4 * batch, 200)  # of 20,000 places
            assert pages_read(plan) < 800 + 60 * batch + 40 * orphans


WORK = """
    select enqueue_job('t');
    select enqueue_job('t', execute_at => now() + interval '1 hour');
    select enqueue_job('t', queue => 'other');
    select enqueue_jobs('{t,t,t}');
    insert into got select * from claim_jobs(1, '{default}', 2);
    insert into got select * from claim_jobs(1, null, 1);
    insert into got select * from claim_jobs(1, null, 3);
    select retry_job(id, 0, 'x', claim_id) from got limit 1;
    select fail_job(id, claim_id, 'x') from got offset 1 limit 1;
    select release_jobs(array[id], array[claim_id]) from got offset 2 limit 1;
    select complete_jobs(1, array_agg(id), array_agg(claim_id), array_agg(claim_id)) from got;
    select complete_jobs(1, array_agg(id), array_agg(claim_id)) from got;
    delete from got;
"""


@pytest.mark.parametrize("workers", ["no other worker", "a fleet"])
def test_hot_statements_are_not_planned_again(connect: Callable[..., Connection], workers: str) -> None:
    """Beside no other worker, and beside a sleeping worker, a worker of another queue, and a polling worker."""
    conn = connect()
    conn.execute("create extension if not exists pg_stat_statements schema public")
    conn.execute("select register_worker('by hand')")
    crew = [
        "set_worker_state(register_worker('asleep'), 'asleep', false, '{default}', 60, 'bell')",
        "set_worker_state(register_worker('asleep'), 'asleep', false, '{nothing}', 60, 'bell')",
        "set_worker_state(register_worker('polling'), 'polling', false, '{other}', 60, 'bell')",
    ]
    for state in crew if workers == "a fleet" else ():
        connect().execute(f"select {state}")
    for setting in ("track = 'all'", "track_planning = on"):
        conn.execute(f"set pg_stat_statements.{setting}")
    conn.execute("create temp table got as select * from claim_jobs(1)")

    def work() -> None:
        for _ in range(8):  # PostgreSQL tries custom plans for the first five calls
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


@pytest.mark.parametrize("analyzed", [True, False])
def test_schedule_that_is_due_costs_the_same_among_thousands(
    connect: Callable[..., Connection], analyzed: bool
) -> None:
    """It goes by the key to its own row, whatever the statistics say of the table."""
    conn = connect()
    conn.execute("select register_worker('by hand')")
    if not analyzed:
        conn.execute("analyze schedules, scheduled")  # when they are empty
    conn.execute(
        """insert into schedules (id, type, expression, next_run, place, place_at)
           select 's' || n, 't', '0 9 * * *', now() + interval '1 day', n, now() + interval '1 day' from generate_series(1, 10000) as n"""
    )
    conn.execute(
        "insert into scheduled (execute_at, seq, queue, lane, schedule_id) select place_at, place, queue, -5, id from schedules"
    )
    if analyzed:
        conn.execute("analyze schedules, scheduled")
    plan = ""
    for n in (5000, 6000):  # the first call reads the catalogs
        conn.execute("update schedules set next_run = now(), place_at = now() where place = %s", [n])
        conn.execute("update scheduled set execute_at = now() where seq = %s", [n])
        plan = plans_of(conn, "select from claim_jobs(1, '{default}', 5)")
    assert conn.execute("select count(*), count(distinct id) from jobs").fetchone() == (2, 2)
    assert walked(plan) == []
    assert "Seq Scan on schedules" not in plan
    assert "Index Scan using schedules_pkey on schedules" in plan
    assert pages_read(plan) < 150
