"""Backoff and constant: bounds, growth and jitter of the delays, and the settings that are refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pgjobq.backoff import Backoff, constant
from pgjobq.errors import ConfigurationError

SECONDS = st.floats(0, 3.2e9)
FACTORS = st.floats(1, 1e300)
ATTEMPTS = st.integers(1, 10_000)
SHARES = st.floats(0, 1, exclude_max=True)  # the values that random() returns


def without_jitter(backoff: Backoff, attempt: int) -> float:
    return Backoff(backoff.base, backoff.factor, backoff.cap, jitter=0)(attempt)


@settings(deadline=None)  # a busy machine must not fail the test
@given(st.builds(Backoff, SECONDS, FACTORS, SECONDS, st.floats(0, 1)), ATTEMPTS, SHARES)
@example(Backoff(), 10_000, 0.999)
@example(Backoff(base=0), 10_000, 0.5)  # the growth overflows, but the base is zero
@example(Backoff(base=5e-324, cap=3.2e9), 1_100, 0.5)  # cap / base is greater than any float
def test_delay_stays_within_its_jitter_and_under_the_cap(backoff: Backoff, attempt: int, share: float) -> None:
    middle = without_jitter(backoff, attempt)
    delay = backoff(attempt, lambda: share)

    assert isinstance(delay, float)
    assert 0 <= delay <= backoff.cap
    slack = 1e-9 * middle
    assert middle * (1 - backoff.jitter) - slack <= delay <= middle * (1 + backoff.jitter) + slack


@settings(deadline=None)  # a busy machine must not fail the test
@given(st.builds(Backoff, SECONDS, FACTORS, SECONDS, st.just(0)), st.integers(1, 9_999))
def test_delay_never_shrinks_from_one_try_to_the_next(backoff: Backoff, attempt: int) -> None:
    assert backoff(attempt) <= backoff(attempt + 1)


def test_delay_doubles_up_to_the_cap() -> None:
    backoff = Backoff(base=1, factor=2, cap=10, jitter=0)

    assert [backoff(attempt) for attempt in (1, 2, 3, 4, 5, 10_000)] == [1, 2, 4, 8, 10, 10]


def test_defaults_reach_an_hour() -> None:
    middle = [Backoff()(attempt, lambda: 0.5) for attempt in (1, 2, 12, 13, 10_000)]

    assert middle == [1, 2, 2048, 3600, 3600]


def test_jitter_spreads_to_both_sides() -> None:
    backoff = Backoff(base=100, jitter=0.25)

    assert [backoff(1, iter([share]).__next__) for share in (0.0, 0.5, 1.0)] == [75, 100, 125]
    assert len({backoff(1) for _ in range(20)}) > 1


@pytest.mark.parametrize("attempt", [0, -1])
def test_attempt_before_the_first_counts_as_the_first(attempt: int) -> None:
    assert Backoff(base=7, jitter=0)(attempt) == 7


@settings(deadline=None)  # a busy machine must not fail the test
@given(SECONDS, ATTEMPTS)
def test_constant_returns_the_same_delay_for_every_try(seconds: float, attempt: int) -> None:
    assert constant(seconds)(attempt) == seconds


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (field, value)
        for field in ("base", "factor", "cap", "jitter")
        for value in (-1, math.nan, math.inf, "1", True, None)
    ]
    + [("base", 3.3e9), ("cap", 3.3e9), ("factor", 0.99), ("jitter", 1.01)],
)
def test_invalid_settings_are_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"^backoff {field}: .* is not allowed; use a number "):
        Backoff(**{field: value})


def test_constant_refuses_an_invalid_time() -> None:
    with pytest.raises(ConfigurationError, match="use a number from 0 to 3200000000"):
        constant(-1)
