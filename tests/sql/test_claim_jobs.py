"""claim_jobs: which jobs a claim takes, and how it treats rows that other transactions hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]

pytestmark = pytest.mark.usefixtures("workers")

CLAIM = "select id from claim_jobs(%s, %s, %s)"


def claim(conn: Connection, worker: int = 1, queues: list[str] | None = None, limit: int = 10) -> list[str]:
    return [row[0] for row in conn.execute(CLAIM, [worker, queues, limit])]


def claim_told(conn: Connection, *, limit: int = 10, **options: Any) -> tuple[list[str], str]:
    """Claim jobs for worker 1. Return their ids, and what the claim reports as passed over."""
    names = "".join(f", {name} => %s" for name in options)
    with conn.transaction():
        rows = conn.execute(
            f"select id from claim_jobs(1, max_jobs => %s{names})", [limit, *options.values()]
        ).fetchall()
        told = conn.execute("select current_setting('pgjobq.skipped', true)").fetchone()
    return [row[0] for row in rows], (told or ("",))[0] or ""


def enqueue(conn: Connection, *ids: str, **options: Any) -> None:
    for id_ in ids:
        names = "".join(f", {name} => %s" for name in options)
        conn.execute(f"select enqueue_job('t', job_id => %s{names})", [id_, *options.values()])


def test_concurrent_claims_never_share_a_job(connect: Connect) -> None:
    one, two = connect(autocommit=False), connect(autocommit=False)
    enqueue(one, *"abcd")
    one.commit()
    assert claim(one, 1, limit=2) == ["a", "b"]
    assert claim(two, 2, limit=3) == ["c", "d"]
    one.commit()
    two.commit()
    assert claim(one, 1) == []


def test_claim_that_is_rolled_back_leaves_the_job_in_place(connect: Connect) -> None:
    one, two = connect(autocommit=False), connect()
    enqueue(two, *"ab")
    assert claim(one, limit=1) == ["a"]
    one.rollback()
    assert claim(two) == ["a", "b"]
    assert two.execute("select attempts from jobs where id = 'a'").fetchone() == (1,)


@pytest.mark.parametrize(
    "holding",
    [
        "select from jobs where id = 'a' for update",
        "update jobs set priority = 9 where id = 'a'",
        "select cancel_job('a')",
        "delete from jobs where id = 'a'",
    ],
)
def test_claim_skips_a_job_that_another_transaction_holds(connect: Connect, holding: str) -> None:
    holder, claimer = connect(autocommit=False), connect()
    claimer.execute("set statement_timeout = '5s'")  # the claim must not wait
    enqueue(claimer, *"ab")
    holder.execute(holding)
    assert claim(claimer, limit=1) == ["b"]
    assert claim(claimer) == []
    holder.rollback()
    assert claim(claimer) == ["a"]


@pytest.mark.parametrize("queues", [None, ["one", "two", "three", "empty"]])
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_queue_whose_jobs_are_all_held_does_not_block_the_others(
    connect: Connect, queues: list[str] | None, limit: int
) -> None:
    holder, claimer = connect(autocommit=False), connect()
    enqueue(claimer, "a", "b", queue="one")
    enqueue(claimer, "c", "d", "e", queue="two")
    enqueue(claimer, "f", queue="three", priority=1)
    assert claim(holder, limit=3) == ["a", "b", "c"]
    got: list[str] = []
    while batch := claim(claimer, 2, queues, limit):
        got += batch
    assert got == ["d", "e", "f"]
    holder.rollback()
    assert claim(claimer, 2, queues) == ["a", "b", "c"]


def test_job_can_be_claimed_while_a_foreign_key_check_locks_it(connect: Connect) -> None:
    holder, claimer = connect(autocommit=False), connect()
    claimer.execute("create table public.notes (job_id text references jobs)")
    enqueue(claimer, "a")
    holder.execute("insert into public.notes values ('a')")
    assert claim(claimer) == ["a"]


def test_claim_returns_the_committed_version_of_a_changed_job(connect: Connect) -> None:
    one, two = connect(), connect(autocommit=False)
    enqueue(one, "a")
    two.execute("update jobs set data = '{\"v\": 2}' where id = 'a'")
    two.commit()
    assert [tuple(row) for row in one.execute("select id, data from claim_jobs(1)")] == [("a", {"v": 2})]


@pytest.mark.parametrize(
    "change",
    [
        "delete from jobs where id < 'c'",
        "update jobs set status = 'cancelled' where id < 'c'",
        "select cancel_job(id) from jobs where id < 'c'",
    ],
)
def test_orphaned_places_are_dropped(conn: Connection, change: str) -> None:
    enqueue(conn, *"abc")
    conn.execute(change)
    assert claim(conn, limit=1) == ["c"]
    assert claim(conn) == []
    assert conn.execute("select count(*) from ready").fetchone() == (0,)


def test_thousands_of_orphans_do_not_hide_the_job_after_them(conn: Connection) -> None:
    conn.execute("select enqueue_jobs(array_fill('t'::text, array[5000]))")
    conn.execute("update jobs set status = 'cancelled'")
    enqueue(conn, "last")
    claims = 0
    found, told = claim_told(conn, limit=1)
    while told == "more":  # one claim deletes some orphans and reports that there are more
        claims += 1
        assert found == []
        assert claims < 5
        found, told = claim_told(conn, limit=1)
    assert (found, told) == (["last"], "")
    assert claim(conn) == []
    assert conn.execute("select count(*) from ready").fetchone() == (0,)


def test_job_with_a_changed_id_is_claimed_by_its_new_id(conn: Connection) -> None:
    conn.execute("select enqueue_job('t', job_id => 'a')")
    conn.execute("update jobs set id = 'b'")
    assert conn.execute("select id from claim_jobs(1, null, 9)").fetchall() == [("b",)]


def test_job_cannot_be_moved_to_an_invalid_queue(conn: Connection) -> None:
    conn.execute("select enqueue_job('t')")
    with pytest.raises(psycopg.Error, match="queue: has 0 characters"):
        conn.execute("update jobs set queue = ''")


def test_changed_execute_at_postpones_or_advances_a_job(conn: Connection) -> None:
    enqueue(conn, "later")
    enqueue(conn, "sooner", execute_at="2100-01-01Z")
    conn.execute("update jobs set execute_at = '2100-01-01Z' where id = 'later'")
    conn.execute("update jobs set execute_at = now() where id = 'sooner'")
    assert claim(conn) == ["sooner"]
    assert claim(conn) == []
    conn.execute("update jobs set execute_at = now() where id = 'later'")
    assert claim(conn) == ["later"]


@pytest.mark.parametrize("scheduled", [True, False])
def test_job_in_ready_that_is_not_due_keeps_a_place(conn: Connection, scheduled: bool) -> None:
    enqueue(conn, "a")
    # A step of the clock can leave a job in ready that is not due. The trigger does not see such a step.
    conn.execute("alter table jobs disable trigger jobs_updated")
    conn.execute("update jobs set execute_at = now() + interval '1 hour'")
    conn.execute("alter table jobs enable trigger jobs_updated")
    if scheduled:
        conn.execute(
            "insert into scheduled (execute_at, queue, lane, job_id) select execute_at, queue, -priority, id from jobs"
        )
    assert claim(conn) == []
    # The place in ready is deleted only if the job has a place in scheduled.
    assert conn.execute("select count(*) from ready").fetchone() == (0 if scheduled else 1,)
    conn.execute("alter table jobs disable trigger jobs_updated")
    conn.execute("update jobs set execute_at = now()")
    conn.execute("update scheduled set execute_at = now()")
    assert claim(conn) == ["a"]


def test_job_moved_to_another_queue_or_priority_is_claimed_only_there(conn: Connection) -> None:
    enqueue(conn, "moved", "lowered", "normal")
    conn.execute("update jobs set queue = 'other' where id = 'moved'")
    conn.execute("update jobs set priority = 1 where id = 'lowered'")
    assert claim(conn, queues=["default"]) == ["normal", "lowered"]
    assert claim(conn, queues=["other"]) == ["moved"]


def test_job_with_two_places_is_claimed_once(conn: Connection) -> None:
    enqueue(conn, "a", "b")
    conn.execute("update jobs set status = 'cancelled' where id = 'a'")
    conn.execute("update jobs set status = 'pending' where id = 'a'")
    assert conn.execute("select count(*) from ready where job_id = 'a'").fetchone() == (2,)
    assert claim(conn) == ["a", "b"]
    assert claim(conn) == []
    assert conn.execute("select attempts from jobs").fetchall() == [(1,), (1,)]


def test_priorities_cover_all_of_int4_across_queues(conn: Connection) -> None:
    for queue in ("a", "b"):
        for priority in (-(2**31), 0, 2**31 - 1):
            enqueue(conn, f"{queue}{priority}", queue=queue, priority=priority)
    expected = [f"{queue}{priority}" for priority in (2**31 - 1, 0, -(2**31)) for queue in ("a", "b")]
    assert claim(conn) == expected


def test_claim_returns_the_columns_that_a_worker_needs_and_records_the_claim(conn: Connection) -> None:
    enqueue(conn, *"ab")
    rows = conn.execute(
        "select claim_id, id, attempts, started_at is not null from claim_jobs(7, '{default}', 5)"
    ).fetchall()
    assert [row[1:] for row in rows] == [("a", 1, True), ("b", 1, True)]
    assert conn.execute("select id, worker_id, job_ids from claims").fetchall() == [(rows[0][0], 7, ["a", "b"])]


@pytest.mark.parametrize("limit", [0, -1, None])
def test_invalid_limit_is_refused(conn: Connection, limit: int | None) -> None:
    with pytest.raises(psycopg.Error, match="max_jobs") as error:
        claim(conn, limit=limit)  # type: ignore[arg-type]  # the test needs the wrong type
    assert error.value.sqlstate == "JQ001"


@pytest.mark.parametrize("worker", [99, None])
def test_unregistered_worker_is_refused(conn: Connection, worker: int | None) -> None:
    enqueue(conn, "a")
    with pytest.raises(psycopg.Error, match=f"worker {worker or 'null'} is not registered") as error:
        claim(conn, worker)  # type: ignore[arg-type]  # the test needs the wrong type
    assert error.value.sqlstate == "JQ006"
    assert error.value.diag.message_hint
    assert claim(conn) == ["a"]


def test_worker_that_is_being_given_away_is_refused_at_once(connect: Connect, conn: Connection) -> None:
    rescuer = connect(autocommit=False)
    conn.execute("set statement_timeout = '5s'")  # the claim must not wait
    enqueue(conn, "a")
    assert rescuer.execute("select give_away_worker(1)").fetchone() == (True,)
    with pytest.raises(psycopg.Error, match="not registered"):
        claim(conn)
    rescuer.rollback()
    assert claim(conn) == ["a"]


def test_types_that_a_worker_leaves_stay_in_line(conn: Connection) -> None:
    enqueue(conn, *"abc")
    conn.execute("update jobs set type = 'other' where id < 'c'")
    assert claim_told(conn, except_types=["other", "none"]) == (["c"], "")
    assert claim_told(conn, except_types=["other"]) == ([], "")
    assert claim_told(conn, except_types=None) == (["a", "b"], "")


def test_claim_reports_that_it_passed_over_held_jobs(connect: Connect, conn: Connection) -> None:
    holder = connect(autocommit=False)
    enqueue(conn, *"abc")
    holder.execute("select from jobs where id = 'a' for update")
    assert claim_told(conn, limit=1) == (["b"], "")  # a claim that reaches its limit does not report it
    assert claim_told(conn) == (["c"], "held")
    assert claim_told(conn) == ([], "held")
    holder.rollback()
    assert claim_told(conn) == (["a"], "")


def test_job_whose_worker_crashed_runs_alone(conn: Connection) -> None:
    enqueue(conn, *"abcd")
    conn.execute("update jobs set crashes = 1 where id in ('b', 'c')")
    assert claim_told(conn, limit=1, alone=False) == (["a"], "")
    # A full claim reports the suspect too. Otherwise a queue that is never empty would hide it forever.
    assert claim_told(conn, limit=1, alone=False) == (["d"], "suspect")
    assert claim_told(conn, alone=False) == ([], "suspect")
    enqueue(conn, "e")
    assert claim_told(conn, alone=True) == (["b"], "more")
    assert claim_told(conn, alone=True) == (["c"], "more")
    assert claim_told(conn, alone=True) == (["e"], "")


def test_claims_and_completions_are_hot_updates(conn: Connection) -> None:
    conn.execute("select enqueue_jobs(array_fill('t'::text, array[3000]))")
    conn.execute("select pg_stat_force_next_flush()")
    rows = conn.execute("select id, claim_id from claim_jobs(1, null, 3000)").fetchall()
    ids = [row[0] for row in rows]
    conn.execute("select complete_jobs(1, %s, %s)", [ids, [row[1] for row in rows]])
    conn.execute("select pg_stat_force_next_flush()")
    stats = "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = 'jobs' and schemaname = 'pgjobq'"
    updated, hot = conn.execute(stats).fetchone() or (0, 0)
    assert updated == 6000
    assert hot >= 0.98 * updated  # a few rows may not fit on their page
