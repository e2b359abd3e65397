"""The thread that renews the lease of a LeasedStorage."""

from __future__ import annotations

import threading
import weakref
from typing import Protocol

from pgjobq.events import EventLog

log = EventLog("pgjobq.storage")

RENEWALS = 3  # renewals in the time in which a lease would expire


class Leaseholder(Protocol):
    """The part of a storage that its keeper uses."""

    lease: float  # seconds

    def keep(self) -> None:
        """Renew the lease."""


class Keeper(threading.Thread):
    """A thread that renews a storage's lease as long as the storage exists and the process lives."""

    def __init__(self, storage: Leaseholder) -> None:
        super().__init__(name="pgjobq-lease", daemon=True)
        self._storage = weakref.ref(storage)  # weak, so that an unused storage is collected
        self._interval = storage.lease / RENEWALS
        self._stopping = threading.Event()

    def run(self) -> None:
        """Renew the lease repeatedly, and sooner after an error."""
        pause = self._interval
        while not self._stopping.wait(pause):
            storage = self._storage()
            if storage is None:
                return
            pause = self._interval
            try:
                storage.keep()
            except Exception as error:
                pause = min(1.0, self._interval / 4)
                log.warning("lease.error", extra={"error": error, "retry_in": round(pause, 3)})
            del storage

    def stop(self) -> None:
        """Stop the thread after any renewal that is in progress."""
        self._stopping.set()
        if self is not threading.current_thread():
            self.join(self._interval)
