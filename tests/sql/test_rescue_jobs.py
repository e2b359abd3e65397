"""register_worker, rescue_jobs and their kin: whose lock has fallen loses its jobs, and nobody else."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]


def register(conn: Connection, **options: Any) -> int:
    names = "".join(f", {name} => %s" for name in options)
    row = conn.execute(f"select register_worker('w'{names})", list(options.values())).fetchone()
    assert row is not None
    return int(row[0])


def end(session: Connection, watcher: Connection) -> None:
    """Close a session, and wait until the server has noticed: its locks fall when its backend ends."""
    pid = session.info.backend_pid
    session.close()
    deadline = time.monotonic() + 30
    while watcher.execute("select count(*) from pg_stat_activity where pid = %s", [pid]).fetchone() != (0,):
        assert time.monotonic() < deadline, "the backend did not end"
        time.sleep(0.01)


def rescue(conn: Connection, grace: str = "0") -> tuple[int, int, int]:
    row = conn.execute("select rescued, failed, watched from rescue_jobs(%s)", [grace]).fetchone()
    assert row is not None
    return row[0], row[1], row[2]


@pytest.fixture
def held(connect: Connect, conn: Connection) -> tuple[Connection, int]:
    """A worker's session, and its id: it runs job a."""
    session = connect()
    worker = register(session)
    conn.execute("select enqueue_job('t', job_id => 'a')")
    session.execute("select from claim_jobs(%s)", [worker])
    return session, worker


def test_live_worker_keeps_its_jobs_however_long_they_run(conn: Connection, held: tuple[Connection, int]) -> None:
    conn.execute("update jobs set started_at = now() - interval '10 days'")
    assert rescue(conn) == (0, 0, 1)
    assert conn.execute("select status from jobs").fetchone() == ("running",)


def test_jobs_of_a_dead_worker_go_back(conn: Connection, held: tuple[Connection, int]) -> None:
    session, worker = held
    end(session, conn)
    assert rescue(conn) == (1, 0, 1)
    row = conn.execute("select status, attempts, error from jobs").fetchone()
    assert row == ("pending", 1, f"worker {worker} stopped or died while it held this job (try 1 of 4)")
    assert conn.execute("select count(*) from workers").fetchone() == (0,)
    assert rescue(conn) == (0, 0, 0)
    assert [row[0] for row in conn.execute("select id from claim_jobs(99)")] == ["a"]


def test_grace_counts_from_the_first_suspicion(conn: Connection, held: tuple[Connection, int]) -> None:
    session, _ = held
    end(session, conn)
    assert rescue(conn, "2 s") == (0, 0, 1)
    assert conn.execute("select suspected_at is not null from workers").fetchone() == (True,)
    assert rescue(conn, "2 s") == (0, 0, 1)
    conn.execute("update workers set suspected_at = suspected_at - interval '3 s'")
    assert rescue(conn, "2 s") == (1, 0, 1)


def test_worker_that_reconnects_within_the_grace_keeps_its_jobs(
    connect: Connect, conn: Connection, held: tuple[Connection, int]
) -> None:
    session, worker = held
    end(session, conn)
    rescue(conn, "2 s")
    again = connect()
    assert register(again, worker_id=worker) == worker
    assert conn.execute("select suspected_at from workers").fetchone() == (None,)
    assert rescue(conn) == (0, 0, 1)
    assert again.execute("select complete_jobs(%s, '{a}', '{1}')", [worker]).fetchall() == []


def test_worker_that_comes_back_too_late_is_a_new_one(
    connect: Connect, conn: Connection, held: tuple[Connection, int]
) -> None:
    session, worker = held
    end(session, conn)
    rescue(conn)
    again = connect()
    fresh = register(again, worker_id=worker)
    assert fresh != worker
    assert again.execute("select complete_jobs(%s, '{a}', '{1}')", [worker]).fetchall() == [("a",)]


def test_worker_that_comes_back_during_its_rescue_waits_for_its_outcome(
    connect: Connect, conn: Connection, held: tuple[Connection, int]
) -> None:
    session, worker = held
    end(session, conn)
    rescuer, again = connect(autocommit=False), connect()
    assert rescue(rescuer) == (1, 0, 1)
    again.execute("set lock_timeout = '200ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        register(again, worker_id=worker)
    rescuer.commit()
    assert register(again, worker_id=worker) != worker


def test_job_that_kills_its_workers_fails_in_the_end(connect: Connect, conn: Connection) -> None:
    conn.execute("select enqueue_job('t', job_id => 'poison', max_retries => 1)")
    for expected in [(1, 0), (0, 1)]:
        session = connect()
        session.execute("select from claim_jobs(%s)", [register(session)])
        end(session, conn)
        assert rescue(conn)[:2] == expected
    row = conn.execute("select status, attempts, failed_at is not null, error from jobs").fetchone()
    assert row is not None
    assert row[:3] == ("failed", 2, True)
    assert "try 2 of 2" in row[3]


def test_one_rescuer_at_a_time(connect: Connect, held: tuple[Connection, int]) -> None:
    one, two = connect(autocommit=False), connect()
    end(held[0], two)
    assert rescue(one) == (1, 0, 1)
    assert rescue(two)[:2] == (0, 0)


def test_retired_worker_gives_its_jobs_back_at_once(conn: Connection, held: tuple[Connection, int]) -> None:
    session, worker = held
    session.execute("select retire_worker(%s)", [worker])
    assert conn.execute("select status from jobs").fetchone() == ("pending",)
    assert conn.execute("select count(*) from live_workers()").fetchone() == (0,)
    assert conn.execute("select count(*) from workers").fetchone() == (0,)


def test_heartbeat_in_place_of_a_lock(connect: Connect, conn: Connection) -> None:
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


def test_what_was_claimed_without_an_answer_is_given_back(conn: Connection) -> None:
    conn.execute("select enqueue_jobs('{t,t}', job_ids => '{a,b}')")
    known = conn.execute("select claim_id from claim_jobs(1)").fetchone()
    conn.execute("select from claim_jobs(1)")
    assert conn.execute("select release_unknown_jobs(1, %s)", [list(known or [])]).fetchone() == (1,)
    assert conn.execute("select id, status, attempts from jobs order by id").fetchall() == [
        ("a", "running", 1),
        ("b", "pending", 0),
    ]


def test_worker_status(conn: Connection, held: tuple[Connection, int]) -> None:
    session, worker = held
    conn.execute("select arm_doorbell(%s, null, 60)", [worker])
    row = conn.execute("select id, name, queues, alive, asleep, running from worker_status").fetchone()
    assert row == (worker, "w", None, True, True, 1)
    end(session, conn)
    assert conn.execute("select alive from worker_status").fetchone() == (False,)
