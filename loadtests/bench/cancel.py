"""Measure how soon a cancel reaches a running job: from the commit of the cancel until its handler is stopped.

Run `python loadtests/bench/cancel.py [--cancels 200]`. It starts its own server, and prints p50 and the maximum for
each way in which a handler can be stopped, for a worker with room for more jobs and for one without.
"""

from __future__ import annotations

import asyncio
import logging
import statistics
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

import click
import psycopg

from pgjobq import JobQueue, Registry, Worker, job
from pgjobq.devserver import DevServer
from pgjobq.postgres.schema import migrate
from pgjobq.storage.postgres_storage import PostgresStorage
from pgjobq.worker import RunningJob

LEAD = 0.05  # seconds that a job runs before it is cancelled


@dataclass
class Seen:
    """The times at which the handlers were started and stopped."""

    started: threading.Event = field(default_factory=threading.Event)
    stopped: threading.Event = field(default_factory=threading.Event)
    stopped_at: float = 0.0

    def stop(self) -> None:
        self.stopped_at = time.perf_counter()
        self.stopped.set()


def register(registry: Registry, seen: Seen) -> None:
    """Register a handler for each way to stop one."""

    @job(registry=registry, type="async handler")
    async def waits() -> None:
        seen.started.set()
        try:
            await asyncio.sleep(60)
        finally:
            seen.stop()

    @job(registry=registry, type="job.check()")
    def checks(job: RunningJob) -> None:
        seen.started.set()
        try:
            while True:
                job.check()
                time.sleep(0.001)
        finally:
            seen.stop()

    @job(registry=registry, type="statement")
    def sleeps(job: RunningJob) -> None:
        with suppress(psycopg.Error), job.transaction() as conn:
            seen.started.set()
            try:
                conn.execute("select pg_sleep(60)")
            finally:
                seen.stop()


def measure(queue: JobQueue, seen: Seen, kind: str, cancels: int) -> list[float]:
    """Cancel jobs, and return the seconds of each cancel."""
    took = []
    for _ in range(cancels):
        seen.started.clear()
        seen.stopped.clear()
        job_id = queue.enqueue(kind)
        if not seen.started.wait(10):
            raise SystemExit(f"{kind}: a job did not start")
        time.sleep(LEAD)
        before = time.perf_counter()
        queue.cancel(job_id)
        if not seen.stopped.wait(30):
            raise SystemExit(f"{kind}: a handler was not stopped")
        took.append(seen.stopped_at - before)
    return took


@click.command()
@click.option("--cancels", default=200, help="Cancels of each kind.")
def main(cancels: int) -> None:
    """Measure and print all cases."""
    logging.getLogger("pgjobq").setLevel(logging.ERROR)  # because each cancel logs a warning
    with DevServer() as server:
        migrate(server.dsn)
        registry, seen = Registry(), Seen()
        register(registry, seen)
        for concurrency in (1, 8):
            with JobQueue(server.dsn, registry=registry) as queue:
                worker = Worker(PostgresStorage(server.dsn), registry=registry, concurrency=concurrency)
                worker.start()
                for handler in registry:
                    took = [seconds * 1000 for seconds in measure(queue, seen, handler.type, cancels)]
                    click.echo(
                        f"concurrency {concurrency}  {handler.type:14} p50 {statistics.median(took):6.1f} ms"
                        f"  max {max(took):6.1f} ms  of {cancels}"
                    )
                worker.stop(grace=0)
                worker.storage.close()


if __name__ == "__main__":
    main()
