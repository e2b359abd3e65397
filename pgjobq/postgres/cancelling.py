"""Cancelling many jobs, in batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from pgjobq.models import Which

BATCH = 1000  # jobs


def cancel_matching(
    rows: Callable[[str, Sequence[Any]], list[Any]], which: Which, max_jobs: int | None, reason: str | None
) -> int:
    """Cancel the jobs that match, at most max_jobs, by calls of cancel_jobs that go on where the one before ended."""
    left = math.inf if max_jobs is None else max_jobs
    position: list[str | None] = [None, None]
    done = 0
    while left > 0:
        batch = int(min(BATCH, left))
        some, *position = rows(
            "cancel_jobs", [which.queue, which.type, which.created_before, batch, reason, *position]
        )[0]
        done += some
        left -= some
        if some < batch:
            break
    return done
