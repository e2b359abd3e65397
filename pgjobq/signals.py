"""Handle SIGTERM and SIGINT in programs that stop in order."""

from __future__ import annotations

import signal
import time
from collections import deque
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
ONE_SIGNAL = 1.0  # seconds within which several signals count as one, because `timeout` and some supervisors send two


class StopSignals:
    """Counts stop signals. hear() is a signal handler, so it takes no lock and logs nothing.

    count: how often the program was asked to stop.
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
        """Return the names of the signals since the last call, for the log."""
        names = []
        while self._untold:
            names.append(signal.Signals(self._untold.popleft()).name)
        return names


def end_is_near() -> None:
    """Ignore the signals until the process ends, because a signal would kill it while Python shuts down."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
