"""A job whose worker crashed runs alone, even if other jobs are always waiting."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
from helpers.until import until

from pgjobq import Registry, Worker, job
from pgjobq.storage.postgres_storage import PostgresStorage

Connection = psycopg.Connection[Any]


def test_suspect_runs_alone_while_other_jobs_wait(
    storage: PostgresStorage, conn: Connection, registry: Registry
) -> None:
    running: set[int] = set()
    beside: list[int] = []
    ran = threading.Event()

    @job(type="quick", registry=registry)
    def quick() -> None:
        running.add(threading.get_ident())
        ran.wait(0.002)
        running.discard(threading.get_ident())

    @job(type="suspect", registry=registry)
    def suspect() -> None:
        beside.append(len(running))
        ran.set()

    conn.execute("select enqueue_jobs(array_fill('quick'::text, array[20000]))")
    worker = Worker(storage, registry=registry, concurrency=4, grace=0)
    worker.start()
    try:
        until(lambda: conn.execute("select count(*) from jobs where status = 'completed'").fetchone() != (0,))
        with conn.transaction():
            conn.execute("select enqueue_job('suspect', priority => 9, job_id => 'suspect')")
            conn.execute("update jobs set crashes = 1 where id = 'suspect'")
        assert ran.wait(20)
        assert beside == [0]
        assert conn.execute("select count(*) > 0 from jobs where status = 'pending'").fetchone() == (True,)
    finally:
        worker.stop()
