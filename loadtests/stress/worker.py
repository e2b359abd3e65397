"""A worker for the stress test of the doorbell. It has no fallback poll, which would hide a lost wake-up."""

from __future__ import annotations

import random
import sys
import time

from pgjobq import Worker, job
from pgjobq.cli.logs import configure
from pgjobq.storage.postgres_storage import PostgresStorage


@job(type="stress", max_retries=20)
def run() -> None:
    """Return at once, or sleep a little, or sleep for so long that the worker counts as busy."""
    time.sleep(random.choice((0, 0, 0, 0.001, 0.03)))


if __name__ == "__main__":
    configure(as_json=False, level="warning")
    Worker(PostgresStorage(sys.argv[1], poll_interval=3600), concurrency=random.choice((1, 2, 8)), grace=1).run()
