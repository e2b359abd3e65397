"""The limits of a load test: the share of failed calls, and the 99th percentile of the calls' times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from check import Finding


@dataclass(frozen=True, kw_only=True)
class Calls:
    """All calls with the same name. p99 is in milliseconds."""

    name: str
    requests: int
    failures: int
    p99: float


def failed_calls(calls: Sequence[Calls], errors: int, at_most: float) -> Finding:
    """Check the percentage of failed calls. errors: the number of exceptions outside calls, which must be 0."""
    requests, failures = sum(one.requests for one in calls), sum(one.failures for one in calls)
    if not requests:
        return Finding(name="failed calls", ok=False, detail="no call was made")
    percent = 100 * failures / requests
    detail = f"{failures:,} of {requests:,} calls, {percent:.2f} %, at most {at_most:g} %"
    detail += f"; and {errors:,} errors outside calls" if errors else ""
    return Finding(name="failed calls", ok=percent <= at_most and not errors, detail=detail)


def slowest(name: str, calls: Sequence[Calls], at_most: float) -> Finding | None:
    """Check the highest p99 of the calls. Return None if there were no calls."""
    made = [one for one in calls if one.requests]
    if not made:
        return None
    worst = max(made, key=lambda one: one.p99)
    detail = f"{worst.p99:g} ms ({worst.name}), at most {at_most:g} ms"
    return Finding(name=name, ok=worst.p99 <= at_most, detail=detail)
