"""Limits of single queues within one worker: how many of a queue's jobs it has in flight at once.

A worker without such limits uses none of this.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pgjobq.errors import ConfigurationError
from pgjobq.models import Job
from pgjobq.outcomes import Outcome
from pgjobq.worker.fetcher import Fetcher
from pgjobq.worker.in_flight import InFlight

HELP_GAP = 0.1  # seconds between two calls for help while there are jobs to claim
Limits = Mapping[str, int | None]  # a queue and its limit; None: as many as the worker runs


def check_limits(limits: Limits, concurrency: int) -> None:
    """Raise ConfigurationError for a limit that is no whole number from 1 to the worker's concurrency."""
    for queue, limit in limits.items():
        if limit is None:
            continue
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise ConfigurationError(
                f"queues: {queue!r} has the limit {limit!r}; give a whole number above 0, or leave the queue out"
            )
        if limit > concurrency:
            raise ConfigurationError(
                f"queues: {queue!r} has the limit {limit}, and the worker runs {concurrency} jobs at once;"
                " raise its concurrency"
            )


class InFlightByQueue(InFlight):
    """Counts by queue, too. A claim that takes as many jobs as there is room for exceeds no limit, whatever it brings.

    on_open: called, in any thread, when a queue that was at its limit has room again.
    """

    def __init__(self, concurrency: int, limits: Limits, on_open: Callable[[], None]) -> None:
        super().__init__(concurrency)
        self._limits, self._on_open = {queue: limit or concurrency for queue, limit in limits.items()}, on_open
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.open_queues: list[str] = list(limits)  # those with room, when room() was called last

    def note_started(self, jobs: Sequence[Job]) -> None:
        """Count jobs that were claimed, by queue."""
        with self._lock:
            self._counts.update(job.queue for job in jobs)

    def add_outcome(self, outcome: Outcome | None, job: Job | None = None) -> None:
        """See InFlight."""
        ended = job if outcome is None else outcome.job
        opens = False
        if ended is not None:
            with self._lock:
                opens = self._counts[ended.queue] == self._limits.get(ended.queue)
                self._counts[ended.queue] -= 1
        super().add_outcome(outcome, job)
        if opens:
            self._on_open()

    def room(self) -> int:
        """How many jobs to claim of open_queues now; 0: rather wait for has_room."""
        room = super().room()
        with self._lock:
            left = {queue: limit - self._counts[queue] for queue, limit in self._limits.items()}
        self.open_queues = [queue for queue, jobs in left.items() if jobs > 0]
        return min(room, *(left[queue] for queue in self.open_queues)) if self.open_queues else 0

    def has_filled(self) -> bool:
        """Whether a queue that had room is at its limit now."""
        with self._lock:
            return any(self._counts[queue] >= self._limits[queue] for queue in self.open_queues)


class LimitedFetcher(Fetcher):
    """Claims from queues that have room. Jobs of the others stay in line, and other workers are told to take them."""

    def __init__(self, storage: Any, in_flight: InFlightByQueue, *arguments: Any, **options: Any) -> None:
        super().__init__(storage, in_flight, *arguments, **options)
        self._by_queue = in_flight
        self._needs_help, self._helped_at = False, 0.0

    def dispatch(self, jobs: Sequence[Job]) -> None:
        """See Fetcher."""
        self._by_queue.note_started(jobs)
        super().dispatch(jobs)

    def _claim(self, room: int) -> None:
        self._queues = self._by_queue.open_queues
        super()._claim(room)
        # A notification may have been for more jobs of the queue than this worker takes.
        self._needs_help = self._needs_help or (self._may_be_jobs and self._by_queue.has_filled())
        if self._needs_help and time.monotonic() - self._helped_at >= HELP_GAP:
            self._call_for_help()

    def _wait_for_jobs(self) -> None:
        if self._needs_help:
            self._call_for_help()
        self._queues = self._by_queue.open_queues
        super()._wait_for_jobs()

    def _call_for_help(self) -> None:
        self._needs_help, self._helped_at = False, time.monotonic()
        self._storage.note_load(busy=True, full=True)


def parse_queues(text: str) -> list[str] | dict[str, int | None]:
    """Queues as the command line takes them: mail,default or mail:2,default:8. Raises ConfigurationError.

    What follows the last colon of a name is its limit; nothing: none, for names that have a colon themselves.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not any(":" in word for word in words):
        return words
    limits: dict[str, int | None] = {}
    for word in words:
        queue, _, limit = word.rpartition(":") if ":" in word else (word, "", "")
        if (limit and not (limit.isascii() and limit.isdigit())) or not queue:
            raise ConfigurationError(
                f"queues: {word!r} is not a queue and a number; give mail:2, or {word}: for a queue of this name"
            )
        if queue in limits:
            raise ConfigurationError(f"queues: {queue!r} is given twice; give it once")
        limits[queue] = int(limit) if limit else None
    return limits
