"""Counts the jobs that the users have enqueued. The checks compare them with the database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg


@dataclass
class Ledger:
    """Numbers of jobs by type. unsure: jobs of enqueues without an answer, which may or may not have committed."""

    acknowledged: Counter[str] = field(default_factory=Counter)
    unsure: Counter[str] = field(default_factory=Counter)

    def clear(self) -> None:
        """Reset all counts."""
        self.acknowledged.clear()
        self.unsure.clear()

    @contextmanager
    def enqueueing(self, conn: psycopg.Connection, job_type: str, jobs: int = 1) -> Iterator[None]:
        """Count the jobs of the block, which enqueues this number of jobs and commits."""
        try:
            yield
        except BaseException:
            # If the server still answers after an error, nothing was committed.
            if conn.closed or conn.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                self.unsure[job_type] += jobs
            raise
        self.acknowledged[job_type] += jobs
