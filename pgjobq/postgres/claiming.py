"""Claiming: one claim at a time, what is remembered of it, and what is done when its answer was lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from pgjobq.models import Job
from pgjobq.postgres.database import Database
from pgjobq.postgres.errors import NotRegistered, translated
from pgjobq.postgres.holds import Holds
from pgjobq.postgres.presence import Presence

FLOORS_AFTER = 5000  # jobs: about as many places that were taken a claim may have to pass over
MUCH_DROPPED = 2000  # places: about as many as a claim dropped that ended early because of them
DRAIN_FOR = 5.0  # seconds for which a worker claims nothing, to be alone for a job whose worker crashed
DRAIN_AGAIN = 60.0  # seconds until it tries that again, when its jobs did not end
MANY_LANES = 400  # as many floors as are kept


class Claiming:
    """The claims of one storage. Thread-safe."""

    def __init__(self, database: Database, presence: Presence) -> None:
        self._run, self._calls, self._presence = database.run, database.calls, presence
        self._one = threading.Lock()
        self.since_floors = 0  # jobs claimed since the floors were moved
        self._floors: tuple[int, list[str]] = (0, [])  # what advance_floors wants to be given back
        self._lanes: set[tuple[str, int]] = set()  # queues and priorities of the jobs claimed since
        self._unsure = False  # a claim's answer was lost: some of our jobs are unknown to us
        self._drain_until = self._drain_again = 0.0
        self._told_left: dict[int, list[str]] = {}  # the types that a worker leaves, as the database knows them
        self.holds = Holds()

    def claim(
        self,
        limit: int,
        queues: Sequence[str] | None,
        except_types: Sequence[str] = (),
        *,
        suspects_alone: bool = False,
    ) -> list[Job]:
        """Claim up to limit jobs. When the answer is lost, the next claim first gives back what was not seen.

        suspects_alone: a job whose worker crashed runs alone. While one is held, nothing is claimed; when one waits,
        nothing is for five seconds, until the jobs in flight have ended.
        """
        # One at a time: a second claim would take what the first is getting for unknown, and give it back.
        with self._one:
            alone = not self.holds if suspects_alone else None
            now = time.monotonic()
            if alone is False and (now < self._drain_until or self.holds.has_suspect()):
                with translated():
                    self._presence.join(queues)
                self._presence.found(0, limit, "held")
                return []
            if self.since_floors >= FLOORS_AFTER:
                self.advance_floors()
            try:
                jobs, skipped = self._claim(limit, queues, except_types, alone)
            except NotRegistered:
                jobs, skipped = self._claim(limit, queues, except_types, alone)  # as another worker
            self.since_floors += len(jobs) if skipped != "more" else MUCH_DROPPED
            self._lanes.update((job.queue, job.priority) for job in jobs)
            if skipped == "suspect" and now >= self._drain_again:
                self._drain_until, self._drain_again = now + DRAIN_FOR, now + DRAIN_AGAIN
            self._presence.found(len(jobs), limit, skipped)
            return jobs

    def _claim(
        self, limit: int, queues: Sequence[str] | None, except_types: Sequence[str], alone: bool | None
    ) -> tuple[list[Job], str]:
        with translated():
            worker_id = self._presence.join(queues)
        left = {worker_id: list(except_types)} if except_types else {}
        if left != self._told_left:
            self._run(self._calls.leave_types(worker_id, except_types))
            self._told_left = left
        if self._unsure:
            self._run(self._calls.release_unknown_jobs(worker_id, self.holds.claims()))
        self._unsure = True
        try:
            jobs, skipped = self._run(self._calls.claim_jobs(worker_id, queues, limit, except_types, alone))
        except NotRegistered:
            self._unsure = False
            self._presence.forget(worker_id)
            raise
        self.holds.add(jobs)
        self._unsure = False
        return jobs, skipped

    def advance_floors(self) -> None:
        """Move the floors of the lanes up; see the SQL function."""
        self.since_floors = 0
        lanes = list(self._lanes)  # at once: the thread that claims adds some
        queues, priorities = [queue for queue, _ in lanes], [priority for _, priority in lanes]
        safe, opened, moved = self._run(self._calls.advance_floors(*self._floors, queues, priorities))
        self._floors = safe, opened
        if moved or len(lanes) > MANY_LANES:
            self._lanes.difference_update(lanes)

    def release_unknown(self, worker_id: int | None) -> None:
        """Give back claims in our name that we do not know; not while a claim is under way, which may be one."""
        if self._one.acquire(blocking=False):
            try:
                self._run(self._calls.release_unknown_jobs(worker_id, self.holds.claims()))
            finally:
                self._one.release()

    def settled(self) -> None:
        """Jobs were settled: if a job that must run alone waits for the last, claim it now."""
        if self._drain_until and not self.holds:
            self._drain_until = 0.0
            self._presence.wake()

    def forget(self) -> None:
        """Hold nothing: the worker has left."""
        self.holds = Holds()
