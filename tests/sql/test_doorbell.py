"""The doorbell: an enqueue notifies a worker that sleeps and serves the queue, and no job is missed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from helpers.sleeper import Sleeper

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]


def test_enqueue_notifies_only_a_sleeping_worker_that_serves_the_queue(
    conn: Connection, sleeper: Callable[..., Sleeper]
) -> None:
    conn.execute("select enqueue_job('t')")
    worker = sleeper(["mail"])
    conn.execute("select enqueue_job('t', queue => 'mail')")
    assert worker.heard() == []  # the worker is awake
    worker.arm()
    conn.execute("select enqueue_job('t', queue => 'other')")
    assert worker.heard() == []
    conn.execute("select enqueue_job('t', queue => 'mail')")
    assert worker.heard() == ["mail"]
    conn.execute("select enqueue_job('t', queue => 'mail', execute_at => now() + '1 hour')")
    assert worker.heard() == []  # the worker's alarm comes earlier
    conn.execute("select enqueue_job('t', queue => 'mail', execute_at => now() + '30 s')")
    assert worker.heard() == ["mail"]
    worker.queues = None
    worker.arm()
    conn.execute("select enqueue_jobs('{a,b,c}', queues => '{x,x,y}')")
    assert sorted(worker.heard()) == ["x", "y"]
    worker.disarm()
    conn.execute("select enqueue_job('t', queue => 'mail')")
    assert worker.heard() == []


def test_worker_without_its_own_channel_is_notified_on_the_schema_channel(
    conn: Connection, connect: Connect, heard: Callable[[], list[str]]
) -> None:
    connect().execute("select set_worker_state(register_worker('psql'), 'asleep', queues => '{mail}')")
    conn.execute("select enqueue_job('t', queue => 'mail')")
    assert heard() == ["mail"]


def test_every_way_of_becoming_claimable_notifies(conn: Connection, sleeper: Callable[..., Sleeper]) -> None:
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


def test_claims_and_settles_notify_no_worker(conn: Connection, sleeper: Callable[..., Sleeper]) -> None:
    conn.execute("select enqueue_jobs('{t,t}', job_ids => '{a,b}')")
    worker = sleeper()
    worker.arm()
    claimed = conn.execute("select claim_id from claim_jobs(%s, null, 2)", [worker.id]).fetchall()
    conn.execute("select complete_jobs(%s, '{a}', %s)", [worker.id, list(claimed[0])])
    conn.execute("select fail_job('b', %s, 'x')", list(claimed[1]))
    assert worker.heard() == []


def test_one_worker_is_notified_and_another_watches_it(conn: Connection, sleeper: Callable[..., Sleeper]) -> None:
    workers = [sleeper() for _ in range(4)]
    for worker in workers:
        worker.arm()
    conn.execute("select enqueue_job('t')")
    assert [worker.heard() for worker in workers] == [["default"], [""], [], []]
    workers[0].disarm()
    conn.execute("select enqueue_job('t')")
    assert [worker.heard() for worker in workers] == [[], ["default"], [""], []]
    workers[1].conn.close()  # its keys are released with the session
    deadline = time.monotonic() + 5
    while conn.execute("select is_held('asleep', %s)", [workers[1].id]).fetchone() == (True,):
        assert time.monotonic() < deadline
    conn.execute("select enqueue_job('t')")
    assert [worker.heard() for worker in workers[2:]] == [["default"], [""]]


def test_no_worker_is_notified_while_another_polls_until_that_one_dies(
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
def test_worker_that_stops_polling_calls_all_that_serve_its_queues(sleeper: Callable[..., Sleeper], then: str) -> None:
    mail, other, everything = sleeper(["mail"]), sleeper(["other"]), sleeper()
    poller = sleeper(["mail", "paper"])
    for worker in (mail, other, everything):
        worker.arm()
    poller.arm()
    poller.disarm()
    assert mail.heard() == []  # the worker only slept, so enqueues did not rely on it
    poller.poll()
    assert everything.tell("asleep")[1] == [poller.id]
    assert other.tell("asleep")[1] == []
    assert poller.tell("polling")[1] == []
    poller.conn.execute(f"select {then}", [poller.id])
    assert [worker.heard() for worker in (mail, other, everything)] == [["!"], [], ["!"]]


def test_poller_that_changes_its_queues_releases_its_old_key(conn: Connection, sleeper: Callable[..., Sleeper]) -> None:
    poller, worker = sleeper(), sleeper()
    worker.arm()
    assert poller.poll()
    poller.queues = ["other"]
    poller.arm()
    conn.execute("select enqueue_job('t')")
    assert worker.heard() == ["default"]


def test_poller_for_other_queues_does_not_suppress_notifications(
    conn: Connection, sleeper: Callable[..., Sleeper]
) -> None:
    poller, worker = sleeper(["mail"]), sleeper()
    worker.arm()
    assert poller.poll()
    conn.execute("select enqueue_job('t', queue => 'mail')")
    assert worker.heard() == []
    conn.execute("select enqueue_job('t', queue => 'other')")
    assert worker.heard() == ["other"]


def test_busy_workers_are_notified_last(conn: Connection, sleeper: Callable[..., Sleeper]) -> None:
    first, second = sleeper(), sleeper()
    first.arm()
    second.arm()
    first.mark_busy(True)
    conn.execute("select enqueue_job('t')")
    assert (first.heard(), second.heard()) == ([""], ["default"])
    second.mark_busy(True)
    conn.execute("select enqueue_job('t')")
    assert (first.heard(), second.heard()) == (["default"], [""])
    assert not first.poll()  # a busy worker is not on watch
    conn.execute("select enqueue_job('t')")
    assert second.heard() == []  # it is as busy as the polling worker
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


def test_one_polling_worker_of_each_set_of_queues_is_on_watch(sleeper: Callable[..., Sleeper]) -> None:
    first, second, choosy = sleeper(), sleeper(), sleeper(["mail"])
    assert first.poll()
    assert first.poll()
    assert not second.poll()
    assert choosy.poll()
    first.arm()
    assert second.poll()
    second.disarm()
    assert first.poll()


def test_call_for_help_wakes_one_sleeping_worker(conn: Connection, sleeper: Callable[..., Sleeper]) -> None:
    caller, poller, other, worker, spare = sleeper(["mail"]), sleeper(), sleeper(["other"]), sleeper(), sleeper()
    caller.poll()
    poller.poll()
    for asleep in (other, worker, spare):
        asleep.arm()
    conn.execute("select call_workers(%s, 'help')", [caller.id])
    assert [one.heard() for one in (caller, poller, other, worker, spare)] == [[], [], [], ["!"], [""]]
    conn.execute("select call_workers(%s, 'watch')", [worker.id])
    assert [one.heard() for one in (caller, poller, other, worker, spare)] == [[], [], [""], [], [""]]


def test_keys_do_not_accumulate(conn: Connection, sleeper: Callable[..., Sleeper]) -> None:
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


def test_snapshot_older_than_the_registration_still_notifies(
    connect: Connect, heard: Callable[[], list[str]], sleeper: Callable[..., Sleeper]
) -> None:
    writer = connect(autocommit=False)
    writer.execute("set transaction isolation level repeatable read")
    writer.execute("select count(*) from jobs")  # takes the snapshot
    sleeper().arm()
    writer.execute("select enqueue_job('t')")
    writer.commit()
    assert heard() == ["default"]


def test_snapshot_too_old_to_see_workers_notifies_only_if_a_worker_sleeps(
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
    assert enqueue() == ["default"]  # the worker's row may be newer than the snapshot, so it may serve this queue
    poller.poll()
    assert enqueue() == []  # whatever the snapshot, the key shows that a worker polls every queue
    poller.disarm()
    assert enqueue() == ["default"]


def test_rollback_notifies_no_worker(connect: Connect, sleeper: Callable[..., Sleeper]) -> None:
    worker, writer = sleeper(), connect(autocommit=False)
    worker.arm()
    writer.execute("select enqueue_job('t')")
    writer.rollback()
    assert worker.heard() == []


def test_open_transactions_lists_open_enqueues(connect: Connect) -> None:
    conn, writer = connect(), connect(autocommit=False)
    assert conn.execute("select open_transactions('jobs')").fetchone() == ([],)
    writer.execute("select enqueue_job('t')")
    row = conn.execute("select open_transactions('jobs')").fetchone()
    assert row is not None
    assert len(row[0]) == 1
    writer.rollback()
    assert conn.execute("select open_transactions('jobs')").fetchone() == ([],)
