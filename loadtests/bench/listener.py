"""The floor of the start latency: a process that listens, and claims at each notification. latency.py runs it."""

from __future__ import annotations

import select
import sys
import time
from pathlib import Path

import psycopg

PATIENCE = 300.0  # seconds


def main(dsn: str, folder: Path) -> None:
    """Record the wait of each job in milliseconds, as the worker's handler does."""
    with psycopg.connect(dsn, autocommit=True) as conn, (folder / "starts").open("a", buffering=1) as starts:
        claim = "select data from pgjobq.claim_jobs(1, '{default}', 10)"
        rung: list[psycopg.Notify] = []
        conn.add_notify_handler(rung.append)  # receives notifications that arrive during a claim
        conn.execute(claim, prepare=True)
        conn.execute("listen bare")
        (folder / "ready").touch()
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if not rung:
                select.select([conn.fileno()], [], [], 1.0)
                conn.pgconn.consume_input()
            if conn.pgconn.notifies() or rung:
                rung.clear()
                for row in conn.execute(claim, prepare=True):
                    starts.write(f"{(time.time() - row[0]['sent']) * 1000}\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
