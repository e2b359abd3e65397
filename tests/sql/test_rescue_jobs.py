"""register_worker, rescue_jobs and related functions: only a worker that has lost its key loses its jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from helpers.calls import end, register

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]


COMPLETE = "select complete_jobs(%s, '{a}', '{1}')"  # the first claim in a database has the id 1


def rescue(conn: Connection, grace: str = "0") -> tuple[int, int, int]:
    row = conn.execute("select rescued, failed, watched from rescue_jobs(%s)", [grace]).fetchone()
    assert row is not None
    return row[0], row[1], row[2]


@pytest.fixture
def held(connect: Connect, conn: Connection) -> tuple[Connection, int]:
    """The session and the id of a worker that runs job a."""
    session = connect()
    worker = register(session)
    conn.execute("select enqueue_job('t', job_id => 'a')")
    session.execute("select from claim_jobs(%s)", [worker])
    return session, worker


def test_live_worker_keeps_its_jobs_however_long_they_run(conn: Connection, held: tuple[Connection, int]) -> None:
    conn.execute("update jobs set started_at = now() - interval '10 days'")
    assert rescue(conn) == (0, 0, 1)
    assert conn.execute("select status from jobs").fetchone() == ("running",)


def test_jobs_of_a_dead_worker_are_rescued(conn: Connection, held: tuple[Connection, int]) -> None:
    session, worker = held
    end(session, conn)
    assert rescue(conn) == (1, 0, 1)
    row = conn.execute("select status, attempts, crashes, error from jobs").fetchone()
    assert row == (
        "pending",
        1,
        1,
        f"worker {worker} stopped or died while it held this job (try 1 of 4, crash 1 of 3)",
    )
    assert conn.execute("select count(*) from workers").fetchone() == (0,)
    assert rescue(conn) == (0, 0, 0)
    assert [row[0] for row in conn.execute("select id from claim_jobs(register_worker('w'))")] == ["a"]


def test_grace_period_starts_when_the_worker_is_first_suspected(conn: Connection, held: tuple[Connection, int]) -> None:
    session, worker = held
    end(session, conn)
    assert rescue(conn, "2 s") == (0, 0, 1)
    assert conn.execute("select worker_id from suspects").fetchall() == [(worker,)]
    assert rescue(conn, "2 s") == (0, 0, 1)
    conn.execute("update suspects set seen_at = seen_at - interval '3 s'")
    assert rescue(conn, "2 s") == (1, 0, 1)
    rescue(conn, "2 s")
    assert conn.execute("select count(*) from suspects").fetchone() == (0,)


def test_worker_that_reconnects_within_the_grace_keeps_its_jobs(
    connect: Connect, conn: Connection, held: tuple[Connection, int]
) -> None:
    session, worker = held
    end(session, conn)
    rescue(conn, "2 s")
    again = connect()
    assert register(again, worker_id=worker) == worker
    assert rescue(conn) == (0, 0, 1)
    assert conn.execute("select count(*) from suspects").fetchone() == (0,)
    assert again.execute(COMPLETE, [worker]).fetchall() == []


def test_worker_that_reconnects_too_late_gets_a_new_id(
    connect: Connect, conn: Connection, held: tuple[Connection, int]
) -> None:
    session, worker = held
    end(session, conn)
    rescue(conn)
    again = connect()
    fresh = register(again, worker_id=worker)
    assert fresh != worker
    assert again.execute(COMPLETE, [fresh]).fetchall() == [("a",)]


def test_worker_that_reconnects_during_its_rescue_must_try_again(
    connect: Connect, conn: Connection, held: tuple[Connection, int]
) -> None:
    session, worker = held
    end(session, conn)
    rescuer, again = connect(autocommit=False), connect()
    assert rescue(rescuer) == (1, 0, 1)
    again.execute("set lock_timeout = '200ms'")
    with pytest.raises(psycopg.Error, match="holds the lock of worker") as error:
        register(again, worker_id=worker)
    assert error.value.sqlstate == "JQ007"
    assert error.value.diag.message_hint
    rescuer.commit()
    assert register(again, worker_id=worker) != worker


@pytest.mark.parametrize(
    ("max_retries", "max_crashes", "told"),
    [
        (0, None, "try 1 of 1, crash 3 of 3"),
        (1, None, "try 1 of 2, crash 3 of 3"),
        (9, None, "try 1 of 10, crash 3 of 3"),
        (9, "2", "try 1 of 10, crash 2 of 2"),
    ],
)
def test_job_that_kills_its_workers_fails_after_some_crashes(
    connect: Connect, conn: Connection, max_retries: int, max_crashes: str | None, told: str
) -> None:
    conn.execute("select enqueue_job('t', job_id => 'poison', max_retries => %s)", [max_retries])
    if max_crashes:
        conn.execute(f"set pgjobq.max_crashes = {max_crashes}")
    starts = int(told.rsplit(maxsplit=1)[-1])
    for start in range(1, starts + 1):
        session = connect()
        assert session.execute("select id from claim_jobs(%s)", [register(session)]).fetchall() == [("poison",)]
        end(session, conn)
        assert rescue(conn)[:2] == ((1, 0) if start < starts else (0, 1))
    row = conn.execute("select status, attempts, failed_at is not null, error from jobs").fetchone()
    assert row is not None
    assert row[:3] == ("failed", starts, True)
    assert f"{told}); it failed because of its crashes" in row[3]


def test_crashes_are_not_counted_as_tries(connect: Connect, conn: Connection) -> None:
    """A job with one retry crashes before, between and after its errors, and still gets its two tries."""
    conn.execute("select enqueue_job('t', job_id => 'a', max_retries => 1)")
    seen = "select status, attempts, crashes from jobs"
    worker, start = register(conn), None
    for errors in (1, 2):
        for crashes in (1, 2):
            session = connect()
            session.execute("select from claim_jobs(%s)", [register(session)])
            end(session, conn)
            assert rescue(conn)[:2] == (1, 0)
            assert conn.execute(seen).fetchone() == ("pending", errors - 1 + crashes, crashes)
        start = conn.execute("select claim_id, attempts - crashes from claim_jobs(%s)", [worker]).fetchone()
        assert start is not None
        assert start[1] == errors  # a worker compares this number with max_retries
        if errors == 1:
            conn.execute("select retry_job('a', 0, 'boom', %s)", [start[0]])
            assert conn.execute(seen).fetchone() == ("pending", 1, 0)
    assert start is not None
    conn.execute("select fail_job('a', %s, 'boom')", [start[0]])
    assert conn.execute(seen).fetchone() == ("failed", 2, 0)


@pytest.mark.parametrize("state", ["failed", "cancelled", "pending"])
def test_retry_by_an_operator_resets_the_crashes(connect: Connect, conn: Connection, state: str) -> None:
    conn.execute("select enqueue_job('t', job_id => 'a', max_retries => 0)")
    conn.execute("update jobs set status = %s, attempts = 3, crashes = 3", [state])
    assert conn.execute("select retry_job('a')").fetchone() == (True,)
    assert conn.execute("select status, attempts, crashes from jobs").fetchone() == ("pending", 0, 0)


def test_rescue_reports_each_dead_worker(connect: Connect, conn: Connection) -> None:
    ends = []
    for name, job_ids in (("one", "{a,b}"), ("two", "{c}"), ("idle", "{}")):
        conn.execute(
            "select enqueue_jobs(array_fill('t'::text, array[cardinality(%s::text[])]), job_ids => %s)",
            [job_ids, job_ids],
        )
        session = connect()
        given = session.execute("select register_worker(%s)", [name]).fetchone()
        assert given is not None
        session.execute("select from claim_jobs(%s, max_jobs => 9)", given)
        ends.append((given[0], session))
    conn.execute("update jobs set crashes = 2 where id = 'b'")
    conn.execute("update claims set claimed_at = claimed_at - interval '1 hour'")
    conn.execute("update workers set started_at = started_at - interval '1 day'")
    for _, session in ends:
        end(session, conn)
    row = conn.execute("select dead from rescue_jobs('0')").fetchone()
    assert row is not None
    dead: list[dict[str, Any]] = row[0]
    stood = [worker.pop("stood") for worker in dead]
    assert all(3600 <= seconds < 3700 for seconds in stood)
    dead[0]["job_ids"].sort()
    assert dead == [
        {"worker_id": ends[0][0], "name": "one", "rescued": 1, "failed": 1, "job_ids": ["a", "b"], "failed_ids": ["b"], "crashes": {"b": 3}},
        {"worker_id": ends[1][0], "name": "two", "rescued": 1, "failed": 0, "job_ids": ["c"], "failed_ids": None, "crashes": None},
    ]  # fmt: skip
    assert conn.execute("select dead from rescue_jobs('0')").fetchone() == ([],)


def test_job_that_ends_without_a_crash_resets_the_count(connect: Connect, conn: Connection) -> None:
    conn.execute("select enqueue_job('t', job_id => 'a', max_retries => 9)")
    crashes = "select crashes from jobs"
    for ending in ("retry_job('a', 0, 'x', %s)", "fail_job('a', %s, 'x')", "complete_jobs(0, '{a}', array[%s])"):
        conn.execute("update jobs set crashes = 2, status = 'pending'")
        (claim,) = conn.execute("select claim_id from claim_jobs(%s)", [register(conn)]).fetchone() or (0,)
        assert conn.execute(crashes).fetchone() == (2,)
        conn.execute(f"select {ending.replace('%s', '%s::bigint')}", [claim])
        assert conn.execute(crashes).fetchone() == (0,)


def test_concurrent_rescues_share_the_dead_workers(connect: Connect, held: tuple[Connection, int]) -> None:
    one, two = connect(autocommit=False), connect()
    two.execute("set statement_timeout = '5s'")  # the rescue must not wait
    later = connect()
    later.execute("select enqueue_job('t', job_id => 'b')")
    later.execute("select from claim_jobs(%s)", [register(later)])
    end(held[0], two)
    told = "select rescued, failed, job_ids from rescue_jobs('0')"
    assert one.execute(told).fetchone() == (1, 0, ["a"])
    assert two.execute(told).fetchone() == (0, 0, None)
    end(later, two)
    assert two.execute(told).fetchone() == (1, 0, ["b"])
    one.commit()
    assert two.execute("select id, status, crashes from jobs order by id").fetchall() == [("a", "pending", 1), ("b", "pending", 1)]  # fmt: skip


def test_rescue_skips_jobs_that_another_transaction_holds(
    connect: Connect, conn: Connection, held: tuple[Connection, int]
) -> None:
    session, worker = held
    conn.execute("select enqueue_job('t', job_id => 'b')")
    session.execute("select from claim_jobs(%s)", [worker])
    end(session, conn)
    holder = connect(autocommit=False)
    holder.execute("select from jobs where id = 'a' for update")
    conn.execute("set statement_timeout = '5s'")
    told = "select rescued, failed, job_ids from rescue_jobs('0')"
    assert conn.execute(told).fetchone() == (1, 0, ["b"])
    assert conn.execute(told).fetchone() == (0, 0, None)
    holder.rollback()
    assert conn.execute(told).fetchone() == (1, 0, ["a"])
    assert conn.execute("select count(*) from claims").fetchone() == (0,)


def test_worker_with_an_open_claim_is_rescued_later(
    connect: Connect, conn: Connection, held: tuple[Connection, int]
) -> None:
    session, worker = held
    conn.execute("select enqueue_job('t', job_id => 'b')")
    claimer = connect(autocommit=False)
    claimer.execute("select from claim_jobs(%s)", [worker])
    end(session, conn)
    conn.execute("set statement_timeout = '5s'")
    assert rescue(conn) == (0, 0, 1)
    claimer.commit()
    assert rescue(conn) == (2, 0, 1)


@pytest.mark.parametrize("max_retries", [0, 3])
def test_retired_worker_releases_its_jobs_at_once(
    conn: Connection, held: tuple[Connection, int], max_retries: int
) -> None:
    session, worker = held
    conn.execute("update jobs set max_retries = %s", [max_retries])
    session.execute("select retire_worker(%s)", [worker])
    assert conn.execute("select status, attempts, crashes from jobs").fetchone() == ("pending", 1, 0)
    assert conn.execute("select count(*) from live_workers()").fetchone() == (0,)
    assert conn.execute("select count(*) from workers").fetchone() == (0,)


def test_heartbeat_replaces_the_key(connect: Connect, conn: Connection) -> None:
    worker = register(conn, heartbeat=True)
    conn.execute("select enqueue_job('t')")
    conn.execute("select from claim_jobs(%s)", [worker])
    assert rescue(conn) == (0, 0, 1)
    conn.execute("update workers set heartbeat_at = heartbeat_at - interval '1 minute'")
    rescue(conn, "1 hour")
    assert conn.execute("select heartbeat_worker(%s)", [worker]).fetchone() == (True,)
    assert rescue(conn) == (0, 0, 1)
    conn.execute("update workers set heartbeat_at = heartbeat_at - interval '1 minute'")
    assert rescue(conn) == (1, 0, 1)
    assert conn.execute("select heartbeat_worker(%s)", [worker]).fetchone() == (False,)


def test_claim_whose_answer_was_lost_is_released(conn: Connection) -> None:
    conn.execute("select enqueue_jobs('{t,t}', job_ids => '{a,b}')")
    worker = register(conn)
    known = conn.execute("select claim_id from claim_jobs(%s)", [worker]).fetchone()
    conn.execute("select from claim_jobs(%s)", [worker])
    assert conn.execute("select release_unknown_jobs(%s, %s)", [worker, list(known or [])]).fetchone() == (1,)
    assert conn.execute("select id, status, attempts from jobs order by id").fetchall() == [
        ("a", "running", 1),
        ("b", "pending", 0),
    ]


def test_worker_status_shows_the_state_of_a_worker(conn: Connection, held: tuple[Connection, int]) -> None:
    session, worker = held
    session.execute("select set_worker_state(%s, 'asleep')", [worker])
    row = conn.execute("select id, name, queues, alive, asleep, running from worker_status").fetchone()
    assert row == (worker, "w", None, True, True, 1)
    for state in ("asleep", "polling"):
        session.execute("select set_worker_state(%s, %s, busy => true)", [worker, state])
        told = "select key, live_workers(key) from unnest('{alive,asleep,polling,busy}'::text[]) as key"
        assert conn.execute(told).fetchall() == [(key, worker) for key in ("alive", state, "busy")]
    end(session, conn)
    assert conn.execute("select alive from worker_status").fetchone() == (False,)
