"""Workers, their leases, and the rescue of the jobs of those that died."""

from __future__ import annotations

from pgjobq.storage.redis.connection import Server
from pgjobq.storage.redis.rows import delay_of

PAGE = 500  # jobs that a script rescues at once


class Leases:
    """The leases of workers, in the server's time."""

    def __init__(self, server: Server, lease: float) -> None:
        self._server, self._lease = server, delay_of(lease)

    def enlist(self, worker_id: int, name: str) -> None:
        """Register a worker, with a lease from now."""
        self._server.call("enlist", worker_id, name, self._lease)

    def renew(self, worker_id: int) -> bool:
        """Extend its lease from now; False when it is not registered any more."""
        return bool(self._server.call("renew", worker_id, self._lease))

    def retire(self, worker_id: int) -> None:
        """Forget it."""
        self._server.call("retire", worker_id)

    def rescue(self) -> int:
        """Give away the jobs of workers that are not registered, or whose lease ran out; how many."""
        rescued = found = int(self._server.call("rescue", PAGE))
        while found == PAGE:
            found = int(self._server.call("rescue", PAGE))
            rescued += found
        return rescued
