"""Rescue and the regular work of a worker wait for no row that another transaction has locked."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from helpers.calls import end, register
from helpers.until import until_row

from pgjobq import JobsHeld, Registry, Worker, job
from pgjobq.storage.base import Completed, Failed, Outcome, Released
from pgjobq.storage.postgres_storage import PostgresStorage

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]

NO_GRACE = "select rescued, job_ids from rescue_jobs('0 s')"


@pytest.fixture
def conn(connect: Connect) -> Connection:
    """A connection on which a statement fails instead of waiting for a lock."""
    conn = connect()
    conn.execute("set lock_timeout = '2s'; set statement_timeout = '10s'")
    return conn


def dead_worker_with(connect: Connect, conn: Connection, *ids: str) -> int:
    """Start a worker that sleeps, then claims these jobs one by one and dies. Return its id."""
    session = connect()
    worker = register(session)
    session.execute("select set_worker_state(%s, 'asleep')", [worker])
    for id_ in ids:
        session.execute("select enqueue_job('t', job_id => %s)", [id_])
        assert session.execute("select id from claim_jobs(%s, '{default}')", [worker]).fetchall() == [(id_,)]
    end(session, conn)
    return worker


def status(conn: Connection) -> dict[str, str]:
    return dict(conn.execute("select id, status from jobs").fetchall())


@pytest.mark.parametrize("holding", ["select from jobs where id = 'a' for update", "select cancel_job('a')"])
def test_rescue_skips_a_running_job_that_is_held(connect: Connect, conn: Connection, holding: str) -> None:
    """A later rescue gives back the held job. The first one gives back all others."""
    holder = connect(autocommit=False)
    dead_worker_with(connect, conn, "a", "b")
    dead_worker_with(connect, conn, "c")
    holder.execute(holding)
    assert conn.execute(NO_GRACE).fetchone() == (2, ["b", "c"])
    assert status(conn) == {"a": "running", "b": "pending", "c": "pending"}
    holder.rollback()
    assert conn.execute(NO_GRACE).fetchone() == (1, ["a"])


def test_rescue_skips_a_claim_that_is_held(connect: Connect, conn: Connection) -> None:
    """A later rescue gives back the jobs of the held claim. The first one gives back all others."""
    holder = connect(autocommit=False)
    dead_worker_with(connect, conn, "a", "b")
    holder.execute("select from claims where job_ids = '{a}' for update")
    assert conn.execute(NO_GRACE).fetchone() == (1, ["b"])
    holder.rollback()
    assert conn.execute(NO_GRACE).fetchone() == (1, ["a"])


FORGOTTEN = {
    "rescue": "select rescue_jobs('0 s')",
    "rescue, first look": "select rescue_jobs('1 hour')",
    "prune": "select prune_jobs('0 s')",
    "watch": "select watch_workers({watcher}, null, array[{dead}], '1 hour')",
    "watch and pass over": "update doorbell set passed_over = true where worker_id = {dead}",
    "retire": "select retire_worker({other})",
    "claim": "select claim_jobs({other}, '{{other}}')",
    "floors": "select advance_floors(1)",
    "register": "select register_worker('w')",
    "heartbeat": "select heartbeat_worker({other})",
    "give back": "select release_unknown_jobs({other}, '{{}}')",
    "sleep": "select set_worker_state({other}, 'asleep')",
    "complete": "select complete_jobs({other}, '{{mine}}', array(select id from claims where worker_id = {other}))",
    "enqueue": "select enqueue_job('t', job_id => 'more')",
}


@pytest.mark.parametrize("forgotten", FORGOTTEN)
def test_open_transaction_prevents_no_rescue(connect: Connect, conn: Connection, forgotten: str) -> None:
    """A worker that dies later is rescued, whatever function the open transaction has called."""
    holder = connect()
    other, watcher = register(holder, heartbeat=True), register(holder)
    conn.execute("select enqueue_job('t', job_id => 'mine')")
    conn.execute("select from claim_jobs(%s)", [other])
    conn.execute("select enqueue_job('t', job_id => 'due', queue => 'other')")
    early = dead_worker_with(connect, conn, "before")
    # This worker sleeps, so that it can be passed over, and dies after the transaction has begun.
    sleeper = connect()
    late = register(sleeper)
    sleeper.execute("select set_worker_state(%s, 'asleep')", [late])
    sleeper.execute("select enqueue_job('t', job_id => 'after', priority => 9)")
    assert sleeper.execute("select id from claim_jobs(%s, '{default}')", [late]).fetchall() == [("after",)]
    holder.execute("begin")
    holder.execute(FORGOTTEN[forgotten].format(other=other, watcher=watcher, dead=late))
    end(sleeper, conn)
    conn.execute(NO_GRACE)
    assert status(conn)["after"] == "pending"
    holder.rollback()
    conn.execute(NO_GRACE)
    assert status(conn)["before"] == "pending"
    assert conn.execute("select from workers where id = any(%s)", [[early, late]]).fetchall() == []
    conn.execute("select retire_worker(%s)", [register(conn)])
    assert conn.execute("select from doorbell where worker_id = any(%s)", [[early, late]]).fetchall() == []


@pytest.mark.parametrize("forgotten", FORGOTTEN)
def test_open_transaction_blocks_no_worker(connect: Connect, conn: Connection, forgotten: str) -> None:
    """Every step of another worker's work succeeds, whatever function the open transaction has called."""
    holder = connect()
    other, watcher = register(holder, heartbeat=True), register(holder)
    conn.execute("select enqueue_job('t', job_id => 'mine')")
    conn.execute("select from claim_jobs(%s)", [other])
    conn.execute("select enqueue_job('t', job_id => 'due', queue => 'other')")
    dead = dead_worker_with(connect, conn, "before")
    holder.execute("begin")
    holder.execute(FORGOTTEN[forgotten].format(other=other, watcher=watcher, dead=dead))
    worker, beating = register(conn), register(conn, heartbeat=True)
    conn.execute("select set_worker_state(%s, 'asleep')", [worker])
    conn.execute("select enqueue_job('t', job_id => 'own', priority => 10)")
    conn.execute("select set_worker_state(%s, 'polling')", [worker])
    claimed = conn.execute("select claim_id, id from claim_jobs(%s, '{default}')", [worker]).fetchall()
    assert [id_ for _, id_ in claimed] == ["own"]
    conn.execute("select complete_jobs(%s, '{own}', %s)", [worker, [claimed[0][0]]])
    conn.execute("select watch_workers(%s), heartbeat_worker(%s), advance_floors(1), prune_jobs()", [worker, beating])
    conn.execute(
        "select release_unknown_jobs(%s, '{}'), retire_worker(%s), retire_worker(%s)", [worker, worker, beating]
    )
    assert status(conn)["own"] == "completed"


def test_open_prune_blocks_others_for_at_most_a_minute(connect: Connect, conn: Connection) -> None:
    """An open prune holds the key of its minute only. A later prune deletes the jobs that it has not locked."""
    holder = connect(autocommit=False)
    conn.execute("select enqueue_jobs('{t,t}', job_ids => '{a,b}')")
    conn.execute("select cancel_job('a'), cancel_job('b')")
    minutes = "select (extract(epoch from clock_timestamp()) / 60)::bigint"
    earliest = conn.execute(minutes).fetchone()
    holder.execute("select prune_jobs('0 s', max_jobs => 1)")
    held = conn.execute(
        "select objid::bigint from pg_locks where locktype = 'advisory' and classid = lock_class('pruning')::oid"
    ).fetchall()
    latest = conn.execute(minutes).fetchone()
    assert held in ([earliest], [latest])
    holder.rollback()
    holder.execute("select from jobs where id = 'a' for update")  # only the row, like a prune of an earlier minute
    assert conn.execute("select pruned from prune_jobs('0 s')").fetchone() == (1,)


@pytest.mark.parametrize("keep", [True, False])
def test_held_job_does_not_delay_the_settling_of_others(
    connect: Connect, conn: Connection, storage: PostgresStorage, keep: bool
) -> None:
    """All other outcomes of the batch are settled, and the error names the outcome of the held job."""
    storage.keep_completed = keep
    conn.execute("select enqueue_jobs('{t,t,t,t,t}', job_ids => '{a,b,c,d,e}')")
    jobs = {job.id: job for job in storage.dequeue_many(5)}
    holder = connect(autocommit=False)
    holder.execute("select from jobs where id = 'b' for update")
    conn.execute("select cancel_job('c')")
    outcomes: list[Outcome] = [
        Completed(jobs["a"]),
        Completed(jobs["b"]),
        Completed(jobs["c"]),
        Failed(jobs["d"], "x"),
        Released(jobs["e"]),
    ]
    with pytest.raises(JobsHeld) as error:
        storage.settle(outcomes)
    assert error.value.outcomes == outcomes[1:2]
    assert error.value.lost == outcomes[2:3]
    left = {"b": "running", "c": "cancelled", "d": "failed", "e": "pending"}
    assert status(conn) == ({"a": "completed"} | left if keep else left)
    holder.rollback()
    assert storage.settle(error.value.outcomes) == []
    assert status(conn).get("b") == ("completed" if keep else None)


def test_worker_settles_other_jobs_while_a_transaction_holds_one(
    connect: Connect, conn: Connection, storage: PostgresStorage, registry: Registry
) -> None:
    """The worker settles the held job when the transaction has ended."""
    held = threading.Event()
    holder = connect(autocommit=False)

    @job(type="held", registry=registry)
    def wait_until_held() -> None:
        held.wait(20)

    @job(type="free", registry=registry)
    def do_nothing() -> None:
        pass

    conn.execute("select enqueue_job('held', job_id => 'held')")
    worker = Worker(storage, registry=registry, concurrency=2)
    worker.start()
    try:
        until_row(conn, "select from jobs where id = 'held' and status = 'running'")
        holder.execute("select from jobs where id = 'held' for update")
        held.set()
        for number in range(3):
            conn.execute("select enqueue_jobs(array_fill('free'::text, array[20]))")
            until_row(conn, f"select from count_jobs() where status = 'completed' and jobs = {20 * (number + 1)}")
        assert status(conn)["held"] == "running"
        holder.rollback()
        until_row(conn, "select from jobs where id = 'held' and status = 'completed'")
    finally:
        worker.stop()
