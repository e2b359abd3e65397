"""The thread that settles async runs at their deadlines."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from pgjobq.worker.loop import Loop


class Deadlines(Loop):
    """Checks the deadlines when the nearest one has passed, in a thread that no handler can block.

    The thread starts with the first deadline. check settles the runs that are past their deadline, and returns the
    seconds until the next deadline, or None.
    """

    name = "deadlines"

    def __init__(self, check: Callable[[], float | None]) -> None:
        super().__init__()
        self._check = check
        self._started = False
        self._next, self._woken = math.inf, threading.Event()

    def expect(self, deadline: float) -> None:
        """Take note of a run that has this deadline. Only one thread may call this."""
        if not self._started:
            self._started = True
            self.start()
        elif deadline < self._next:
            self._woken.set()

    def run_once(self) -> None:
        """Check the deadlines, then wait for the next one."""
        self._woken.clear()
        self._next = math.inf  # a deadline that is added during the check wakes this thread
        pause = self._check()
        if pause is not None:
            self._next = time.monotonic() + pause
        self._woken.wait(pause)

    def stop(self) -> None:
        """Ask the loop to end, and wake it if it waits."""
        super().stop()
        self._woken.set()
