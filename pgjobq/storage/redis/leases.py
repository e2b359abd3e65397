"""Workers, their leases, and the rescue of the jobs of those that died."""

from __future__ import annotations

from collections import defaultdict

from pgjobq.rescued import MAX_CRASHES, tell_crashes
from pgjobq.storage.redis.connection import Server
from pgjobq.storage.redis.rows import delay_of, text_of

PAGE = 500  # jobs that one script call rescues


class Leases:
    """The leases of workers, in the server's time."""

    def __init__(self, server: Server, lease: float) -> None:
        self._server, self._lease = server, delay_of(lease)

    def enlist(self, worker_id: int, name: str) -> None:
        """Register a worker, with a lease that begins now."""
        self._server.call("enlist", worker_id, name, self._lease)

    def renew(self, worker_id: int) -> bool:
        """Renew the worker's lease from now. Return False if it is not registered any more."""
        return bool(self._server.call("renew", worker_id, self._lease))

    def retire(self, worker_id: int) -> None:
        """Delete the worker's registration."""
        self._server.call("retire", worker_id)

    def rescue(self) -> int:
        """Put the jobs of workers whose lease has expired back in line. Return how many."""
        rescued, looked_at = 0, PAGE
        while looked_at == PAGE:
            looked_at, *rows = self._server.call("rescue", PAGE, MAX_CRASHES, self._lease)
            workers: dict[tuple[str, str, str], dict[str, int]] = defaultdict(dict)
            for row in rows:
                *worker, job_id, crashes = text_of(row).split("\0")
                workers[worker[0], worker[1], worker[2]][job_id] = int(crashes)
            for (worker_id, name, stood), jobs in workers.items():
                tell_crashes(int(worker_id), name, int(stood) / 1e6, jobs)
            rescued += len(rows)
        return rescued
