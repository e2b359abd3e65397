"""The floor for a stream of jobs: a loop that claims and completes jobs, and sleeps 2 ms if there are none."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import psycopg

from bench.drain import claim_and_complete

PATIENCE = 600.0  # seconds
BATCH = 200
PAUSE = 0.002  # seconds


def main(dsn: str, folder: Path) -> None:
    """Run until the process is ended."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        claim_and_complete(conn, BATCH)
        (folder / "ready").touch()
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if not claim_and_complete(conn, BATCH):
                time.sleep(PAUSE)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
