"""Schedules among transactions that meet, workers that are killed, schedules that cannot be evaluated, and very many."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from random import Random
from typing import Any

import psycopg
import pytest
from helpers.schedules import create, jobs, make_due, places, schedule
from helpers.sleeper import Sleeper

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]

PAST, JOB = "2020-05-01 09:00:00Z", "s@2020-05-01T09:00:00Z"
PROMOTE = "select promote_jobs()"


def promote(conn: Connection) -> int:
    row = conn.execute(PROMOTE).fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture
def conn(connect: Connect) -> Connection:
    """A connection that fails rather than wait."""
    conn = connect()
    conn.execute("set lock_timeout = '2s'; set statement_timeout = '30s'")
    return conn


@pytest.fixture
def other(connect: Connect) -> Connection:
    """A connection whose transaction stays open until it is ended."""
    return connect(autocommit=False)


@pytest.mark.parametrize("commit", [True, False])
def test_two_sessions_promote_one_tick(conn: Connection, other: Connection, commit: bool) -> None:
    create(conn, "s", ends_at="2100-01-01Z")
    make_due(conn, "s", PAST)
    assert promote(other) == 1
    assert promote(conn) == 0
    assert jobs(conn) == []
    other.commit() if commit else other.rollback()
    assert promote(conn) == (0 if commit else 1)
    assert len(jobs(conn)) == 1
    assert places(conn) == [("s", True)]


def test_schedule_that_is_being_changed_is_skipped(conn: Connection, other: Connection, me: int) -> None:
    """The others fire meanwhile, and the worker is told to look again soon."""
    for id in ("s", "free"):
        create(conn, id)
        make_due(conn, id, PAST)
    other.execute("select create_schedule('s', 't', '0 9 * * *', priority => 6)")
    assert promote(conn) == 1
    assert [job.split("@")[0] for job in jobs(conn)] == ["free"]
    conn.execute("delete from jobs; delete from ready")
    with conn.transaction():
        assert conn.execute("select from claim_jobs(%s, null, 5)", [me]).fetchall() == []
        assert conn.execute("select current_setting('pgjobq.skipped')").fetchone() == ("held",)
    other.commit()
    assert promote(conn) > 0
    assert conn.execute("select id like 's@%', priority from jobs").fetchall() == [(True, 6)]
    assert places(conn) == [("free", True), ("s", True)]


@pytest.mark.parametrize("change", ["delete_schedule('s')", "enable_schedule('s', false)"])
def test_paused_or_deleted_while_it_is_due(conn: Connection, other: Connection, change: str) -> None:
    """Whichever comes first decides; nothing is left behind."""
    for first in (True, False):
        create(conn, "s", overlap="allow")
        conn.execute("select enable_schedule('s')")
        make_due(conn, "s", PAST)
        if first:
            other.execute(f"select {change}")
            assert promote(conn) == 0
        else:
            promote(other)
            conn.execute("set lock_timeout = '50ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                conn.execute(f"select {change}")
        other.commit()
        conn.execute("reset lock_timeout")
        conn.execute(f"select {change}")
        promote(conn)
        assert len(jobs(conn)) == (0 if first else 1)
        assert places(conn) == []


def test_place_that_is_held_while_its_schedule_is_deleted_is_an_orphan(conn: Connection, other: Connection) -> None:
    create(conn, "s")
    make_due(conn, "s", PAST)
    other.execute("select from scheduled for update")
    conn.execute("select delete_schedule('s')")
    other.rollback()
    assert places(conn) == [("s", False)]
    assert promote(conn) == 1
    assert (places(conn), jobs(conn)) == ([], [])


def test_job_of_the_same_id_in_an_open_transaction_delays_one_schedule(conn: Connection, other: Connection) -> None:
    for id in ("s", "free"):
        create(conn, id)
        make_due(conn, id, PAST)
    conn.execute("update schedules set ends_at = '2020-05-01 12:00Z'")
    other.execute("insert into jobs (id, type) values (%s, 'mine')", [JOB])
    assert promote(conn) == 1
    assert [job.split("@")[0] for job in jobs(conn)] == ["free"]
    other.rollback()
    assert promote(conn) == 1
    assert len(jobs(conn)) == 2


def test_in_repeatable_read(conn: Connection, other: Connection) -> None:
    create(conn, "s")
    make_due(conn, "s", PAST)
    other.execute("set transaction isolation level repeatable read")
    other.execute("select from jobs")
    assert promote(conn) == 1
    with pytest.raises(psycopg.errors.SerializationFailure):
        promote(other)
    other.rollback()
    assert len(jobs(conn)) == 1


BREAK = {
    "expression": "update schedules set expression = 'nonsense' where id = 'bad'",
    "zone": "update schedules set time_zone = 'Mars/Base' where id = 'bad'",
    "kind": "update schedules set kind = 'interval' where id = 'bad'",
    "data": "update schedules set data = '[1]' where id = 'bad'",
    "type": "update schedules set type = '' where id = 'bad'",
    "retries": "update schedules set max_retries = -1 where id = 'bad'",
    "size": "update schedules set data = jsonb_build_object('x', repeat('x', 900)) where id = 'bad'",
    "trigger": """create function public.no() returns trigger language plpgsql as $$ begin raise 'not this one'; end $$;
                  create trigger no before insert on jobs for each row when (new.id like 'bad@%') execute function public.no()""",
}


@pytest.mark.parametrize("how", BREAK)
def test_one_that_is_broken_stops_itself_alone(conn: Connection, how: str) -> None:
    conn.execute("set pgjobq.max_data_bytes = 500")
    for id in ("a", "bad", "z"):
        create(conn, id)
        make_due(conn, id, PAST)
    conn.execute(BREAK[how].encode())
    conn.execute("select enqueue_job('t', job_id => 'job', execute_at => now() + interval '1 hour')")
    conn.execute("update scheduled set execute_at = now() where job_id is not null")
    assert promote(conn) == 4
    assert sorted(job.split("@")[0] for job in jobs(conn)) == ["a", "job", "z"]
    bad = schedule(conn, "bad")
    assert bad["last_error"]
    assert (bad["next_run"], bad["enabled"]) == (None, True)
    assert places(conn) == [("a", True), ("z", True)]
    assert promote(conn) == 0
    conn.execute("drop trigger if exists no on jobs")
    create(conn, "bad")
    assert schedule(conn, "bad")["last_error"] is None
    assert places(conn) == [("a", True), ("bad", True), ("z", True)]


def test_creating_one_wakes_a_sleeper_whose_alarm_is_later(conn: Connection, sleeper: Callable[..., Sleeper]) -> None:
    worker = sleeper(["q"])
    worker.arm(60)
    create(conn, "s", "86400", kind="interval", queue="q")
    assert worker.heard() == []
    create(conn, "s", "5", kind="interval", queue="other")
    assert worker.heard() == []
    create(conn, "s", "5", kind="interval", queue="q")
    assert worker.heard() == ["q"]
    create(conn, "s", "5", kind="interval", queue="q")  # changes nothing
    assert worker.heard() == []
    conn.execute("select enable_schedule('s', false), enable_schedule('s', true)")
    assert worker.heard() == ["q"]


def test_worker_that_falls_asleep_waits_for_one_that_is_being_created(
    other: Connection, sleeper: Callable[..., Sleeper]
) -> None:
    worker = sleeper(["q"])
    worker.arm()
    worker.disarm()
    other.execute("select create_schedule('s', 't', '5', kind => 'interval', queue => 'q')")
    open_, *_ = worker.tell("asleep")
    assert len(open_) == 1
    other.commit()
    assert worker.heard() == []


@pytest.fixture
def many(conn: Connection) -> int:
    """10,000 schedules that are due in the same second."""
    conn.execute("set statement_timeout = '120s'")
    conn.execute(
        """insert into schedules (id, type, expression, time_zone, next_run, place, place_at)
           select 's' || n, 't', format('%s %s * * *', n % 60, n % 24),
                  (array['UTC', 'Europe/Paris', 'America/New_York'])[n % 3 + 1], date_trunc('second', now()), n, now()
             from generate_series(1, 10000) as n"""
    )
    conn.execute(
        "insert into scheduled (execute_at, seq, queue, lane, schedule_id) select place_at, place, queue, -5, id from schedules"
    )
    return 10000


def test_ten_thousand_that_are_due_in_one_second(conn: Connection, many: int, me: int) -> None:
    """Ten claims add the jobs of all, and take them."""
    taken = [conn.execute("select from claim_jobs(%s, null, 1000)", [me]).rowcount for _ in range(10)]
    assert taken == [1000] * 10
    row = conn.execute("select count(*), count(last_error), min(next_run) > now() from schedules").fetchone()
    assert row == (many, 0, True)
    assert conn.execute("select count(*) from scheduled").fetchone() == (many,)


# A worker that fires one tick after the other, as if each were now, and takes its time in the middle.
FIRE = """
import random, sys, psycopg
with psycopg.connect(sys.argv[1], options="-c search_path=pgjobq") as conn:
    while True:
        fired = conn.execute(
            "select fire_schedules(array[place.ctid], place.execute_at)"
            "  from (select ctid, execute_at from scheduled where execute_at < '2020-01-02Z'"
            "         order by execute_at, seq limit 1 for update skip locked) as place").fetchall()
        if random.random() < 0.05:
            conn.execute("select pg_sleep(0.01)")
        conn.execute("delete from jobs where id in (select id from jobs limit 3 for update skip locked)")
        conn.commit()
        if not fired and conn.execute("select not exists (select from scheduled where execute_at < '2020-01-02Z')").fetchone()[0]:
            break
"""
TICKS, PROCESSES = int(os.environ.get("PGJOBQ_TICKS", "600")), int(os.environ.get("PGJOBQ_TICK_PROCESSES", "3"))


def test_each_tick_once_while_workers_are_killed(conn: Connection, dsn: str) -> None:
    """Even if the jobs of ticks are deleted meanwhile, so that their ids are free again."""
    conn.execute("create table public.fired (id text)")
    conn.execute(
        """create function public.note() returns trigger language plpgsql as $$ begin insert into public.fired values (new.id); return null; end $$;
           create trigger note after insert on jobs for each row execute function public.note()"""
    )
    for n in range(20):
        create(conn, f"s{n}", "60", kind="interval", starts_at="2020-01-01Z", overlap="allow")
        make_due(conn, f"s{n}", "2020-01-01 00:00Z")
    conn.execute(
        "update schedules set ends_at = '2020-01-01Z'::timestamptz + interval '1 min' * (%s - 1)", [TICKS // 20]
    )
    random = Random(TICKS)  # noqa: S311  # which worker is killed is no secret
    command = [sys.executable, "-c", FIRE, dsn]
    workers = [subprocess.Popen(command) for _ in range(PROCESSES)]
    killed, deadline = 0, time.monotonic() + 60 + TICKS / 50
    try:
        while any(worker.poll() is None for worker in workers) or killed < PROCESSES:
            assert time.monotonic() < deadline
            time.sleep(0.05 + random.random() / 4)
            nth = random.randrange(PROCESSES)
            if workers[nth].poll() is None and killed < PROCESSES * 6:
                workers[nth].send_signal(signal.SIGKILL)
                killed += 1
            elif workers[nth].poll() in {0, None}:
                killed += workers[nth].poll() == 0  # there was nothing left to do
                continue
            workers[nth].wait()
            workers[nth] = subprocess.Popen(command)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    row = conn.execute("select count(*), count(distinct id), max(id) from public.fired").fetchone()
    assert row is not None
    assert row[:2] == (TICKS, TICKS)
    assert conn.execute("select count(*), count(next_run), count(last_error) from schedules").fetchone() == (20, 0, 0)
