"""Waiting for jobs on PostgreSQL: notified of every end, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from helpers.calls import claim, one, register
from helpers.ends import ENDS, complete_with_result
from helpers.until import until, until_row

from pgjobq import Job, JobFailed, JobNotFound, JobQueue, Registry, StorageUnavailable, WaitTimeout, job
from pgjobq.postgres import waiting, waiting_session
from pgjobq.storage.postgres_storage import PostgresStorage
from pgjobq.worker import Worker

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]
MakeStorage = Callable[..., PostgresStorage]
Ask = Callable[..., "Future[list[Job]]"]
REGISTERED = "select * from waits where job_id = 'a'"


@pytest.fixture(autouse=True)
def _no_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_session, "LOOK_EVERY", 3600.0)


@pytest.fixture
def ask(storage: PostgresStorage) -> Iterator[Ask]:
    """Waits for job a in a thread."""
    with ThreadPoolExecutor(8) as pool:
        yield lambda timeout=20.0, ids=("a",): pool.submit(storage.wait_for_many, ids, timeout)


@pytest.mark.parametrize("end", ENDS)
def test_every_end_notifies(storage: PostgresStorage, conn: Connection, ask: Ask, end: str) -> None:
    storage.enqueue("a", "t", {})
    asked = ask()
    until_row(conn, REGISTERED)
    act, status = ENDS[end]
    act(conn)
    if status is None:
        with pytest.raises(JobNotFound, match="keep=0"):
            asked.result(10)
    else:
        assert asked.result(10)[0].status == status


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
@pytest.mark.parametrize("ended", ["before", "after"])
def test_end_in_a_transaction_that_is_open_meanwhile_is_not_missed(
    storage: PostgresStorage, conn: Connection, connect: Connect, ask: Ask, isolation: str, ended: str
) -> None:
    """The race: the job ends before or after the wait is registered, in a transaction that commits later."""
    storage.enqueue("a", "t", {})
    ender = connect(autocommit=False)
    ender.execute(f"set transaction isolation level {isolation}")
    ender.execute("select count(*) from jobs")
    if ended == "before":
        ender.execute("select cancel_job('a')")
    asked = ask()
    until_row(conn, REGISTERED)
    time.sleep(0.1)  # past the first look
    if ended == "after":
        ender.execute("select cancel_job('a')")
    assert not asked.done()
    ender.commit()
    assert asked.result(10)[0].status == "cancelled"


def test_listener_that_is_killed_connects_again_and_looks(
    storage: PostgresStorage, conn: Connection, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    storage.enqueue("a", "t", {})
    asked = ask()
    pid = one(conn, "select waiter from waits") if until_row(conn, REGISTERED) else None
    conn.execute("begin")
    complete_with_result(conn)
    conn.execute("select pg_terminate_backend(%s)", [pid])
    until(lambda: "waiting.lost" in caplog.text)
    conn.execute("commit")
    assert asked.result(10)[0].result == [1]
    storage.enqueue("b", "t", {})
    assert storage.cancel("b")
    assert storage.wait_for_many(["b"], 10)[0].status == "cancelled"
    until(lambda: one(conn, "select count(*) from waits") == 0)


def test_result_of_the_next_try_arrives_when_the_worker_is_killed(
    storage: PostgresStorage, conn: Connection, connect: Connect, ask: Ask
) -> None:
    storage.enqueue("a", "t", {})
    asked = ask()
    until_row(conn, REGISTERED)
    dead = connect()
    assert claim(dead, register(dead)) == ["a"]
    dead.close()
    until(lambda: one(conn, "select rescued from rescue_jobs('0 s')") == 1)
    complete_with_result(conn)
    assert (asked.result(10)[0].result, asked.result()[0].attempts) == ([1], 2)


@pytest.mark.parametrize("change", ["delete from jobs", "update jobs set status = 'cancelled'"])
def test_change_that_notifies_nothing_is_found_by_looking(
    storage: PostgresStorage, conn: Connection, ask: Ask, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(waiting_session, "LOOK_EVERY", 0.1)
    storage.enqueue("a", "t", {})
    asked = ask()
    until_row(conn, REGISTERED)
    conn.execute(change)
    if change.startswith("delete"):
        with pytest.raises(JobNotFound):
            asked.result(10)
    else:
        assert asked.result(10)[0].status == "cancelled"


def test_nothing_is_left_when_nothing_waits(storage: PostgresStorage, conn: Connection) -> None:
    storage.enqueue("a", "t", {})
    with pytest.raises(WaitTimeout, match=r"job 'a' did not end within 0\.05 seconds") as caught:
        storage.wait_for_many(["a"], 0.05)
    assert (caught.value.ended, caught.value.waiting) == ([], ["a"])
    assert isinstance(caught.value, TimeoutError)
    until(lambda: one(conn, "select count(*) from waits") == 0 and not one(conn, "select is_waited()"))


def test_connection_ends_after_the_last_wait(
    storage: PostgresStorage, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "LINGER", 0.1)
    for _ in range(2):
        with pytest.raises(JobNotFound):
            storage.wait_for_many(["a"], 10)
        until(lambda: "pgjobq-waiting" not in {thread.name for thread in threading.enumerate()})


def test_close_ends_the_waits(storage: PostgresStorage, conn: Connection, ask: Ask) -> None:
    storage.enqueue("a", "t", {})
    asked = ask()
    until_row(conn, REGISTERED)
    storage.close()
    with pytest.raises(StorageUnavailable, match="closed while this waited"):
        asked.result(10)
    until(lambda: not one(conn, "select is_waited()"))


def test_thousand_waits_share_a_connection(storage: PostgresStorage, queue: JobQueue, conn: Connection) -> None:
    names = [f"job-{n}" for n in range(1000)]
    for name in names:
        storage.enqueue(name, "t", {})

    async def main() -> list[Job]:
        waits = [asyncio.create_task(queue.wait_for_async(name, 60)) for name in names]
        await asyncio.to_thread(until, lambda: one(conn, "select count(*) from waits") == len(names))
        assert one(conn, "select count(distinct waiter) from waits") == 1
        assert sum(thread.name == "pgjobq-waiting" for thread in threading.enumerate()) == 1
        await asyncio.to_thread(conn.execute, "select cancel_jobs('default')")
        return await asyncio.gather(*waits)

    assert [found.id for found in asyncio.run(main())] == names


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forked_child_waits_by_itself(storage: PostgresStorage, conn: Connection, ask: Ask) -> None:
    storage.enqueue("a", "t", {})
    asked = ask()
    until_row(conn, REGISTERED)
    child = os.fork()
    if not child:
        try:
            os._exit(7 if storage.wait_for_many(["a"], 20)[0].result == [1] else 1)
        finally:
            os._exit(2)
    until(lambda: one(conn, "select count(distinct waiter) from waits") == 2)
    complete_with_result(conn)
    assert asked.result(10)[0].result == [1]
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_waits_of_a_dead_process_are_forgotten(storage: PostgresStorage, conn: Connection, connect: Connect) -> None:
    dead = connect()
    dead.execute("select wait_for_jobs('{a,b}')")
    dead.close()
    until(lambda: not one(conn, "select is_waited()"))
    assert one(conn, "select count(*) from waits") == 2
    with pytest.raises(JobNotFound):
        storage.wait_for_many(["c"], 10)
    assert one(conn, "select count(*) from waits where job_id <> 'c'") == 0


def test_behind_a_pooler_it_looks(make_storage: MakeStorage, conn: Connection) -> None:
    pooled = make_storage(pooled=True)
    pooled.enqueue("a", "t", {})
    threading.Timer(0.1, conn.execute, ["select cancel_job('a')"]).start()
    assert pooled.wait_for_many(["a"], 10)[0].status == "cancelled"
    assert asyncio.run(pooled.wait_for_many_async(["a"], 10))[0].status == "cancelled"


def test_job_that_is_run_again_is_waited_for_again(storage: PostgresStorage, conn: Connection, ask: Ask) -> None:
    storage.enqueue("a", "t", {})
    storage.cancel("a")
    assert storage.wait_for_many(["a"], 10)[0].status == "cancelled"
    storage.retry("a", 0)
    asked = ask()
    until_row(conn, REGISTERED)
    complete_with_result(conn)
    assert asked.result(10)[0].result == [1]


# -- call_and_wait ------------------------------------------------------------------------------------


@pytest.fixture
def working(make_storage: MakeStorage, registry: Registry) -> Iterator[None]:
    """A worker on a storage of its own."""

    @job(registry=registry)
    def add(a: int, b: int) -> int:
        return a + b

    @job(registry=registry, max_retries=0)
    def boom() -> None:
        raise ValueError("no luck")

    worker = Worker(make_storage(), registry=registry)
    worker.start()
    yield
    worker.stop()


@pytest.mark.usefixtures("working")
def test_call_and_wait(queue: JobQueue) -> None:
    assert queue.call_and_wait("add", {"a": 1, "b": 2}, timeout=20) == 3
    assert asyncio.run(queue.call_and_wait_async("add", {"a": 1, "b": 2}, timeout=20, priority=9)) == 3
    with pytest.raises(JobFailed, match=r"\(boom\) failed: (.*\n)*.*no luck") as caught:
        queue.call_and_wait("boom", timeout=20, max_retries=0)
    assert (caught.value.job.status, caught.value.job.attempts) == ("failed", 1)
    with pytest.raises(TypeError, match="nonsense"):
        queue.call_and_wait("add", timeout=20, nonsense=1)  # type: ignore[call-arg]


def test_call_of_a_job_that_is_cancelled(queue: JobQueue, conn: Connection) -> None:
    def cancel() -> None:
        until_row(conn, REGISTERED)
        conn.execute("select cancel_job('a', 'not now')")

    threading.Thread(target=cancel).start()
    with pytest.raises(JobFailed, match="was cancelled: not now"):
        queue.call_and_wait("add", timeout=20, job_id="a")


def test_wait_without_time_looks_once(storage: PostgresStorage) -> None:
    storage.enqueue("a", "t", {})
    storage.enqueue("b", "t", {})
    storage.cancel("a")
    assert storage.wait_for_many(["a"], 0)[0].status == "cancelled"
    assert asyncio.run(storage.wait_for_many_async(["a"], 0))[0].status == "cancelled"
    with pytest.raises(WaitTimeout) as caught:
        storage.wait_for_many(["a", "b"], 0)
    assert ([found.id for found in caught.value.ended], caught.value.waiting) == (["a"], ["b"])
