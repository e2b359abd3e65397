"""pgjobq on the work that other queues are measured with: the adapter of a comparison harness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Adapter:
    """One queue in the comparison; the harness calls these methods in processes of its own."""

    bulk_clients = 1
    bulk_api = "JobQueue.enqueue_many, 1000 a call"
    settings = "one Worker, concurrency=8, sync handlers, defaults"
    t4_note = "session lock, grace 2 s"
    pending_sql = (
        "select count(*) from pgjobq.jobs where status in ('pending', 'running')"
        " and (execute_at is null or execute_at <= now())"
    )
    n_hint = 120_000
    n_bulk_cap = 120_000
    other_queue = True
    uvloop = True
    sync = False

    def setup(self, dsn: str) -> None:
        """Install the schema."""
        from pgjobq.postgres.schema import migrate

        migrate(dsn)

    async def open(self, dsn: str, clients: int) -> None:
        """Connect, once for each client that will call at the same time."""
        import psycopg

        from pgjobq import JobQueue

        self.queue = JobQueue(dsn)
        self.connections: list[Any] = [
            await psycopg.AsyncConnection.connect(dsn, autocommit=True, prepare_threshold=0) for _ in range(clients)
        ]
        self.free = list(self.connections)

    async def close(self) -> None:
        """Close what open opened."""
        for connection in self.connections:
            await connection.close()
        self.queue.close()

    def _jobs(self, numbers: Sequence[int], **options: Any) -> list[Any]:
        return [self.queue.new_job("bench", {"i": n}, queue="bench", **options) for n in numbers]

    def bulk(self, n: int) -> None:
        """Enqueue n jobs."""
        for start in range(0, n, 1000):
            self.queue.enqueue_many(self._jobs(range(start, min(start + 1000, n))))

    def schedule(self, n: int) -> None:
        """Put n jobs one day ahead."""
        for start in range(0, n, 1000):
            self.queue.enqueue_many(self._jobs(range(start, min(start + 1000, n)), delay=86_400))

    async def one(self, payload: dict[str, Any]) -> None:
        """One job, one call, one transaction."""
        from psycopg.types.json import Jsonb

        connection = self.free.pop()
        try:
            await connection.execute("select enqueue_job('bench', %s, queue => 'bench')", [Jsonb(payload)])
        finally:
            self.free.append(connection)

    def preload(self) -> None:
        """Import before the clock starts."""
        import psycopg_pool  # noqa: F401  # what the worker needs

        from pgjobq.storage import postgres_storage  # noqa: F401  # the same
        from pgjobq.worker import Worker  # noqa: F401  # the same

    def worker(self, dsn: str, queue: str, probe: Any, mode: str) -> None:
        """Serve a queue until killed."""
        from pgjobq import JobQueue, Registry, Worker, job

        registry = Registry()

        @job(type="bench", registry=registry)
        def bench(data: dict[str, Any]) -> None:
            probe.sync(data)

        Worker(JobQueue(dsn), queues=[queue], registry=registry).run()
