"""Several workers on one database: which worker is notified, which takes the jobs, and what is released."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from helpers.until import until

from pgjobq import Registry, Worker, job
from pgjobq.storage.postgres_storage import PostgresStorage

Connection = psycopg.Connection[Any]
Start = Callable[..., Worker]


@pytest.fixture
def start(make_storage: Callable[..., PostgresStorage], registry: Registry) -> Iterator[Start]:
    """Return a function that starts workers. They are stopped at the end."""
    started: list[Worker] = []

    def make(**options: Any) -> Worker:
        started.append(Worker(make_storage(), registry=registry, **options))
        started[-1].start()
        return started[-1]

    yield make
    for worker in started:
        worker.stop(grace=0)


def all_asleep(conn: Connection, count: int) -> None:
    """Wait until this many workers are asleep and have made their last claim."""
    until(lambda: conn.execute("select count(*) from worker_status where asleep").fetchone() == (count,), seconds=10)
    time.sleep(0.3)


def claims_made(conn: Connection) -> int:
    """Return how often claim_jobs was called in this database."""
    row = conn.execute(
        """select coalesce(sum(calls), 0) from pg_stat_statements
            where query like '%claim_id, id%claim_jobs%'
              and dbid = (select oid from pg_database where datname = current_database())"""
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_one_job_wakes_only_one_of_many_workers(conn: Connection, start: Start, registry: Registry) -> None:
    ran = threading.Event()

    @job(type="t", registry=registry)
    def run() -> None:
        ran.set()

    conn.execute("create extension if not exists pg_stat_statements schema public")
    for _ in range(8):
        start()
    all_asleep(conn, 8)
    before = claims_made(conn)
    conn.execute("select enqueue_job('t')")
    assert ran.wait(5)
    time.sleep(1.5)  # time for any further claims
    assert 1 <= claims_made(conn) - before <= 3


def test_slow_jobs_spread_over_the_workers(conn: Connection, start: Start, registry: Registry) -> None:
    go_on = threading.Event()

    @job(type="slow", registry=registry)
    def run() -> None:
        go_on.wait(20)

    for _ in range(4):
        start()
    all_asleep(conn, 4)
    running = "select count(*), count(distinct worker_id) from jobs where status = 'running'"
    for n in range(1, 5):
        conn.execute("select enqueue_job('slow')")
        until(lambda n=n: conn.execute(running).fetchone() == (n, n), seconds=10)  # type: ignore[misc]  # mypy infers no n
        time.sleep(0.1)  # the worker now counts as busy
    go_on.set()


def test_full_worker_leaves_its_jobs_to_others(conn: Connection, start: Start, registry: Registry) -> None:
    go_on = threading.Event()

    @job(type="slow", registry=registry)
    def run() -> None:
        go_on.wait(20)

    for _ in range(3):
        start(concurrency=2)
    all_asleep(conn, 3)
    conn.execute("select enqueue_jobs(array_fill('slow'::text, array[6]))")
    running = "select worker_id, count(*) from jobs where status = 'running' group by worker_id"
    until(lambda: sorted(count for _, count in conn.execute(running).fetchall()) == [2, 2, 2], seconds=10)
    go_on.set()


def test_jobs_claimed_ahead_are_released_if_they_cannot_start(
    conn: Connection, start: Start, registry: Registry
) -> None:
    """After many quick jobs the worker claims many at once. It must not keep the slow jobs among them waiting."""
    go_on = threading.Event()

    @job(type="quick", registry=registry)
    def quick() -> None:
        pass

    @job(type="slow", registry=registry)
    def slow() -> None:
        go_on.wait(20)

    conn.execute("select enqueue_jobs(array_fill('quick'::text, array[5000]))")
    conn.execute("select enqueue_jobs(array_fill('slow'::text, array[300]))")
    start(concurrency=4)
    held = "select count(*) from jobs where type = 'slow' and status = 'running'"
    until(lambda: conn.execute("select count(*) from jobs where status = 'completed'").fetchone() == (5000,), 30)
    until(lambda: conn.execute(held).fetchone() == (4,), 5)
    attempts = "select status, max(attempts) from jobs where type = 'slow' group by status order by status"
    assert conn.execute(attempts).fetchall() == [("pending", 0), ("running", 1)]
    go_on.set()


def test_one_worker_polls_while_many_quick_jobs_arrive(conn: Connection, start: Start, registry: Registry) -> None:
    """While jobs arrive quickly, one worker polls and enqueues notify no worker. Afterwards all workers sleep again."""

    @job(type="quick", registry=registry)
    def quick() -> None:
        pass

    for _ in range(3):
        start()
    all_asleep(conn, 3)
    polling = "select count(*) from doorbell where is_held('polling', worker_id)"
    seen: set[int] = set()
    stop = threading.Event()

    def watch() -> None:
        with psycopg.connect(conn.info.dsn, password=conn.info.password, autocommit=True) as other:
            other.execute("set search_path = pgjobq")
            while not stop.is_set():
                row = other.execute(polling).fetchone()
                seen.add(0 if row is None else row[0])
                time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(1500):
        conn.execute("select enqueue_job('quick')")
    stop.set()
    watcher.join()
    assert 1 in seen
    until(
        lambda: conn.execute("select count(*) from jobs where status = 'completed'").fetchone() == (1500,), seconds=10
    )
    all_asleep(conn, 3)
    assert conn.execute(polling).fetchone() == (0,)
