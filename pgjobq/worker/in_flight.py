"""The jobs that a worker has in flight, from the claim until they are settled, and how many more it should claim."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Sequence

from pgjobq.models import Job
from pgjobq.storage.base import Outcome

MAX_PREFETCH = 1000  # jobs
PREFETCH_TIME = 0.05  # seconds of work to have in flight beyond what runs, when jobs are quick
LEAST_TIME = 0.01  # seconds of work to have in flight at least, because a claim may take so long
QUICK = 1500.0  # jobs a second from which on they count as quick
RATE_TIME = 0.05  # seconds over which a rate is measured, when few jobs end


class InFlight:
    """Counts jobs claimed and outcomes reached; shared by the loops.

    Prefetch follows the rate at which jobs end: enough for 50 ms when they are quick, so that they come in large
    batches. It is less when they are slow, because a job that waits here would start sooner elsewhere, and becomes a
    suspect if another job ends the process.
    """

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.outcomes: deque[Outcome | None] = deque()  # append and popleft are atomic; None: nothing to settle
        self.has_outcome = threading.Event()
        self.has_room = threading.Event()
        self._claimed = self._taken = 0
        self._rate = 0.0  # jobs that end in a second
        self._last_ended, self._last_ended_at = 0, time.monotonic()
        self._measured, self._measured_at = 0, time.monotonic()

    def note_claimed(self, jobs: int) -> None:
        """Count jobs that were claimed."""
        if not self.unfinished():
            self._last_ended_at = time.monotonic()
        self._claimed += jobs

    def add_outcome(self, outcome: Outcome | None, job: Job | None = None) -> None:
        """Add the outcome of a job, which the settler takes. Called by any thread.

        job: the job, given where there may be nothing to settle.
        """
        self.outcomes.append(outcome)
        if not self.has_outcome.is_set():
            self.has_outcome.set()
        if not self.has_room.is_set():
            self.has_room.set()

    def take_outcomes(self, most: int) -> list[Outcome]:
        """Take up to `most` outcomes to settle them. Called by one thread."""
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
        """Put back outcomes that could not be settled now."""
        self._taken -= len(outcomes)
        self.outcomes.extend(outcomes)  # behind the others, which it must not hold up
        self.has_outcome.set()

    def unfinished(self) -> int:
        """Jobs claimed whose handler has not ended."""
        return self._claimed - self._taken - len(self.outcomes)

    def room(self) -> int:
        """How many jobs to claim now; 0: rather wait for has_room."""
        seconds = max(LEAST_TIME, PREFETCH_TIME * min(1.0, self._rate / QUICK))
        prefetch = min(MAX_PREFETCH, math.ceil(self._rate * seconds))
        room = self.concurrency + prefetch - self.unfinished()
        # Half of the prefetch at a time: a claim for each single job would cost more than it gains.
        return room if room >= max(1, prefetch // 2) else 0

    def measure_rate(self) -> None:
        """Take the rate at which jobs ended since the last call, while there were some in flight."""
        now, ended = time.monotonic(), self._claimed - self.unfinished()
        elapsed, jobs = now - self._measured_at, ended - self._measured
        # Jobs that run at once may end at the same moment, which is no rate; more than those take time.
        if elapsed < 0.001 or (elapsed < RATE_TIME and jobs <= self.concurrency):
            return
        self._rate = 0.5 * self._rate + 0.5 * jobs / elapsed
        self._measured, self._measured_at = ended, now

    def stalled(self, seconds: float) -> bool:
        """Whether there are jobs in flight and none has ended for so long, as far as its earlier calls have seen."""
        now, ended = time.monotonic(), self._claimed - self.unfinished()
        if ended != self._last_ended or ended == self._claimed:
            self._last_ended, self._last_ended_at = ended, now
        return now - self._last_ended_at >= seconds

    def reset_rate(self) -> None:
        """Begin again with small claims, because there was no work, and the next jobs may be slow ones."""
        self._rate = 0.0
        self._measured, self._measured_at = self._claimed - self.unfinished(), time.monotonic()
