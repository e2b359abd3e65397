"""The jobs a worker has in hand, from claim to settled, and how many more it should claim."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Sequence

from pgjobq.storage.base import Outcome

MAX_PREFETCH = 1000  # jobs
PREFETCH_TIME = 0.05  # seconds of work to have in hand beyond what runs, when jobs are quick
LEAST_TIME = 0.01  # seconds of work to have in hand at least, for as long as a claim may take
QUICK = 1500.0  # jobs a second from which on they count as quick
MEASURED = 0.05  # seconds over which a rate is measured, when few jobs end


class Hand:
    """Counts jobs claimed and outcomes reached; shared by the loops.

    Prefetch follows the rate at which jobs finish: enough for 50 ms when they are quick, so that they come in large
    batches, and for less and less when they are slow, because a job that waits here starts later than elsewhere, and
    would be under suspicion if another killed the process.
    """

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.outcomes: deque[Outcome | None] = deque()  # append and popleft are atomic; None: nothing to settle
        self.has_outcome = threading.Event()
        self.has_room = threading.Event()
        self._claimed = self._drained = 0
        self._rate = 0.0  # jobs finished a second
        self._ended, self._ended_at = 0, time.monotonic()
        self._seen, self._seen_at = 0, time.monotonic()

    def claimed(self, jobs: int) -> None:
        """So many jobs were claimed."""
        if not self.unfinished():
            self._ended_at = time.monotonic()
        self._claimed += jobs

    def finish(self, outcome: Outcome | None) -> None:
        """A job has reached its outcome. Called by any thread."""
        self.outcomes.append(outcome)
        if not self.has_outcome.is_set():
            self.has_outcome.set()
        if not self.has_room.is_set():
            self.has_room.set()

    def drain(self, most: int) -> list[Outcome]:
        """Take up to `most` outcomes to settle them. Called by one thread."""
        self.has_outcome.clear()
        batch: list[Outcome] = []
        taken = 0
        while taken < most and self.outcomes:
            outcome = self.outcomes.popleft()
            taken += 1
            self._drained += 1
            if outcome is not None:
                batch.append(outcome)
        return batch

    def put_back(self, outcomes: Sequence[Outcome]) -> None:
        """Outcomes that could not be settled now."""
        self._drained -= len(outcomes)
        self.outcomes.extend(outcomes)  # behind the others, which it must not hold up
        self.has_outcome.set()

    def unfinished(self) -> int:
        """Jobs claimed whose handler has not ended."""
        return self._claimed - self._drained - len(self.outcomes)

    def room(self) -> int:
        """How many jobs to claim now; 0: rather wait for has_room."""
        seconds = max(LEAST_TIME, PREFETCH_TIME * min(1.0, self._rate / QUICK))
        prefetch = min(MAX_PREFETCH, math.ceil(self._rate * seconds))
        room = self.concurrency + prefetch - self.unfinished()
        # Half of the prefetch at a time: a claim for each single job would cost more than it gains.
        return room if room >= max(1, prefetch // 2) else 0

    def measure(self) -> None:
        """Take the rate at which jobs finished since the last call, while there were some in hand."""
        now, finished = time.monotonic(), self._claimed - self.unfinished()
        elapsed, jobs = now - self._seen_at, finished - self._seen
        # Jobs that run at once may end at the same moment, which is no rate; more than those take time.
        if elapsed < 0.001 or (elapsed < MEASURED and jobs <= self.concurrency):
            return
        self._rate = 0.5 * self._rate + 0.5 * jobs / elapsed
        self._seen, self._seen_at = finished, now

    def stalled(self, seconds: float) -> bool:
        """Whether jobs are in hand, and none has ended for so long, by what the calls of this have seen."""
        now, ended = time.monotonic(), self._claimed - self.unfinished()
        if ended != self._ended or ended == self._claimed:
            self._ended, self._ended_at = ended, now
        return now - self._ended_at >= seconds

    def idle(self) -> None:
        """There was no work: start anew with small claims, for the next jobs may be slow ones."""
        self._rate = 0.0
        self._seen, self._seen_at = self._claimed - self.unfinished(), time.monotonic()
