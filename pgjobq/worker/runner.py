"""The base class of the two runners. Only the code that removes a run from _runs may decide its outcome."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod

from pgjobq.events import EventLog
from pgjobq.storage.base import BaseStorage, Released
from pgjobq.worker.in_flight import InFlight
from pgjobq.worker.running import Run, log_fields

log = EventLog("pgjobq.worker")


class Runner(ABC):
    """Keeps the active runs, at most `concurrency` at once, and ends those that time out or are abandoned."""

    def __init__(self, in_flight: InFlight, storage: BaseStorage, concurrency: int) -> None:
        self._in_flight, self._storage, self._concurrency = in_flight, storage, concurrency
        self._runs: dict[Run, Run] = {}
        self._logs_each = log.isEnabledFor(logging.DEBUG)  # checked once, because a check for each job would cost time

    def running(self) -> list[Run]:
        """Return the active runs."""
        return list(self._runs)

    def check_deadlines(self) -> float | None:
        """Settle the runs that are past their deadline. Returns the seconds until the next deadline, or None."""
        nearest: float | None = None
        now = time.monotonic()
        for run in list(self._runs):
            if run.deadline is None:
                continue
            if run.deadline > now:
                nearest = min(nearest or run.deadline, run.deadline)
            elif self._runs.pop(run, None) is not None:
                self._in_flight.add_outcome(run.timed_out())
                self._detach(run, replace=True)
        return None if nearest is None else nearest - now

    def abandon(self, run: Run, *, release: bool) -> None:
        """End a run without waiting for its handler. Its job is released, or was lost to another worker."""
        if self._runs.pop(run, None) is not None:
            run.mark_lost()
            log.warning("job.released" if release else "job.lost", extra=log_fields(run.job))
            self._in_flight.add_outcome(Released(run.job, ran=True) if release else None, run.job)
            self._detach(run, replace=not release)

    @abstractmethod
    def _detach(self, run: Run, *, replace: bool) -> None:
        """Stop a removed run, or leave it to its thread. replace: other jobs should run in its place."""
