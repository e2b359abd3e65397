"""The adapter of pgjobq for a benchmark that compares job queues. It uses only documented calls.

The harness runs the methods in a separate environment with pgjobq and uvloop.
"""

from __future__ import annotations

import json
from typing import Any, Protocol


class Probe(Protocol):
    """The interface of the harness's handler body."""

    def sync(self, payload: dict[str, Any]) -> None:
        """Count a start."""

    async def coro(self, payload: dict[str, Any]) -> None:
        """Count a start."""


class Adapter:
    """The harness's base class documents the names."""

    uvloop = True
    dists = ("pgjobqueue", "psycopg", "uvloop")
    CONCURRENCY = 8
    SYNC = 1  # 1: handlers in threads; 0: on the event loop
    COPY = 1  # 1: bulk enqueue by COPY; 0: by JobQueue.enqueue_many
    bulk_api = "COPY into pgjobq.jobs, 5000 a transaction"
    settings = "Worker(concurrency=8), sync handlers in threads, all else as shipped; finished rows are kept"
    t4_note = "a dead worker's session lock falls at once; 2 s of grace (default)"
    # Counts jobs that are in line, in a claim with unsettled jobs, or due but not yet in line.
    pending_sql = """
        select (select count(*) from pgjobq.ready)
             + (select coalesce(sum(cardinality(job_ids)), 0) from pgjobq.claims)
             + (select count(*) from pgjobq.scheduled where execute_at <= now())
    """
    n_hint = 120_000

    def setup(self, dsn: str) -> None:
        """Install the schema."""
        from pgjobq.postgres.schema import migrate

        migrate(dsn)

    async def open(self, dsn: str, clients: int) -> None:
        """Open one connection for each client, and a queue for bulk calls."""
        import psycopg

        from pgjobq import JobQueue

        self.dsn, self.queue = dsn, JobQueue(dsn)
        self.free = [await psycopg.AsyncConnection.connect(dsn, autocommit=True) for _ in range(clients)]

    async def close(self) -> None:
        """Close them all."""
        self.queue.close()
        for conn in self.free:
            await conn.close()

    def bulk(self, n: int) -> None:
        """Enqueue n no-op jobs."""
        (self._copy if self.COPY else self._enqueue_many)(n)

    def _copy(self, n: int) -> None:
        import psycopg

        with psycopg.connect(self.dsn, autocommit=True) as conn:
            for start in range(0, n, 5000):
                lines = [f'bench\tbench\t{{"i": {i}}}\n' for i in range(start, min(n, start + 5000))]
                with conn.cursor().copy("copy pgjobq.jobs (queue, type, data) from stdin") as copy:
                    copy.write("".join(lines))

    def _enqueue_many(self, n: int) -> None:
        new_job = self.queue.new_job
        for start in range(0, n, 1000):
            numbers = range(start, min(n, start + 1000))
            self.queue.enqueue_many([new_job("bench", {"i": i}, queue="bench") for i in numbers])

    async def one(self, payload: dict[str, Any]) -> None:
        """Enqueue one job by SQL, as programs in any language do."""
        conn = self.free.pop()
        try:
            call = "select enqueue_job('bench', %s, queue => 'bench')"
            await conn.execute(call, [json.dumps(payload)], prepare=True)
        finally:
            self.free.append(conn)

    async def schedule(self, n: int) -> None:
        """Schedule n jobs for tomorrow."""
        call = """
            select count(*) from pgjobq.enqueue_jobs(
              array(select 'bench'::text from generate_series(1, %(n)s::integer)),
              datas       => array(select jsonb_build_object('i', i) from generate_series(1, %(n)s) as i),
              execute_ats => array(select now() + interval '1 day' from generate_series(1, %(n)s)),
              queues      => array(select 'bench'::text from generate_series(1, %(n)s)))
        """
        for start in range(0, n, 10_000):
            await self.free[0].execute(call, {"n": min(10_000, n - start)})

    def preload(self) -> None:
        """Import everything before the measurement starts."""
        import pgjobq.queue
        import pgjobq.storage.postgres_storage
        import pgjobq.worker  # noqa: F401

    def worker(self, dsn: str, queue: str, probe: Probe, mode: str) -> None:
        """Serve a queue until the process is killed."""
        from pgjobq import JobQueue, Worker, job

        if self.SYNC:

            @job(type="bench", queue="bench")
            def run(data: dict[str, Any]) -> None:
                probe.sync(data)
        else:

            @job(type="bench", queue="bench")
            async def run_on_the_loop(data: dict[str, Any]) -> None:
                await probe.coro(data)

        Worker(JobQueue(dsn), concurrency=self.CONCURRENCY, queues=[queue]).run()
