"""Misplaced jobs: rows that were added, or lost their places, while triggers were off, are found and repaired."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from helpers.until import until

from pgjobq import Job, JobQueue, NewJob, Registry, Retry, Worker, job
from pgjobq.backoff import constant
from pgjobq.devserver import find_bindir
from pgjobq.postgres import doctor
from pgjobq.postgres.doctor import examine
from pgjobq.postgres.schema import migrate
from pgjobq.storage.postgres_storage import PostgresStorage

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]

NOTHING = (0, 0, 0, 0)


def repaired(conn: Connection, most: int = 10000) -> tuple[int, int, int, int]:
    """Repair jobs and return (placed, given_back, failed, held)."""
    row = conn.execute("select placed, given_back, failed, held from repair_jobs(%s)", [most]).fetchone()
    assert row is not None
    return row  # type: ignore[no-any-return]


def misplaced(conn: Connection) -> set[str]:
    return {job_id for (job_id,) in conn.execute("select id from misplaced_jobs()")}


def without_triggers(conn: Connection, statement: str) -> None:
    conn.execute("set session_replication_role = replica")
    conn.execute(statement.encode())
    conn.execute("set session_replication_role = origin")


def places(conn: Connection) -> list[str]:
    """Return the job ids of all places, in order."""
    query = "select job_id from ready union all select job_id from scheduled order by 1"
    return [job_id for (job_id,) in conn.execute(query)]


def told(dsn: str) -> tuple[bool, str, str]:
    (found,) = [found for found in examine(dsn, "pgjobq") if found.name == "misplaced jobs"]
    return found.ok, found.detail, found.remedy


def test_rows_that_were_inserted_without_triggers(conn: Connection, dsn: str, make_storage: Callable[..., Any]) -> None:
    """All statistics agree on the jobs before the repair, and a worker runs them in order after it."""
    without_triggers(
        conn,
        """
        insert into jobs (id, type, priority, execute_at, created_at) values
          ('second', 't', 5, null, now() - interval '1 min'), ('first', 't', 5, null, now() - interval '2 min'),
          ('due', 't', 5, now() - interval '90 s', now() - interval '1 h'), ('urgent', 't', 9, null, now()),
          ('later', 't', 5, now() + interval '1 h', now());
        insert into jobs (id, type, status, attempts, worker_id, claim_id) values
          ('ran', 't', 'running', 1, 7, 7), ('stray', 't', 'running', 1, null, null), ('spent', 't', 'running', 4, 7, 8)
        """,
    )
    conn.execute("select enqueue_job('t', job_id => 'placed')")
    storage: PostgresStorage = make_storage()
    assert told(dsn) == (
        False,
        "5 pending jobs without a place in line, 3 running jobs without a claim",
        "Run: pgjobq repair",
    )
    counted = {"pending": 6, "running": 3}
    assert {str(status): jobs for status, jobs in storage.counts().items() if jobs} == counted
    assert {row["status"]: row["jobs"] for row in storage.stats()} == counted
    assert {status: len(storage.list_jobs(status)) for status in counted} == counted
    assert repaired(conn) == (5, 2, 1, 0)
    assert misplaced(conn) == set()
    assert repaired(conn) == NOTHING
    assert told(dsn)[0]
    found = storage.dequeue_many(99)
    assert found[0].id == "urgent"
    line = [job.id for job in found if job.id in {"first", "due", "second"}]
    assert line == ["first", "due", "second"]
    assert {job.id for job in found} == {"urgent", "first", "due", "second", "placed", "ran", "stray"}
    assert {job.id: job.attempts for job in found}["ran"] == 2
    spent = storage.get_job("spent")
    assert spent is not None
    assert (spent.status, spent.error) == ("failed", "no claim held this job while it was running (try 4 of 4)")
    assert places(conn) == ["later"]
    assert storage.complete_many(found) == []


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("delete from ready", (2, 0, 0, 0)),
        ("delete from scheduled", (1, 0, 0, 0)),
        ("delete from claims", (0, 1, 0, 0)),
        ("truncate ready, scheduled, claims", (3, 1, 0, 0)),
        ("update jobs set queue = 'other' where id = 'a'", (1, 0, 0, 0)),
        ("update jobs set priority = 9 where id = 'a'", (1, 0, 0, 0)),
        ("update jobs set execute_at = now() + interval '1 min' where id = 'later'", (1, 0, 0, 0)),
        ("update jobs set status = 'pending', failed_at = null where id = 'failed'", (1, 0, 0, 0)),
        ("delete from jobs where id in ('a', 'later')", NOTHING),
        ("update jobs set status = 'cancelled' where id = 'a'", NOTHING),
    ],
)
def test_places_that_a_statement_without_triggers_removed(
    conn: Connection, statement: str, expected: tuple[int, ...], storage: PostgresStorage
) -> None:
    conn.execute("select enqueue_jobs('{t,t,t,t}', job_ids => '{failed,held,a,b}')")
    conn.execute("select enqueue_job('t', job_id => 'later', execute_at => now() + interval '1 h')")
    storage.dequeue_many(2)
    storage.fail("failed", "x")
    assert misplaced(conn) == set()
    without_triggers(conn, statement)
    assert len(misplaced(conn)) == sum(expected)
    assert repaired(conn) == expected
    assert misplaced(conn) == set()


def test_worker_loses_a_job_that_was_given_back(conn: Connection, storage: PostgresStorage) -> None:
    storage.enqueue("a", "t", {})
    held = storage.dequeue()
    assert held is not None
    conn.execute("delete from claims")
    assert repaired(conn) == (0, 1, 0, 0)
    assert [job.id for job in storage.maintain([held]).lost] == ["a"]
    again = storage.dequeue()
    assert again is not None
    assert (again.id, again.attempts) == ("a", 2)
    storage.complete("a")


def test_claims_of_another_database_hold_no_job(conn: Connection, storage: PostgresStorage) -> None:
    """A restored job may have been running under ids that a worker and a claim have here too."""
    storage.enqueue("ours", "t", {})
    held = storage.dequeue()
    assert held is not None
    without_triggers(
        conn,
        f"insert into jobs (id, type, status, attempts, worker_id, claim_id) values ('theirs', 't', 'running', 1,"
        f" {held.worker_id}, {held.claim_id})",
    )
    assert misplaced(conn) == {"theirs"}
    assert repaired(conn) == (0, 1, 0, 0)
    storage.complete("ours")


# -- concurrency -------------------------------------------------------------------------------------


def test_job_that_another_transaction_holds_is_skipped(conn: Connection, connect: Connect) -> None:
    without_triggers(conn, "insert into jobs (id, type) values ('a', 't'), ('b', 't')")
    other = connect(autocommit=False)
    other.execute("select from jobs where id = 'a' for update")
    conn.execute("set lock_timeout = '1s'")
    assert repaired(conn) == (1, 0, 0, 1)
    other.rollback()
    assert repaired(conn) == (1, 0, 0, 0)


@pytest.mark.parametrize("meanwhile", ["update jobs set priority = 9", "select from repair_jobs()", "delete from jobs"])
def test_job_that_was_placed_meanwhile_gets_no_second_place(conn: Connection, connect: Connect, meanwhile: str) -> None:
    """The job changes after the repair has read it and before the repair locks it. The test stops the repair there."""
    without_triggers(conn, "insert into jobs (id, type) select n::text, 't' from generate_series(1, 50) as n")
    conn.execute(
        "create function public.wait_at_gate() returns boolean language plpgsql volatile as"
        " 'begin perform pg_advisory_xact_lock(4711); return true; end'"
    )
    source = conn.execute("select prosrc from pg_proc where proname = 'repair_jobs'").fetchone()
    assert source is not None
    assert "for no key update skip locked) as job" in source[0]
    slow = source[0].replace("where jobs.id = found.id", "where jobs.id = found.id and public.wait_at_gate()")
    conn.execute(f"""
        create function public.slow_repair(max_jobs integer default 100, out placed bigint, out given_back bigint,
                                           out failed bigint, out held bigint)
          language plpgsql set search_path from current as $body${slow.replace("repair_jobs.", "slow_repair.")}$body$""")
    gate, slow_one = connect(autocommit=False), connect()
    gate.execute("select pg_advisory_xact_lock(4711)")
    waits = "select exists (select from pg_locks where locktype = 'advisory' and not granted)"

    result: list[Any] = []
    thread = threading.Thread(
        target=lambda: result.append(slow_one.execute("select placed, held from public.slow_repair()").fetchone())
    )
    thread.start()
    try:
        until(lambda: conn.execute(waits).fetchone() == (True,))
        conn.execute(meanwhile.encode())
    finally:
        gate.rollback()
        thread.join(30)
    (row,) = result
    left = conn.execute("select count(*) from jobs").fetchone()
    assert left is not None
    assert row == (0, 50)
    assert len(places(conn)) == len(set(places(conn))) == left[0]


def test_nothing_is_misplaced_in_a_busy_queue(conn: Connection, make_storage: Callable[..., PostgresStorage]) -> None:
    """Jobs are enqueued, claimed, released, retried and completed, and always have a place or a claim."""
    registry = Registry()

    @job(registry=registry, max_retries=3, backoff=constant(0.01))
    def sometimes(job: Job) -> None:
        if job.attempts < 1 + int(job.id) % 3:
            raise Retry(delay=0.01 * (int(job.id) % 2))

    workers = [Worker(make_storage(), registry=registry) for _ in range(2)]
    for worker in workers:
        worker.start()
    try:
        for n in range(0, 2000, 20):
            conn.execute(
                "select enqueue_jobs(array_fill('sometimes'::text, array[20]), job_ids => %s)",
                [[str(n + k) for k in range(20)]],
            )
            assert repaired(conn) == NOTHING
        unfinished = "select exists (select from jobs where status in ('pending', 'running'))"
        while conn.execute(unfinished).fetchone() == (True,):
            assert repaired(conn) == NOTHING
    finally:
        for worker in workers:
            worker.stop()
    assert conn.execute("select distinct status from jobs").fetchall() == [("completed",)]


def test_batches_are_bounded_and_continue(conn: Connection, storage: PostgresStorage) -> None:
    without_triggers(conn, "insert into jobs (id, type) select 'j' || n, 't' from generate_series(1, 25) as n")
    assert repaired(conn, 10) == (10, 0, 0, 0)
    found = storage.repair(4)
    assert (found.placed, found.given_back, found.failed, found.held) == (15, 0, 0, 0)
    assert len(places(conn)) == len(set(places(conn))) == 25
    for bad in ("0", "-1", "null"):
        with pytest.raises(psycopg.DatabaseError, match=r"max_jobs: .* is not a positive number"):
            conn.execute(f"select repair_jobs({bad})".encode())


def test_repair_ends_although_another_transaction_holds_all_jobs(
    conn: Connection, connect: Connect, storage: PostgresStorage
) -> None:
    without_triggers(conn, "insert into jobs (id, type) select 'j' || n, 't' from generate_series(1, 25) as n")
    other = connect(autocommit=False)
    other.execute("select from jobs for update")
    assert storage.repair(5).held == 5
    other.rollback()
    assert storage.repair(5).placed == 25


def test_repair_wakes_a_sleeping_worker(conn: Connection, connect: Connect) -> None:
    sleeper = connect()
    sleeper.execute("listen told")
    worker = sleeper.execute("select register_worker('w')").fetchone()
    for _ in range(2):
        sleeper.execute("select set_worker_state(%s, 'asleep', channel => 'told')", worker)
    without_triggers(conn, "insert into jobs (id, type) values ('a', 't')")
    repaired(conn)
    assert next(sleeper.notifies(timeout=5)).payload == "default"


# -- check -------------------------------------------------------------------------------------------


def test_check_reports_disabled_triggers(conn: Connection, dsn: str) -> None:
    """An interrupted restore can leave them disabled. A migration enables them."""

    def triggers() -> tuple[bool, str]:
        (found,) = [found for found in examine(dsn, "pgjobq") if found.name == "triggers"]
        return found.ok, found.remedy

    insert, update = "insert into jobs (type) values ('t')", "update jobs set priority = priority + 1"
    for off, lost in {
        "disable trigger all": insert,
        "disable trigger jobs_inserted": insert,
        "enable replica trigger jobs_updated": update,
    }.items():
        conn.execute(f"alter table jobs {off}".encode())
        assert triggers() == (False, "Run: pgjobq migrate; then pgjobq repair")
        conn.execute(lost.encode())
        migrate(dsn)
        assert triggers()[0]
        assert repaired(conn)[0] > 0


def test_check_stops_after_a_time_limit(conn: Connection, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LOOKED_WITHIN", 0.1)
    other = connect(autocommit=False)
    other.execute("lock table jobs")
    found = doctor._misplaced(conn, "pgjobq")
    assert (found.ok, found.detail[:7]) == (True, "unknown")


# -- a dump ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["pgjobq.jobs", "pgjobq.*"])
def test_restore_of_the_data_without_triggers(
    dsn: str, empty_dsn: str, queue: JobQueue, storage: PostgresStorage, table: str
) -> None:
    """The restore is by pg_dump --data-only --disable-triggers, of the table jobs or of all tables."""
    queue.enqueue_many([NewJob(id=f"j{n}", type="t", delay=3600 if n > 7 else None) for n in range(10)])
    storage.dequeue_many(3)
    storage.complete("j0")
    migrate(empty_dsn)
    programs = find_bindir()
    dump: list[Any] = [programs / "pg_dump", "--data-only", "--disable-triggers", "--table", table, dsn]
    dump += ["--exclude-table", "pgjobq.schema_version"]
    script = subprocess.run(dump, check=True, capture_output=True).stdout
    load: list[Any] = [programs / "psql", "-q", "-v", "ON_ERROR_STOP=1", empty_dsn]
    subprocess.run(load, check=True, input=script, capture_output=True)
    restored = PostgresStorage(empty_dsn)
    command = [sys.executable, "-m", "pgjobq", "repair", "--json", "--dsn", empty_dsn]
    said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    alone = table == "pgjobq.jobs"
    assert said == {"placed": 7, "given_back": 2, "failed": 0, "held": 0} if alone else dict.fromkeys(said, 0)
    if not alone:  # the claims were restored, and their worker is dead
        with psycopg.connect(empty_dsn, autocommit=True, options="-c search_path=pgjobq") as conn:
            conn.execute("select rescue_jobs('0'), rescue_jobs('0')")
    assert told(empty_dsn)[0]
    assert {job.id for job in restored.dequeue_many(99)} == {f"j{n}" for n in range(1, 8)}
    restored.close()
