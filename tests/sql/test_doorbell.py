"""The doorbell: it rings when somebody sleeps who wants the job, and no job is missed while falling asleep."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from pgjobq.storage.postgres_storage import PostgresStorage

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]
MakeStorage = Callable[..., PostgresStorage]


@pytest.fixture
def heard(connect: Connect) -> Callable[[], list[str]]:
    """What a listener on the schema's channel has heard since it was asked last."""
    listener = connect()
    listener.execute("listen pgjobq")
    return lambda: [notification.payload for notification in listener.notifies(timeout=0.2)]


def test_rings_only_for_a_sleeper_who_wants_the_job(conn: Connection, heard: Callable[[], list[str]]) -> None:
    conn.execute("select enqueue_job('t')")
    assert heard() == []
    conn.execute("select arm_doorbell(1, '{mail}', 60)")
    conn.execute("select enqueue_job('t', queue => 'other')")
    assert heard() == []
    conn.execute("select enqueue_job('t', queue => 'mail')")
    assert heard() == ["mail"]
    conn.execute("select enqueue_job('t', queue => 'mail', execute_at => now() + '1 hour')")
    assert heard() == []  # it wakes by itself before
    conn.execute("select enqueue_job('t', queue => 'mail', execute_at => now() + '30 s')")
    assert heard() == ["mail"]
    conn.execute("select arm_doorbell(1, null, 60)")
    conn.execute("select enqueue_jobs('{a,b,c}', queues => '{x,x,y}')")
    assert sorted(heard()) == ["x", "y"]
    conn.execute("select disarm_doorbell(1)")
    conn.execute("select enqueue_job('t', queue => 'mail')")
    assert heard() == []


def test_rings_for_whatever_becomes_claimable(conn: Connection, heard: Callable[[], list[str]]) -> None:
    conn.execute("select enqueue_jobs('{t,t,t}', job_ids => '{a,b,c}')")
    conn.execute("select from claim_jobs(1, null, 3)")
    conn.execute("select arm_doorbell(2, null, 60)")
    conn.execute("select retry_job('a', 0, null, 1, 1)")
    assert heard() == ["default"]
    conn.execute("select release_jobs(1, '{b}', '{1}')")
    assert heard() == ["default"]
    conn.execute("select give_away_jobs(1)")
    assert heard() == ["default"]
    conn.execute("update jobs set queue = 'other' where id = 'a'")
    assert heard() == ["other"]


def test_claiming_and_settling_never_ring(conn: Connection, heard: Callable[[], list[str]]) -> None:
    conn.execute("select enqueue_jobs('{t,t}', job_ids => '{a,b}')")
    conn.execute("select arm_doorbell(2, null, 60)")
    conn.execute("select from claim_jobs(1, null, 2)")
    conn.execute("select complete_jobs(1, '{a}', '{1}'), fail_job(1, 'b', 1, 'x')")
    assert heard() == []


def test_snapshot_older_than_the_registration_rings_all_the_same(
    connect: Connect, heard: Callable[[], list[str]]
) -> None:
    writer, conn = connect(autocommit=False), connect()
    writer.execute("set transaction isolation level repeatable read")
    writer.execute("select count(*) from jobs")  # takes its snapshot now
    conn.execute("select arm_doorbell(1, null, 60)")
    writer.execute("select enqueue_job('t')")
    writer.commit()
    assert heard() == ["default"]


def test_rollback_rings_for_nobody(connect: Connect, heard: Callable[[], list[str]]) -> None:
    writer = connect(autocommit=False)
    writer.execute("select arm_doorbell(1, null, 60)")
    writer.commit()
    writer.execute("select enqueue_job('t')")
    writer.rollback()
    assert heard() == []


def test_open_enqueues_shows_who_may_have_looked(connect: Connect) -> None:
    conn, writer = connect(), connect(autocommit=False)
    assert conn.execute("select open_enqueues()").fetchone() == ([],)
    writer.execute("select enqueue_job('t')")
    row = conn.execute("select open_enqueues()").fetchone()
    assert row is not None
    assert len(row[0]) == 1
    writer.rollback()
    assert conn.execute("select open_enqueues()").fetchone() == ([],)


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
@pytest.mark.parametrize("looked", ["before", "after"])
def test_enqueue_open_while_the_worker_falls_asleep_is_not_missed(
    connect: Connect, make_storage: MakeStorage, isolation: str, looked: str
) -> None:
    """The race: the enqueue looks at the doorbell before or after the registration, and commits when all sleep."""
    storage = make_storage(poll_interval=3600)  # no fallback
    writer = connect(autocommit=False)
    writer.execute(f"set transaction isolation level {isolation}")
    writer.execute("select count(*) from jobs")
    if looked == "before":
        writer.execute("select enqueue_job('t', job_id => 'a')")
    claimed: list[str] = []

    def fall_asleep() -> None:
        while not claimed:
            jobs = storage.dequeue_many(1)
            claimed.extend(job.id for job in jobs)
            if not jobs:
                storage.wait(3600)

    worker = threading.Thread(target=fall_asleep, daemon=True)
    worker.start()
    watcher = connect()
    deadline = time.monotonic() + 5
    while watcher.execute("select count(*) from doorbell").fetchone() == (0,):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.3)  # past the last claim before sleep
    if looked == "after":
        writer.execute("select enqueue_job('t', job_id => 'a')")
    writer.commit()
    worker.join(3)
    assert claimed == ["a"]


def test_worker_polls_while_an_early_enqueue_is_open_and_sleeps_after(
    connect: Connect, make_storage: MakeStorage
) -> None:
    storage = make_storage(poll_interval=3600)
    writer = connect(autocommit=False)
    writer.execute("select enqueue_job('t')")
    assert storage.dequeue_many(1) == []
    storage.wait(10)  # registers, and notes the open transaction
    doorbell = storage._presence._doorbell
    assert doorbell is not None
    assert len(doorbell._open) == 1
    began = time.monotonic()
    storage.wait(0.3)
    assert 0.25 < time.monotonic() - began < 2
    writer.rollback()
    storage.wait(10)  # returns, for the one it waited for has ended
    assert doorbell._open == set()


def test_scheduled_job_is_an_alarm(make_storage: MakeStorage, conn: Connection) -> None:
    storage = make_storage(poll_interval=3600)
    assert storage.dequeue_many(1) == []
    storage.wait(10)
    conn.execute("select enqueue_job('t', job_id => 'a', execute_at => now() + '0.5 s')")
    deadline = time.monotonic() + 5
    while not (jobs := storage.dequeue_many(1)):
        assert time.monotonic() < deadline
        storage.wait(3600)
    assert [job.id for job in jobs] == ["a"]
