"""The loop that deletes finished jobs past their age."""

from __future__ import annotations

import time
from datetime import timedelta

from pgjobq.events import EventLog
from pgjobq.storage.base import BaseStorage
from pgjobq.worker.loop import Loop

log = EventLog("pgjobq.worker")

TELL_EVERY = 60.0  # seconds between two log lines


class PruneLoop(Loop):
    """Deletes some completed and cancelled jobs older than keep, as often as the storage says."""

    name = "prune"

    def __init__(self, storage: BaseStorage, keep: timedelta) -> None:
        super().__init__()
        self._storage, self._keep = storage, keep
        self._pruned, self._tell_at = 0, 0.0

    def run_once(self) -> None:
        """Delete some, and wait."""
        pruned = self._storage.prune_some(self._keep)
        self._pruned += pruned.jobs
        if self._pruned and time.monotonic() >= self._tell_at:
            log.info("jobs.pruned", extra={"jobs": self._pruned})
            self._pruned, self._tell_at = 0, time.monotonic() + TELL_EVERY
        self.stopping.wait(pruned.again_in)
