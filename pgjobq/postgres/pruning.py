"""Delete old finished jobs: all of them in one call, or batch by batch in the background of a worker."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from datetime import timedelta

from pgjobq.outcomes import Pruned
from pgjobq.postgres.database import Database

Position = tuple[str | None, str | None]  # created_at and id of the job after which the next batch begins

OLDEST: Position = (None, None)
BATCH = 1000  # jobs
SHARE = 0.2  # largest share of the time that background pruning uses
ROUND = 60.0  # seconds between checks for jobs that have become old enough
SWEEP = 3600.0  # seconds between rounds that begin at the oldest job
OTHERS_TURN = 30.0  # seconds to pause in the background while another worker prunes
RETRY = 0.02  # seconds between attempts of all() while another worker prunes


class Pruning:
    """Calls prune_jobs in batches. Each batch begins where the last one ended. Only one thread may call some()."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # By statuses, because each kind of job has an age of its own.
        self._positions: dict[tuple[str, ...], Position] = {}
        self._swept_at: dict[tuple[str, ...], float] = {}

    def all(
        self, older_than: timedelta, statuses: Sequence[str], batch: int, queues: Sequence[str] | None = None
    ) -> int:
        """Delete all jobs that finished longer ago than older_than. Return how many."""
        position, pruned = OLDEST, 0
        while True:
            some, position = self._batch(older_than, statuses, batch, position, queues)
            if some is None:
                time.sleep(RETRY)
                continue
            pruned += some
            if some < batch:
                return pruned

    def some(self, older_than: timedelta, queues: Sequence[str] | None, statuses: Sequence[str]) -> Pruned:
        """Delete one batch, unless another worker is pruning."""
        began, kind = time.monotonic(), tuple(statuses)
        if began - self._swept_at.get(kind, -math.inf) >= SWEEP:
            # Begin at the oldest job, because jobs that were skipped may have finished since.
            self._positions[kind], self._swept_at[kind] = OLDEST, began
        some, position = self._batch(older_than, kind, BATCH, self._positions[kind], queues)
        if some is None:
            return Pruned(again_in=OTHERS_TURN * random.uniform(0.5, 1.5))  # noqa: S311  # jitter need not be secret
        self._positions[kind] = position
        if some < BATCH:
            return Pruned(jobs=some, again_in=ROUND)
        return Pruned(jobs=some, again_in=(time.monotonic() - began) * (1 / SHARE - 1))

    def _batch(
        self,
        older_than: timedelta,
        statuses: Sequence[str],
        batch: int,
        after: Position,
        queues: Sequence[str] | None,
    ) -> tuple[int | None, Position]:
        call = self._database.calls.prune_jobs(older_than, statuses, batch, after, queues)
        pruned, created_at, job_id = self._database.run(call)
        return pruned, (created_at, job_id)
