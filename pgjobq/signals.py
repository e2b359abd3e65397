"""SIGTERM and SIGINT, as programs that end in good order take them."""

from __future__ import annotations

import signal
import time
from collections import deque
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
ONE_SIGNAL = 1.0  # seconds within which several count as one: `timeout` and some supervisors send two


class StopSignals:
    """Counts them. hear() is a signal's handler, so it takes no lock and writes no log: the code it interrupts may.

    count: how often the program was told to stop.
    """

    def __init__(self) -> None:
        self.count = 0
        self._first_at = 0.0
        self._untold: deque[int] = deque()

    def hear(self, number: int, _: FrameType | None = None) -> None:
        """Count a signal, unless it comes within a second of the first."""
        now = time.monotonic()
        self._untold.append(number)
        if not self.count:
            self.count, self._first_at = 1, now
        elif now - self._first_at >= ONE_SIGNAL:
            self.count += 1

    def untold(self) -> list[str]:
        """The names of the signals heard since the last call, to be logged."""
        names = []
        while self._untold:
            names.append(signal.Signals(self._untold.popleft()).name)
        return names


def end_is_near() -> None:
    """Ignore the signals from here to the end of the process, which would be killed by one while Python shuts down."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
