"""Claiming: one claim at a time, what is remembered of it, and what is done when its answer was lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from pgjobq.models import Job
from pgjobq.postgres.errors import translated
from pgjobq.postgres.holds import Holds
from pgjobq.postgres.presence import Presence
from pgjobq.postgres.rows import claimed_jobs

FLOORS_AFTER = 5000  # jobs; so many taken places, or a few times that, a claim may have to pass over


class Claiming:
    """The claims of one storage. Thread-safe."""

    def __init__(self, rows: Callable[..., list[Any]], presence: Presence) -> None:
        self._rows, self._presence = rows, presence
        self._one = threading.Lock()
        self._since_floors = 0  # jobs claimed since the floors were moved
        self._unsure = False  # a claim's answer was lost: some of our jobs are unknown to us
        self.holds = Holds()

    def claim(self, limit: int, queues: Sequence[str] | None) -> list[Job]:
        """Claim up to limit jobs. When the answer is lost, the next claim first gives back what was not seen."""
        # One at a time: a second claim would take what the first is getting for unknown, and give it back.
        with self._one:
            with translated():
                worker_id = self._presence.join(queues)
            if self._unsure:
                self._rows("release_unknown_jobs", [worker_id, self.holds.open_batches()])
            if self._since_floors >= FLOORS_AFTER:
                self._since_floors = 0
                self._rows("advance_floors", [])
            self._unsure = True
            wanted = None if queues is None else list(queues)
            rows = self._rows("claim_jobs", [worker_id, wanted, limit], binary=True)
            jobs = claimed_jobs(rows, worker_id)
            self.holds.add(jobs, [row[0] for row in rows])
            self._unsure = False
            self._since_floors += len(jobs)
            self._presence.found(len(jobs), limit, queues)
            return jobs

    def forget(self) -> None:
        """Hold nothing: the worker has left."""
        self.holds = Holds()
