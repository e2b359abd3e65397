"""The limits that a load test passes or fails by: failed calls, and the 99th percentile of their times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from check import Finding


@dataclass(frozen=True, kw_only=True)
class Calls:
    """All calls of one name. p99: milliseconds."""

    name: str
    requests: int
    failures: int
    p99: float


def failed_calls(calls: Sequence[Calls], errors: int, at_most: float) -> Finding:
    """The percentage of failed calls. errors: exceptions that no call accounts for, which are never allowed."""
    requests, failures = sum(one.requests for one in calls), sum(one.failures for one in calls)
    if not requests:
        return Finding(name="failed calls", ok=False, detail="no call was made")
    percent = 100 * failures / requests
    detail = f"{failures:,} of {requests:,} calls, {percent:.2f} %, at most {at_most:g} %"
    detail += f"; and {errors:,} errors in the users themselves" if errors else ""
    return Finding(name="failed calls", ok=percent <= at_most and not errors, detail=detail)


def slowest(name: str, calls: Sequence[Calls], at_most: float) -> Finding | None:
    """The highest p99 of the calls; None when there were none."""
    made = [one for one in calls if one.requests]
    if not made:
        return None
    worst = max(made, key=lambda one: one.p99)
    detail = f"{worst.p99:g} ms ({worst.name}), at most {at_most:g} ms"
    return Finding(name=name, ok=worst.p99 <= at_most, detail=detail)
