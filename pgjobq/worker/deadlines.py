"""The thread that settles async runs at their deadlines."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from pgjobq.worker.loop import Loop


class Deadlines(Loop):
    """Looks at the deadlines when the nearest has come, in a thread that no handler can block.

    The thread starts with the first deadline. check settles what is due, and gives the seconds until the next.
    """

    name = "deadlines"

    def __init__(self, check: Callable[[], float | None]) -> None:
        super().__init__()
        self._check = check
        self._started = False
        self._next, self._woken = math.inf, threading.Event()

    def expect(self, deadline: float) -> None:
        """A run with this deadline is under way. Called by one thread."""
        if not self._started:
            self._started = True
            self.start()
        elif deadline < self._next:
            self._woken.set()

    def run_once(self) -> None:
        """Look, and wait for the next deadline."""
        self._woken.clear()
        self._next = math.inf  # one that comes while we look wakes us again
        pause = self._check()
        if pause is not None:
            self._next = time.monotonic() + pause
        self._woken.wait(pause)

    def stop(self) -> None:
        """End soon."""
        super().stop()
        self._woken.set()
