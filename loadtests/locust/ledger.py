"""What the users know to be enqueued, to be compared at the end with what is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg


@dataclass
class Ledger:
    """Numbers of jobs by type. unsure: of an enqueue whose answer never came, so that it may have committed or not."""

    acknowledged: Counter[str] = field(default_factory=Counter)
    unsure: Counter[str] = field(default_factory=Counter)

    def clear(self) -> None:
        """Begin anew."""
        self.acknowledged.clear()
        self.unsure.clear()

    @contextmanager
    def enqueueing(self, conn: psycopg.Connection, job_type: str, jobs: int = 1) -> Iterator[None]:
        """Around one enqueue of so many jobs, with its commit."""
        try:
            yield
        except BaseException:
            # An error from a server that goes on answering means that nothing was committed.
            if conn.closed or conn.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                self.unsure[job_type] += jobs
            raise
        self.acknowledged[job_type] += jobs
