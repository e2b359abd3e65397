"""Track whether the database answers the loops of a worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pgjobq.events import EventLog

log = EventLog("pgjobq.worker")


class Contact:
    """Logs once when the worker loses its database, and once when the database answers again. Thread-safe.

    jobs_in_flight: returns the number of jobs that the worker has claimed and not settled.
    """

    def __init__(self, jobs_in_flight: Callable[[], int]) -> None:
        self._jobs_in_flight = jobs_in_flight
        self._lock = threading.Lock()
        self._away: set[str] = set()  # the loops whose last call got no answer
        self._since = 0.0

    def lost(self, loop: str, error: BaseException) -> None:
        """Record that a loop got no answer."""
        with self._lock:
            is_news = not self._away
            self._away.add(loop)
            if is_news:
                self._since = time.monotonic()
        if is_news:
            log.warning(
                "worker.cut_off", extra={"loop": loop, "error": error, "jobs_in_flight": self._jobs_in_flight()}
            )
        else:
            log.debug("worker.still_cut_off", extra={"loop": loop, "error": error})

    def answered(self, loop: str) -> None:
        """Record that a loop got an answer. This is cheap if its previous call was answered too."""
        if loop not in self._away:
            return
        with self._lock:
            self._away.discard(loop)
            is_news = not self._away
        if is_news:
            log.warning("worker.reconnected", extra={"seconds": round(time.monotonic() - self._since, 1)})
