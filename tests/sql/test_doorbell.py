"""The doorbell: it rings when somebody sleeps who wants the job, and no job is missed while falling asleep."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from helpers.sleeper import Sleeper

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]


def test_rings_only_for_a_sleeper_who_wants_the_job(conn: Connection, sleeper: Callable[..., Sleeper]) -> None:
    conn.execute("select enqueue_job('t')")
    worker = sleeper(["mail"])
    conn.execute("select enqueue_job('t', queue => 'mail')")
    assert worker.heard() == []  # it is awake
    worker.arm()
    conn.execute("select enqueue_job('t', queue => 'other')")
    assert worker.heard() == []
    conn.execute("select enqueue_job('t', queue => 'mail')")
    assert worker.heard() == ["mail"]
    conn.execute("select enqueue_job('t', queue => 'mail', execute_at => now() + '1 hour')")
    assert worker.heard() == []  # it looks by itself before
    conn.execute("select enqueue_job('t', queue => 'mail', execute_at => now() + '30 s')")
    assert worker.heard() == ["mail"]
    worker.queues = None
    worker.arm()
    conn.execute("select enqueue_jobs('{a,b,c}', queues => '{x,x,y}')")
    assert sorted(worker.heard()) == ["x", "y"]
    worker.disarm()
    conn.execute("select enqueue_job('t', queue => 'mail')")
    assert worker.heard() == []


def test_sleeper_without_a_channel_of_its_own_hears_the_schema_s(
    conn: Connection, connect: Connect, heard: Callable[[], list[str]]
) -> None:
    connect().execute("select set_worker_state(register_worker('psql'), 'asleep', queues => '{mail}')")
    conn.execute("select enqueue_job('t', queue => 'mail')")
    assert heard() == ["mail"]


def test_rings_for_whatever_becomes_claimable(conn: Connection, sleeper: Callable[..., Sleeper]) -> None:
    conn.execute("select enqueue_jobs('{t,t,t}', job_ids => '{a,b,c}')")
    gone = sleeper()
    row = conn.execute("select claim_id from claim_jobs(%s, null, 3)", [gone.id]).fetchone()
    assert row is not None
    worker = sleeper()
    worker.arm()
    conn.execute("select retry_job('a', 0, null, %s)", [row[0]])
    assert worker.heard() == ["default"]
    conn.execute("select release_jobs('{b}', %s)", [[row[0]]])
    assert worker.heard() == ["default"]
    gone.conn.execute("select retire_worker(%s)", [gone.id])
    assert worker.heard() == ["default"]
    conn.execute("update jobs set queue = 'other' where id = 'a'")
    assert worker.heard() == ["other"]


def test_claiming_and_settling_never_ring(conn: Connection, sleeper: Callable[..., Sleeper]) -> None:
    conn.execute("select enqueue_jobs('{t,t}', job_ids => '{a,b}')")
    worker = sleeper()
    worker.arm()
    claimed = conn.execute("select claim_id from claim_jobs(%s, null, 2)", [worker.id]).fetchall()
    conn.execute("select complete_jobs(%s, '{a}', %s)", [worker.id, list(claimed[0])])
    conn.execute("select fail_job('b', %s, 'x')", list(claimed[1]))
    assert worker.heard() == []


def test_one_is_rung_and_one_looks_after_it(conn: Connection, sleeper: Callable[..., Sleeper]) -> None:
    workers = [sleeper() for _ in range(4)]
    for worker in workers:
        worker.arm()
    conn.execute("select enqueue_job('t')")
    assert [worker.heard() for worker in workers] == [["default"], [""], [], []]
    workers[0].disarm()
    conn.execute("select enqueue_job('t')")
    assert [worker.heard() for worker in workers] == [[], ["default"], [""], []]
    workers[1].conn.close()  # its keys fall with it
    deadline = time.monotonic() + 5
    while conn.execute("select is_held('asleep', %s)", [workers[1].id]).fetchone() == (True,):
        assert time.monotonic() < deadline
    conn.execute("select enqueue_job('t')")
    assert [worker.heard() for worker in workers[2:]] == [["default"], [""]]


def test_nobody_is_rung_while_one_polls_and_somebody_when_it_dies(
    conn: Connection, sleeper: Callable[..., Sleeper]
) -> None:
    poller, worker, choosy = sleeper(), sleeper(), sleeper(["mail"])
    worker.arm()
    choosy.arm()
    assert poller.poll()
    conn.execute("select enqueue_job('t'), enqueue_job('t', queue => 'mail')")
    assert worker.heard() + choosy.heard() == []
    poller.conn.close()
    deadline = time.monotonic() + 5
    while conn.execute("select is_held('polling', %s)", [poller.id]).fetchone() == (True,):
        assert time.monotonic() < deadline
    conn.execute("select enqueue_job('t')")
    assert worker.heard() == ["default"]


@pytest.mark.parametrize("then", ["set_worker_state(%s, 'awake')", "retire_worker(%s)"])
def test_one_that_polled_and_stops_calls_all_who_want_its_queues(sleeper: Callable[..., Sleeper], then: str) -> None:
    mail, other, everything = sleeper(["mail"]), sleeper(["other"]), sleeper()
    poller = sleeper(["mail", "paper"])
    for worker in (mail, other, everything):
        worker.arm()
    poller.arm()
    poller.disarm()
    assert mail.heard() == []  # it only slept: nobody counted on it
    poller.poll()
    assert everything.tell("asleep")[1] == [poller.id]
    assert other.tell("asleep")[1] == []
    assert poller.tell("polling")[1] == []
    poller.conn.execute(f"select {then}", [poller.id])
    assert [worker.heard() for worker in (mail, other, everything)] == [["!"], [], ["!"]]


def test_one_that_polls_for_other_queues_than_before_keeps_no_old_key(
    conn: Connection, sleeper: Callable[..., Sleeper]
) -> None:
    poller, worker = sleeper(), sleeper()
    worker.arm()
    assert poller.poll()
    poller.queues = ["other"]
    poller.arm()
    conn.execute("select enqueue_job('t')")
    assert worker.heard() == ["default"]


def test_one_that_polls_for_other_queues_keeps_nobody_asleep(conn: Connection, sleeper: Callable[..., Sleeper]) -> None:
    poller, worker = sleeper(["mail"]), sleeper()
    worker.arm()
    assert poller.poll()
    conn.execute("select enqueue_job('t', queue => 'mail')")
    assert worker.heard() == []
    conn.execute("select enqueue_job('t', queue => 'other')")
    assert worker.heard() == ["other"]


def test_busy_workers_are_rung_last(conn: Connection, sleeper: Callable[..., Sleeper]) -> None:
    first, second = sleeper(), sleeper()
    first.arm()
    second.arm()
    first.mark_busy(True)
    conn.execute("select enqueue_job('t')")
    assert (first.heard(), second.heard()) == ([""], ["default"])
    second.mark_busy(True)
    conn.execute("select enqueue_job('t')")
    assert (first.heard(), second.heard()) == (["default"], [""])
    assert not first.poll()  # one that is busy is not on watch
    conn.execute("select enqueue_job('t')")
    assert second.heard() == []  # it is no less busy than the one that polls
    second.mark_busy(False)
    conn.execute("select enqueue_job('t')")
    assert second.heard() == ["default"]
    second.disarm()
    first.mark_busy(False)
    assert first.poll()
    second.arm()
    first.mark_busy(True)
    conn.execute("select enqueue_job('t')")
    assert second.heard() == ["default"]


def test_one_of_a_set_is_on_watch(sleeper: Callable[..., Sleeper]) -> None:
    first, second, choosy = sleeper(), sleeper(), sleeper(["mail"])
    assert first.poll()
    assert first.poll()
    assert not second.poll()
    assert choosy.poll()
    first.arm()
    assert second.poll()
    second.disarm()
    assert first.poll()


def test_call_for_help_reaches_one_sleeper(conn: Connection, sleeper: Callable[..., Sleeper]) -> None:
    caller, poller, other, worker, spare = sleeper(["mail"]), sleeper(), sleeper(["other"]), sleeper(), sleeper()
    caller.poll()
    poller.poll()
    for asleep in (other, worker, spare):
        asleep.arm()
    conn.execute("select call_workers(%s, 'help')", [caller.id])
    assert [one.heard() for one in (caller, poller, other, worker, spare)] == [[], [], [], ["!"], [""]]
    conn.execute("select call_workers(%s, 'watch')", [worker.id])
    assert [one.heard() for one in (caller, poller, other, worker, spare)] == [[], [], [""], [], [""]]


def test_keys_do_not_pile_up(conn: Connection, sleeper: Callable[..., Sleeper]) -> None:
    worker = sleeper()
    for _ in range(3):
        worker.arm()
        worker.poll()
        worker.mark_busy(True)
    worker.disarm()
    held = "select classid::regclass::text from pg_locks where locktype = 'advisory' and pid = %s"
    assert conn.execute(held, [worker.conn.info.backend_pid]).fetchall() == [("workers",)]
    worker.arm()
    worker.conn.execute("select retire_worker(%s)", [worker.id])
    assert conn.execute(held, [worker.conn.info.backend_pid]).fetchall() == []
    assert conn.execute("select count(*) from doorbell").fetchone() == (0,)


def test_snapshot_older_than_the_registration_rings_all_the_same(
    connect: Connect, heard: Callable[[], list[str]], sleeper: Callable[..., Sleeper]
) -> None:
    writer = connect(autocommit=False)
    writer.execute("set transaction isolation level repeatable read")
    writer.execute("select count(*) from jobs")  # takes its snapshot now
    sleeper().arm()
    writer.execute("select enqueue_job('t')")
    writer.commit()
    assert heard() == ["default"]


def test_snapshot_too_old_to_see_who_sleeps_notifies_nobody_who_is_not_there(
    connect: Connect, heard: Callable[[], list[str]], sleeper: Callable[..., Sleeper]
) -> None:
    writer, worker, poller = connect(autocommit=False), sleeper(["other"]), sleeper()

    def enqueue() -> list[str]:
        writer.execute("set transaction isolation level serializable")
        writer.execute("select enqueue_job('t')")
        writer.commit()
        return heard()

    assert enqueue() == []
    worker.arm()
    assert enqueue() == ["default"]  # it may serve this queue: its row may be younger than the snapshot
    poller.poll()
    assert enqueue() == []  # the key tells, whatever the snapshot, that one of every queue polls
    poller.disarm()
    assert enqueue() == ["default"]


def test_rollback_rings_for_nobody(connect: Connect, sleeper: Callable[..., Sleeper]) -> None:
    worker, writer = sleeper(), connect(autocommit=False)
    worker.arm()
    writer.execute("select enqueue_job('t')")
    writer.rollback()
    assert worker.heard() == []


def test_open_enqueues_shows_who_may_have_looked(connect: Connect) -> None:
    conn, writer = connect(), connect(autocommit=False)
    assert conn.execute("select open_transactions('jobs')").fetchone() == ([],)
    writer.execute("select enqueue_job('t')")
    row = conn.execute("select open_transactions('jobs')").fetchone()
    assert row is not None
    assert len(row[0]) == 1
    writer.rollback()
    assert conn.execute("select open_transactions('jobs')").fetchone() == ([],)
