"""The loop that settles jobs, in batches."""

from __future__ import annotations

import time

from pgjobq.events import EventLog
from pgjobq.storage.base import BaseStorage, Outcome
from pgjobq.worker.hand import Hand
from pgjobq.worker.loop import Loop
from pgjobq.worker.running import described

log = EventLog("pgjobq.worker")

MAX_BATCH = 1000  # outcomes
BUSY = 10  # outcomes at once from which on it pays to wait for more
LINGER = 0.004  # seconds to wait then


class Settler(Loop):
    """Settles a lone outcome at once; under load waits a few milliseconds for a batch.

    An outcome is kept until the database has taken it: after an error it is tried again, for as long as it
    takes, which is safe, for settling twice is the same as once.
    """

    name = "settle"

    def __init__(self, storage: BaseStorage, hand: Hand) -> None:
        super().__init__()
        self._storage, self._hand = storage, hand

    def run_once(self) -> None:
        """Settle what has come; wait for the first."""
        if not self._hand.has_outcome.wait(1.0):
            return
        if len(self._hand.outcomes) >= BUSY:
            time.sleep(LINGER)
        self._settle()

    def stop(self) -> None:
        """End soon; flush() settles what is left."""
        super().stop()
        self._hand.has_outcome.set()

    def flush(self, seconds: float) -> bool:
        """Settle everything that is left, trying for so long; whether it succeeded. The loop has ended."""
        deadline = time.monotonic() + seconds
        while self._hand.outcomes:
            try:
                self._settle()
            except Exception as error:
                log.warning("settle.error", extra={"error": error})
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.2)
        return True

    def _settle(self) -> None:
        batch: list[Outcome] = self._hand.drain(MAX_BATCH)
        if self._hand.outcomes:
            self._hand.has_outcome.set()
        if not batch:
            return
        try:
            lost = self._storage.settle(batch)
        except BaseException:
            self._hand.put_back(batch)
            raise
        for outcome in lost:
            log.warning("job.lost", extra={**described(outcome.job), "outcome": type(outcome).__name__})
