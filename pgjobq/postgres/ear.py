"""The ear: it reads the listener's connection while the thread that claims does something else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

LISTEN = 0.5  # seconds that it may go on after stop()
UNCONNECTED = 0.05  # seconds until the next look for a connection


class Ear:
    """Listens, in a thread of its own, for as long as it was asked to. The thread starts when it is first asked.

    A worker that has no room does not wait for notifications, and a cancel must reach it all the same. While jobs come
    and go quickly it is not asked: each notification would wake two threads.

    overhear: reads what comes within some seconds; False when there is no connection.
    """

    def __init__(self, overhear: Callable[[float], bool]) -> None:
        self._overhear = overhear
        self._until, self._asked = 0.0, threading.Event()
        self._stopping, self._started = False, False

    def attend(self, seconds: float) -> None:
        """Listen for this many seconds from now. Called by one thread."""
        self._until = time.monotonic() + seconds
        if not self._started:
            self._started = True
            threading.Thread(target=self._main, name="pgjobq-ear", daemon=True).start()
        elif not self._asked.is_set():
            self._asked.set()

    def stop(self) -> None:
        """End soon."""
        self._stopping = True
        self._asked.set()

    def _main(self) -> None:
        while not self._stopping:
            left = self._until - time.monotonic()
            if left <= 0:
                self._asked.clear()
                if self._until <= time.monotonic() and not self._stopping:
                    self._asked.wait()
            elif not self._overhear(min(left, LISTEN)):
                time.sleep(UNCONNECTED)
