"""What the worker's loops share: a thread that survives a database that is away."""

from __future__ import annotations

import random
import threading
from abc import ABC, abstractmethod

from pgjobq.errors import PgjobqError, StorageUnavailable
from pgjobq.events import EventLog
from pgjobq.worker.contact import Contact

log = EventLog("pgjobq.worker")

BACKOFF_MIN, BACKOFF_MAX = 0.1, 10.0  # seconds


class Loop(ABC):
    """Runs run_once again and again in a thread of its own, from start to stop.

    After an error it waits, doubling to 10 seconds with jitter, and goes on: no error ends a loop. contact is told when
    the database does not answer; run_once tells it when it does.
    """

    name = "loop"

    def __init__(self, contact: Contact | None = None) -> None:
        self.contact = Contact(lambda: 0) if contact is None else contact
        self.stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @abstractmethod
    def run_once(self) -> None:
        """One round; blocks while there is nothing to do, and returns soon when stopping is set."""

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._main, name=f"pgjobq-{self.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask the loop to end; join() waits for it."""
        self.stopping.set()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the thread; whether it has ended."""
        if self._thread is not None:
            self._thread.join(timeout)
        return not self.is_alive()

    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def _main(self) -> None:
        backoff = BACKOFF_MIN
        while not self.stopping.is_set():
            try:
                self.run_once()
                backoff = BACKOFF_MIN
            except BaseException as error:
                pause = backoff * random.uniform(0.5, 1.0)  # noqa: S311  # jitter, not secrecy
                if isinstance(error, StorageUnavailable):
                    self.contact.lost(self.name, error)
                else:
                    log.error(
                        f"{self.name}.error",
                        extra={"error": error, "retry_in": round(pause, 3)},
                        exc_info=None if isinstance(error, PgjobqError) else error,
                    )
                backoff = min(backoff * 2, BACKOFF_MAX)
                self.stopping.wait(pause)
