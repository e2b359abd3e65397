"""Cancelling many jobs, in batches."""

from __future__ import annotations

from pgjobq.models import Which
from pgjobq.postgres.database import Database

BATCH = 1000  # jobs


def cancel_matching(database: Database, which: Which, max_jobs: int | None, reason: str | None) -> int:
    """Cancel the jobs that match, at most max_jobs, by calls of cancel_jobs that go on where the one before ended."""
    position: tuple[str | None, str | None] = (None, None)
    done = 0
    while max_jobs is None or done < max_jobs:
        batch = BATCH if max_jobs is None else min(BATCH, max_jobs - done)
        some, *reached = database.run(database.calls.cancel_jobs(which, batch, reason, position))
        position = reached[0], reached[1]
        done += some
        if some < batch:
            break
    return done
