"""How long to wait before the next try."""

from __future__ import annotations

import math
import random as _random
from collections.abc import Callable
from dataclasses import dataclass

from pgjobq.errors import ConfigurationError

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
        for name, value, least in (("base", self.base, 0), ("factor", self.factor, 1), ("cap", self.cap, 0)):
            if not (math.isfinite(value) and value >= least):
                raise ConfigurationError(f"backoff {name}: {value!r} is not allowed; give a finite number >= {least}")
        if not 0 <= self.jitter <= 1:
            raise ConfigurationError(f"backoff jitter: {self.jitter!r} is not allowed; give a number from 0 to 1")

    # Jitter spreads load; it guards no secret.
    def __call__(self, attempt: int, random: Callable[[], float] = _random.random) -> float:
        """Seconds before the next try, after the attempt-th (from 1) failed."""
        exponent = max(attempt, 1) - 1
        # Past the cap the power is not needed, and would overflow.
        reached = (
            self.base > 0 and self.factor > 1 and exponent * math.log(self.factor) > math.log1p(self.cap / self.base)
        )
        delay = self.cap if reached else min(self.cap, self.base * self.factor**exponent)
        return min(self.cap, delay * (1 + self.jitter * (2 * random() - 1)))


def constant(seconds: float) -> BackoffFunction:
    """The same delay every time."""
    return Backoff(base=seconds, factor=1, cap=seconds, jitter=0)
