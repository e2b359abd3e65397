"""Claim jobs, one claim at a time, remember the claims, and recover when the answer of a claim is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from pgjobq.models import Job
from pgjobq.postgres.database import Database
from pgjobq.postgres.errors import NotRegistered, translated
from pgjobq.postgres.holds import Holds
from pgjobq.postgres.presence import Presence

FLOORS_AFTER = 5000  # jobs claimed before the floors move; a claim may have to skip about as many taken places
MUCH_DROPPED = 2000  # places; a claim that ended early had to drop about this many orphans
DRAIN_FOR = 5.0  # seconds for which a worker claims nothing, so that its jobs end and it can run a suspect alone
DRAIN_AGAIN = 60.0  # seconds until it tries again, if its jobs did not end in that time
MANY_LANES = 400  # lanes remembered; the database keeps as many floors


class Claiming:
    """The claims of one storage. Thread-safe."""

    def __init__(self, database: Database, presence: Presence) -> None:
        self._run, self._calls, self._presence = database.run, database.calls, presence
        self._one_at_a_time = threading.Lock()
        self.since_floors = 0  # jobs claimed since the floors were moved
        self._floors: tuple[int, list[str]] = (0, [])  # the values that advance_floors returned last
        self._lanes: set[tuple[str, int]] = set()  # queues and priorities of the jobs claimed since
        self._may_hold_unknown = False  # a claim's answer was lost, so this worker may hold jobs that it does not know
        self._drain_until = self._drain_again = 0.0
        self._sent_left_types: dict[int, list[str]] = {}  # by worker id, as the database knows them
        self.holds = Holds()

    def claim(
        self,
        limit: int,
        queues: Sequence[str] | None,
        except_types: Sequence[str] = (),
        *,
        suspects_alone: bool = False,
    ) -> list[Job]:
        """Claim up to limit jobs. If the answer is lost, the next claim first releases the jobs of the lost one.

        suspects_alone: run a suspect alone. While the worker holds a suspect it claims nothing. When a suspect waits,
        the worker claims nothing for five seconds, or until its jobs in flight have ended.
        """
        # Claims take turns. Otherwise a second claim would see the jobs of the first as unknown and release them.
        with self._one_at_a_time:
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
                jobs, skipped = self._claim(limit, queues, except_types, alone)  # registers under a new id
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
        if left != self._sent_left_types:
            self._run(self._calls.leave_types(worker_id, except_types))
            self._sent_left_types = left
        if self._may_hold_unknown:
            self._run(self._calls.release_unknown_jobs(worker_id, self.holds.claims()))
        self._may_hold_unknown = True
        try:
            jobs, skipped = self._run(self._calls.claim_jobs(worker_id, queues, limit, except_types, alone))
        except NotRegistered:
            self._may_hold_unknown = False
            self._presence.forget(worker_id)
            raise
        self.holds.add(jobs)
        self._may_hold_unknown = False
        return jobs, skipped

    def advance_floors(self) -> None:
        """Move the floors of the lanes up; see the SQL function advance_floors."""
        self.since_floors = 0
        lanes = list(self._lanes)  # copied in one step, because the claiming thread may add lanes
        queues, priorities = [queue for queue, _ in lanes], [priority for _, priority in lanes]
        safe, opened, moved = self._run(self._calls.advance_floors(*self._floors, queues, priorities))
        self._floors = safe, opened
        if moved or len(lanes) > MANY_LANES:
            self._lanes.difference_update(lanes)

    def release_unknown(self, worker_id: int | None) -> None:
        """Release the jobs of claims that this worker does not know.

        Do nothing while a claim is running, because its jobs are not known yet.
        """
        if self._one_at_a_time.acquire(blocking=False):
            try:
                self._run(self._calls.release_unknown_jobs(worker_id, self.holds.claims()))
            finally:
                self._one_at_a_time.release()

    def settled(self) -> None:
        """Wake the worker after a settle if it waited for its last job to end before it runs a suspect alone."""
        if self._drain_until and not self.holds:
            self._drain_until = 0.0
            self._presence.wake()

    def forget(self) -> None:
        """Forget all held jobs, because the worker has left."""
        self.holds = Holds()
