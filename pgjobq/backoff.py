"""How long to wait before the next try."""

from __future__ import annotations

import math
import random as _random
from collections.abc import Callable
from dataclasses import dataclass

from pgjobq.errors import MAX_DELAY, ConfigurationError

BackoffFunction = Callable[[int], float]
"""attempt (1 after the first failure) -> seconds to wait."""


@dataclass(frozen=True)
class Backoff:
    """Exponential, with jitter, capped: base, base x factor, base x factor squared ... seconds.

    jitter spreads each delay evenly over (1 - jitter) to (1 + jitter) of it; cap holds afterwards too.
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
                raise ConfigurationError(f"backoff {name}: {value!r} is not allowed; give a number {allowed}")

    # Jitter spreads load; it guards no secret.
    def __call__(self, attempt: int, random: Callable[[], float] = _random.random) -> float:
        """Seconds before the next try, after the attempt-th (from 1) failed."""
        try:
            delay = min(self.cap, self.base * float(self.factor) ** (max(attempt, 1) - 1))
        except OverflowError:
            delay = self.cap if self.base else 0.0
        return float(min(self.cap, delay * (1 + self.jitter * (2 * random() - 1))))


def constant(seconds: float) -> BackoffFunction:
    """The same delay every time."""
    return Backoff(base=seconds, factor=1, cap=seconds, jitter=0)
