"""Deleting finished jobs: all at once for who asks, or bit by bit in the background of a worker."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from datetime import timedelta

from pgjobq.outcomes import Pruned
from pgjobq.postgres.database import Database

Position = tuple[str | None, str | None]  # created_at and id of the job to go on after

OLDEST: Position = (None, None)
BATCH = 1000  # jobs
SHARE = 0.2  # of the time, at most, in the background
ROUND = 60.0  # seconds between looks for jobs that have come of age
SWEEP = 3600.0  # seconds between rounds that begin at the oldest job
OTHERS_TURN = 30.0  # seconds to leave it to another worker that does it
RETRY = 0.02  # seconds, for who does not leave it to another


class Pruning:
    """Batches of prune_jobs, each beginning where the one before ended. some() belongs to one thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._position, self._swept_at = OLDEST, -math.inf

    def all(
        self, older_than: timedelta, statuses: Sequence[str], batch: int, queues: Sequence[str] | None = None
    ) -> int:
        """Delete all that are older; how many."""
        position, pruned = OLDEST, 0
        while True:
            some, position = self._batch(older_than, statuses, batch, position, queues)
            if some is None:
                time.sleep(RETRY)
                continue
            pruned += some
            if some < batch:
                return pruned

    def some(self, older_than: timedelta, queues: Sequence[str] | None = None) -> Pruned:
        """Delete a batch, unless another worker is at it."""
        began = time.monotonic()
        if began - self._swept_at >= SWEEP:
            # Again from the start: some that were passed by have finished since.
            self._position, self._swept_at = OLDEST, began
        some, position = self._batch(older_than, ("completed", "cancelled"), BATCH, self._position, queues)
        if some is None:
            return Pruned(again_in=OTHERS_TURN * random.uniform(0.5, 1.5))  # noqa: S311  # spread, not secrecy
        self._position = position
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
