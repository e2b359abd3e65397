"""Count the jobs of a worker from their claim until they are settled, and decide how many more to claim."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Sequence

from pgjobq.models import Job
from pgjobq.storage.base import Outcome
from pgjobq.worker.notes import Notes

MAX_PREFETCH = 1000  # jobs
PREFETCH_TIME = 0.05  # seconds of work to claim in advance when jobs are quick
LEAST_TIME = 0.01  # the least seconds of work to claim in advance, because a claim may take that long
QUICK = 1500.0  # jobs are quick when at least this many end per second
RATE_TIME = 0.05  # seconds over which the rate is measured when few jobs end


class InFlight:
    """Counts the jobs claimed and the outcomes reached. The loops of a worker share it.

    The prefetch follows the rate at which jobs end. When jobs are quick, it is 50 ms of work, which makes the batches
    large. When jobs are slow, it is smaller, because a waiting job might start sooner on another worker, and because
    it becomes a suspect if another job kills the process.
    """

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.outcomes: deque[Outcome | None] = deque()  # append and popleft are atomic; None: nothing to settle
        self.has_outcome = threading.Event()
        self.has_room = threading.Event()
        self.notes = Notes(self.has_outcome.set)
        self._claimed = self._taken = 0
        self._rate = 0.0  # jobs that end per second
        self._last_ended, self._last_ended_at = 0, time.monotonic()
        self._measured, self._measured_at = 0, time.monotonic()

    def note_claimed(self, jobs: int) -> None:
        """Add to the number of claimed jobs."""
        if not self.unfinished():
            self._last_ended_at = time.monotonic()
        self._claimed += jobs

    def add_outcome(self, outcome: Outcome | None, job: Job | None = None) -> None:
        """Add the outcome of a job for the settler. Any thread may call this.

        job: the job, given if there may be nothing to settle.
        """
        self.outcomes.append(outcome)
        if not self.has_outcome.is_set():
            self.has_outcome.set()
        if not self.has_room.is_set():
            self.has_room.set()

    def take_outcomes(self, most: int) -> list[Outcome]:
        """Take up to `most` outcomes to settle. Only one thread may call this."""
        self.has_outcome.clear()
        batch: list[Outcome] = []
        taken = 0
        while taken < most and self.outcomes:
            outcome = self.outcomes.popleft()
            taken += 1
            self._taken += 1
            if outcome is not None:
                batch.append(outcome)
        return batch

    def put_back(self, outcomes: Sequence[Outcome]) -> None:
        """Put back outcomes that could not be settled yet."""
        self._taken -= len(outcomes)
        self.outcomes.extend(outcomes)  # at the end, because they must not delay the others
        self.has_outcome.set()

    def unfinished(self) -> int:
        """Return the number of claimed jobs that have no outcome yet."""
        return self._claimed - self._taken - len(self.outcomes)

    def room(self) -> int:
        """Return how many jobs to claim now. 0 means: wait for has_room."""
        seconds = max(LEAST_TIME, PREFETCH_TIME * min(1.0, self._rate / QUICK))
        prefetch = min(MAX_PREFETCH, math.ceil(self._rate * seconds))
        room = self.concurrency + prefetch - self.unfinished()
        # Claim at least half of the prefetch, because a claim for each single job would cost more than it gains.
        return room if room >= max(1, prefetch // 2) else 0

    def measure_rate(self) -> None:
        """Update the rate from the jobs that ended since the last measurement. Call it while jobs are in flight."""
        now, ended = time.monotonic(), self._claimed - self.unfinished()
        elapsed, jobs = now - self._measured_at, ended - self._measured
        # Concurrent jobs may end at the same moment, which says nothing about the rate. More jobs than that take time.
        if elapsed < 0.001 or (elapsed < RATE_TIME and jobs <= self.concurrency):
            return
        self._rate = 0.5 * self._rate + 0.5 * jobs / elapsed
        self._measured, self._measured_at = ended, now

    def stalled(self, seconds: float) -> bool:
        """Return whether jobs are in flight and earlier calls have seen none end for at least this many seconds."""
        now, ended = time.monotonic(), self._claimed - self.unfinished()
        if ended != self._last_ended or ended == self._claimed:
            self._last_ended, self._last_ended_at = ended, now
        return now - self._last_ended_at >= seconds

    def reset_rate(self) -> None:
        """Go back to small claims, because the worker was idle or stalled, and the next jobs may be slow."""
        self._rate = 0.0
        self._measured, self._measured_at = self._claimed - self.unfinished(), time.monotonic()
