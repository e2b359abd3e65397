"""The base class of the worker's loops: a thread that keeps running when the database does not answer."""

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
    """Calls run_once repeatedly in its own thread, from start to stop.

    No error ends a loop. After an error the loop waits, with jitter and a backoff that doubles up to 10 seconds, and
    continues. It calls contact.lost() when the database does not answer; run_once calls contact.answered().
    """

    name = "loop"

    def __init__(self, contact: Contact | None = None) -> None:
        self.contact = Contact(lambda: 0) if contact is None else contact
        self.stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @abstractmethod
    def run_once(self) -> None:
        """Do one round. May block while there is nothing to do, but must return soon after stopping is set."""

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._main, name=f"pgjobq-{self.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask the loop to end; join() waits for it."""
        self.stopping.set()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the thread, for at most timeout seconds. Returns whether it has ended."""
        if self._thread is not None:
            self._thread.join(timeout)
        return not self.is_alive()

    def is_alive(self) -> bool:
        """Return whether the thread runs."""
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
