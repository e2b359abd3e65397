"""why_job names the reason for which a job is not running. Each test arranges one reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from helpers.calls import claim, end, enqueue, one, register
from helpers.sleeper import Sleeper

from pgjobq.devserver import DevServer
from pgjobq.postgres.schema import migrate

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]
NewSleeper = Callable[..., Sleeper]

MOMENT = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+00"


def why(conn: Connection, job_id: str = "a") -> str:
    return str(one(conn, "select why_job(%s)", job_id))


def says(conn: Connection, pattern: str, job_id: str = "a") -> None:
    """Check the whole sentence. AGO and IN match a moment and its distance from now."""
    told = why(conn, job_id)
    pattern = pattern.replace("AGO", rf"{MOMENT} \([\w ]+ ago\)").replace("IN", rf"{MOMENT} \(in [\w ]+\)")
    assert re.fullmatch(pattern, told), told


def add(conn: Connection, job_id: str = "a", options: str = "") -> None:
    conn.execute(f"select enqueue_job('t', job_id => '{job_id}'{options and ', '}{options})".encode())


def without_triggers(conn: Connection, statement: str) -> None:
    conn.execute("set session_replication_role = replica")
    conn.execute(statement.encode())
    conn.execute("set session_replication_role = origin")


def fall_due(conn: Connection) -> None:
    """Make the scheduled jobs due, as if an hour had passed."""
    past = "execute_at = execute_at - interval '1 h'"
    without_triggers(conn, f"update jobs set {past}; update scheduled set {past}")


# -- no job ------------------------------------------------------------------------------------------


def test_unknown_job(conn: Connection, connect: Connect) -> None:
    says(conn, r"There is no job 'a', or the transaction that adds it has not committed\.")
    other = connect(autocommit=False)
    add(other)
    assert why(conn).startswith("There is no job 'a'")
    assert why(conn, "it's").startswith("There is no job 'it''s'")
    assert one(conn, "select why_job(null)") is not None


def test_id_of_a_job_that_was_folded_into_another(conn: Connection) -> None:
    for job_id in ("first", "second"):
        conn.execute("select add_job('t', job_id => %s, unique_key => 'key')", [job_id])
    assert why(conn, "second").startswith("There is no job 'second'")
    says(
        conn,
        r"There is no job 'key', but the job 'first', which is pending, was the last to get this unique key\.",
        "key",
    )


def test_id_of_a_schedule_and_of_its_tick(conn: Connection) -> None:
    conn.execute("select create_schedule('nightly', 't', '@daily')")
    says(conn, r"There is no job 'nightly'; the schedule 'nightly' runs next at IN\.", "nightly")
    tick = "nightly@2000-01-01T00:00:00Z"
    says(conn, rf"There is no job '{tick}'; the schedule 'nightly' runs next at IN\.", tick)
    conn.execute("select enable_schedule('nightly', false)")
    says(conn, r"There is no job 'nightly'; the schedule 'nightly' is paused\.", "nightly")
    conn.execute("update schedules set enabled = true, next_run = null")
    says(conn, r"There is no job 'nightly'; the schedule 'nightly' has ended\.", "nightly")
    conn.execute("update schedules set last_error = E'it broke\nthere'")
    says(conn, r"There is no job 'nightly'; the schedule 'nightly' has stopped: it broke", "nightly")


# -- pending -----------------------------------------------------------------------------------------


def test_job_that_is_due_later(conn: Connection) -> None:
    add(conn, options="execute_at => now() + interval '5 minutes 30 s'")
    says(conn, r"The job is due at IN\.")
    assert why(conn).endswith("(in 5 minutes).")


def test_job_that_waits_for_its_next_try(conn: Connection, me: int) -> None:
    add(conn)
    claim(conn, me)
    claim_id = one(conn, "select claim_id from jobs")
    conn.execute("select retry_job('a', 90, E'ValueError: no\nTraceback', %s)", [claim_id])
    says(conn, r"The job waits until IN for start 2, after the error: ValueError: no\.")


def test_job_that_expired(conn: Connection) -> None:
    add(conn)
    conn.execute("update jobs set expires_at = now() - interval '1 s'")
    says(conn, r"The job expired at AGO; a claim cancels it when its turn comes\.")


def test_infinite_times(conn: Connection) -> None:
    add(conn)
    conn.execute("update jobs set expires_at = '-infinity'")
    assert why(conn).startswith("The job expired at ")


@pytest.mark.parametrize(("kind", "name"), [("queue", "default"), ("type", "t")])
def test_job_of_a_paused_queue_or_type(conn: Connection, sleeper: NewSleeper, kind: str, name: str) -> None:
    sleeper().arm()
    conn.execute("select set_config('pgjobq.actor', 'ada', false)")
    add(conn)
    conn.execute(f"select pause_{kind}('{name}', now() + interval '1 h', 'the provider is down.')".encode())
    says(conn, rf"The {kind} '{name}' is paused until IN; ada paused it at AGO, because: the provider is down\.")
    conn.execute(f"select pause_{kind}('{name}')".encode())
    says(conn, rf"The {kind} '{name}' is paused until it is resumed; ada paused it at AGO\.")
    conn.execute("update pauses set paused_until = now() - interval '1 s'")
    assert why(conn).startswith("Nothing keeps the job")


def test_job_whose_queue_no_worker_serves(conn: Connection, connect: Connect) -> None:
    add(conn)
    says(conn, r"No live worker serves the queue 'default' \(live workers: 0\)\.")
    register(conn, queues=["mail"])
    says(conn, r"No live worker serves the queue 'default' \(live workers: 1\)\.")
    other = connect()
    register(other)
    assert "No live worker" not in why(conn)
    end(other, conn)
    says(conn, r"No live worker serves the queue 'default' \(live workers: 1\)\.")


def test_job_whose_type_no_worker_knows(conn: Connection, connect: Connect, me: int) -> None:
    add(conn)
    conn.execute("select leave_types(%s, '{x,t}')", [me])
    register(connect(), queues=["mail"])
    says(
        conn,
        r"No live worker that serves the queue 'default' has a handler for the type 't' \(workers that serve it: 1\)\.",
    )
    conn.execute("select leave_types(%s, '{x}')", [me])
    assert "handler" not in why(conn)


def test_job_that_is_the_next(conn: Connection, sleeper: NewSleeper) -> None:
    add(conn)
    worker = sleeper()
    for state in (worker.arm, worker.poll):
        state()
        says(
            conn, r"Nothing keeps the job from starting: it is the next in the queue 'default', and a worker that .*\."
        )


def test_workers_without_room(conn: Connection, sleeper: NewSleeper) -> None:
    enqueue(conn, 4)
    add(conn)
    worker = sleeper()
    claim(conn, worker.id, 3)
    conn.execute("select cancel_job('j000000')")
    busy = (
        r"No worker that serves the queue 'default' is waiting for jobs "
        r"\(workers: 1, jobs that they hold: 2, jobs ahead of this one: 1\)\."
    )
    says(conn, busy)
    worker.arm()
    assert "waiting for jobs (" not in why(conn)
    worker.queues = ["mail"]  # the worker is at its limit for the queue
    worker.arm()
    says(conn, busy)


def test_worker_with_heartbeats_may_have_room(conn: Connection) -> None:
    register(conn, heartbeat=True)
    add(conn)
    assert why(conn).startswith("Nothing keeps the job")


def test_jobs_ahead(conn: Connection, sleeper: NewSleeper) -> None:
    sleeper().arm()
    enqueue(conn, 2)
    add(conn)
    add(conn, "urgent", "priority => 9")
    add(conn, "elsewhere", "priority => 9, queue => 'mail'")
    add(conn, "late", "priority => 1")
    ahead = (
        r"{} ahead of it in the queue 'default', {} of them of higher priority; live workers that serve the queue: 1\."
    )
    says(conn, ahead.format("3 jobs are", 1))
    says(conn, ahead.format("1 job is", "all"), "j000000")
    says(conn, ahead.format("4 jobs are", "all"), "late")
    assert why(conn, "urgent").startswith("Nothing keeps the job")


def test_due_job_that_no_claim_has_promoted(conn: Connection, sleeper: NewSleeper) -> None:
    sleeper().arm()
    add(conn, options="execute_at => now() + interval '1 h'")
    fall_due(conn)
    assert one(conn, "select count(*) from scheduled") == 1
    assert why(conn).startswith("Nothing keeps the job")


def test_suspect_that_is_claimed_alone(conn: Connection, connect: Connect, me: int) -> None:
    add(conn, "other")
    add(conn)
    conn.execute("update jobs set crashes = 1 where id = 'a'")
    assert "crashes" not in why(conn)
    claim(conn, me)
    says(
        conn,
        r"Workers died while they held the job \(crashes: 1\), so .* and all workers that serve its queue hold jobs\.",
    )


@pytest.mark.parametrize("later", [False, True])
def test_job_without_a_place(conn: Connection, me: int, later: bool) -> None:
    at = "now() + interval '1 h'" if later else "null"
    enqueue(conn, 3)
    without_triggers(conn, f"insert into jobs (id, type, execute_at) values ('a', 't', {at})")
    missing = r"but it has no place in line, so no worker finds it; repair_jobs \(pgjobq repair\) gives it one\."
    says(conn, f"The job is due at IN, {missing}" if later else f"The job is due, {missing}")
    conn.execute("select repair_jobs()")
    assert "no place" not in why(conn)


def test_urgent_job_without_a_place_in_a_long_queue(conn: Connection, sleeper: NewSleeper) -> None:
    sleeper().arm()
    enqueue(conn, 10_050)
    without_triggers(conn, "insert into jobs (id, type, priority) values ('a', 't', 9), ('later', 't', 1)")
    assert "no place" in why(conn)
    says(
        conn,
        r"10,000\+ jobs are ahead of it in the queue 'default', all of them of higher priority; live .*: 1\.",
        "later",
    )
    says(
        conn,
        r"10,000\+ jobs are ahead of it in the queue 'default', none of them of higher priority; live .*",
        "j010040",
    )
    assert why(conn, "j010000").startswith("10,000 jobs are")


# -- locked rows -------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["select 1", "savepoint s"])
@pytest.mark.parametrize("lock", ["select from jobs where id = 'a' for update", "update jobs set data = '{\"x\": 1}'"])
def test_locked_row(conn: Connection, connect: Connect, me: int, before: str, lock: str) -> None:
    add(conn)
    other = connect(autocommit=False)
    other.execute("set application_name = 'psql'")
    other.execute(before.encode())
    other.execute(lock.encode())
    locked = (
        rf"The row of the job is locked by the session with pid {other.info.backend_pid} \(psql\), so claims skip it\."
    )
    says(conn, locked)
    conn.execute("begin read only")
    says(conn, locked)
    conn.execute("rollback")
    other.rollback()
    assert "locked" not in why(conn)
    assert claim(conn, me) == ["a"]


def test_row_that_a_foreign_key_locks_can_be_claimed(conn: Connection, connect: Connect, me: int) -> None:
    add(conn)
    other = connect(autocommit=False)
    other.execute("select from jobs for key share")
    assert "locked" not in why(conn)
    assert claim(conn, me) == ["a"]


def test_row_with_several_lockers(conn: Connection, connect: Connect, me: int) -> None:
    add(conn)
    others = [connect(autocommit=False) for _ in range(2)]
    for other in others:
        other.execute("select from jobs for share")
    says(conn, r"The row of the job is locked by another transaction, so claims skip it\.")


def test_why_job_leaves_no_lock(conn: Connection, connect: Connect, me: int) -> None:
    add(conn)
    conn.execute("begin; select from jobs for update; rollback")
    reader = connect(autocommit=False)
    assert "locked" not in why(reader)
    assert claim(conn, me) == ["a"]


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_row_that_changed_after_the_snapshot(conn: Connection, connect: Connect, me: int, isolation: str) -> None:
    add(conn)
    reader = connect()
    reader.execute(f"begin isolation level {isolation}".encode())
    reader.execute("select from jobs")
    conn.execute("update jobs set data = '{}'")
    assert "locked" not in why(reader)


def test_row_that_a_prepared_transaction_locks() -> None:
    with DevServer(settings={"max_prepared_transactions": "2"}) as server:
        migrate(server.dsn)
        with psycopg.connect(server.dsn, autocommit=True, options="-c search_path=pgjobq") as conn:
            add(conn)
            conn.execute("begin; select from jobs for update; prepare transaction 'order 7'")
            says(conn, r"The row of the job is locked by the prepared transaction 'order 7', so claims skip it\.")
            conn.execute("rollback prepared 'order 7'")
            assert "locked" not in why(conn)


# -- running -----------------------------------------------------------------------------------------


def test_running_job(conn: Connection, connect: Connect, me: int) -> None:
    add(conn)
    claim(conn, me)
    running = rf"The job is running: worker {me} \(w\) claimed it at AGO, for start 1"
    says(conn, rf"{running}\.")
    other = connect(autocommit=False)
    other.execute("select from jobs for update")
    says(conn, rf"{running}; its row is locked by the session with pid {other.info.backend_pid}, which may be .*\.")


def test_running_job_of_a_dead_worker(conn: Connection, connect: Connect) -> None:
    add(conn)
    other = connect()
    worker = register(other)
    claim(other, worker)
    end(other, conn)
    dead = rf"The job is held by worker {worker} \(w\), which claimed it at AGO and is dead; "
    says(conn, rf"{dead}no worker is alive to rescue the job\.")
    register(conn)
    says(conn, rf"{dead}a live worker rescues the job in a few seconds\.")


def test_running_job_without_a_claim(conn: Connection, me: int) -> None:
    add(conn)
    claim(conn, me)
    conn.execute("delete from claims")
    says(
        conn, r"The job is running, but no claim holds it, so .*; repair_jobs \(pgjobq repair\) puts it back in line\."
    )


# -- ended -------------------------------------------------------------------------------------------


def test_ended_jobs(conn: Connection, me: int) -> None:
    for job_id in ("completed", "failed", "cancelled", "silent"):
        add(conn, job_id)
    claim(conn, me, 2)
    conn.execute("select complete_jobs(%s, array[id], array[claim_id]) from jobs where id = 'completed'", [me])
    conn.execute("select fail_job(id, claim_id, E'ValueError: no.\nTraceback') from jobs where id = 'failed'")
    conn.execute("select cancel_job('cancelled', 'not needed'), cancel_job('silent')")
    says(conn, r"The job was completed at AGO\.", "completed")
    says(conn, r"The job failed at AGO, after start 1: ValueError: no\.", "failed")
    says(conn, r"The job was cancelled at AGO: not needed\.", "cancelled")
    says(conn, r"The job was cancelled at AGO\.", "silent")


def test_expired_job_that_was_cancelled(conn: Connection, me: int) -> None:
    test_job_that_expired(conn)
    assert claim(conn, me) == []
    says(conn, r"The job expired before it could start, and was cancelled at AGO\.")


# -- the oldest job of each queue --------------------------------------------------------------------


def test_oldest_due_job_of_each_queue(conn: Connection, sleeper: NewSleeper) -> None:
    sleeper(["default", "mail"]).arm()
    for job_id in ("gone", "old", "young"):
        add(conn, job_id)
    add(conn, "urgent", "priority => 9")
    add(conn, "letter", "queue => 'mail'")
    add(conn, "due", "queue => 'due', execute_at => now() + interval '1 h'")
    add(conn, "later", "queue => 'later', execute_at => now() + interval '2 h'")
    fall_due(conn)
    conn.execute("select cancel_job('gone'), pause_queue('mail')")
    rows = conn.execute("select queue, job_id, due_at <= now(), why from oldest_jobs()").fetchall()
    assert [row[:3] for row in rows] == [("default", "old", True), ("mail", "letter", True), ("due", "due", True)]
    for row, beginning in zip(rows, ("2 jobs are ahead", "The queue 'mail' is paused", "No live worker"), strict=True):
        assert row[3].startswith(beginning)
    assert len(conn.execute("select from oldest_jobs(1)").fetchall()) == 1


# -- what changes meanwhile -------------------------------------------------------------------------


def test_job_that_was_claimed_meanwhile_does_not_count_as_misplaced(conn: Connection, me: int) -> None:
    add(conn)
    conn.execute(
        f"""do $$ declare v_job jobs; begin
            select * from jobs into v_job;
            perform from claim_jobs({me});
            assert (places_ahead(v_job)).placed;
            select * from jobs into v_job;
            perform complete_jobs({me}, array[v_job.id], array[v_job.claim_id], array[v_job.claim_id]);
            assert not exists (select from claims);
            assert why_running(v_job) not like '%no claim%';
        end $$""".encode()
    )


# -- rights and cost ---------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["pgjobq_read", "pgjobq_work", "pgjobq_admin"])
def test_roles_that_may_ask(conn: Connection, connect: Connect, role: str) -> None:
    """The reader sees what the owner sees, of a locked row too."""
    add(conn)
    other = connect(autocommit=False)
    other.execute("select from jobs for update")
    told = why(conn)
    assert f"pid {other.info.backend_pid}" in told
    conn.execute(f"set role {role}".encode())
    assert why(conn) == told
    assert conn.execute("select job_id, why from oldest_jobs()").fetchall() == [("a", told)]


def test_role_that_may_only_enqueue_may_not_ask(conn: Connection) -> None:
    conn.execute("set role pgjobq_enqueue")
    for call in ("why_job('a')", "oldest_jobs()"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(f"select {call}".encode())


@pytest.mark.parametrize("at", ["null", "date_trunc('hour', now() + interval '2 h')"])
def test_a_long_queue_is_not_read_to_its_end(conn: Connection, sleeper: NewSleeper, at: str) -> None:
    """Reading is bounded by 10,000 places, and jobs are read by their keys. The counts are rows, not times."""
    sleeper().arm()
    conn.execute(
        f"insert into jobs (id, type, priority, execute_at) select 'j' || n, 't', n % 3, {at} from generate_series(1, 100000) n".encode()
    )
    read = "select relname, seq_tup_read + coalesce(idx_tup_fetch, 0) from pg_stat_xact_user_tables where schemaname = 'pgjobq'"
    conn.execute("analyze")
    for call in ("why_job('j99999')", "why_job('j1')", "why_job('j100001')", "oldest_jobs()"):
        with conn.transaction():
            before: dict[str, int] = dict(conn.execute(read).fetchall())
            conn.execute(f"select {call}".encode())
            after: dict[str, int] = dict(conn.execute(read).fetchall())
        rows = {table: after[table] - before[table] for table in after}
        assert rows["ready"] + rows["scheduled"] <= 25_000, (call, rows)
        assert rows["jobs"] <= 10_400, (call, rows)
