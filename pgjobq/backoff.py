"""Compute how long to wait before the next try."""

from __future__ import annotations

import math
import random as _random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from pgjobq.errors import MAX_DELAY, ConfigurationError

BackoffFunction = Callable[[int], float | timedelta]
"""A function from the attempt (1 after the first failure) to the seconds, or the timedelta, to wait."""


@dataclass(frozen=True)
class Backoff:
    """An exponential backoff with jitter and a cap: base, base x factor, base x factor squared ... seconds.

    jitter multiplies each delay by a random number from 1 - jitter to 1 + jitter. No delay is longer than cap.
    """

    base: float = 1.0  # seconds
    factor: float = 2.0
    cap: float = 3600.0  # seconds
    jitter: float = 0.25

    def __post_init__(self) -> None:
        for name, least, most in (
            ("base", 0, MAX_DELAY),
            ("factor", 1, math.inf),
            ("cap", 0, MAX_DELAY),
            ("jitter", 0, 1),
        ):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and least <= value <= most and value < math.inf):
                allowed = f"from {least} to {most:.0f}" if most < math.inf else f"of at least {least}, and finite"
                raise ConfigurationError(f"backoff {name}: {value!r} is not allowed; use a number {allowed}")

    # random is good enough, because jitter only spreads load.
    def __call__(self, attempt: int, random: Callable[[], float] = _random.random) -> float:
        """Return the seconds to wait after failed attempt number `attempt`, counted from 1."""
        try:
            delay = min(self.cap, self.base * float(self.factor) ** (max(attempt, 1) - 1))
        except OverflowError:
            delay = self.cap if self.base else 0.0
        return float(min(self.cap, delay * (1 + self.jitter * (2 * random() - 1))))


def constant(seconds: float) -> BackoffFunction:
    """Return a backoff that waits the same number of seconds every time."""
    return Backoff(base=seconds, factor=1, cap=seconds, jitter=0)
