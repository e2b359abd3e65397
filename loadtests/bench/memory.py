"""The resident memory of a worker: asleep, while it runs a million jobs with 10 kB of data, and afterwards."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Self

import psycopg

from bench.drain import wait_settled
from bench.harness import Bench, Connection, workers
from bench.rows import Line, Missing, Row

PAYLOAD = 10_000  # bytes of data per job
PAUSE = 0.05  # seconds between two samples
CHUNK = 500  # jobs per statement


def memory(bench: Bench) -> list[Line]:
    """Measure the resident memory of a worker at its start, at its peak, and after all jobs, each with 10 kB of data.

    A tenth of the jobs is enqueued and drained at a time, so that the worker also falls asleep.
    """
    jobs = bench.sizes.memory_jobs
    if not Path("/proc/self/status").exists():
        return [Missing(measure="memory", name="a worker's memory", reason="there is no /proc to read it from")]
    with bench.database() as dsn, workers(dsn) as crew, psycopg.connect(dsn, autocommit=True) as conn:
        with _Watch(crew.pids[0]) as watch:
            after = [resident(crew.pids[0])]
            for _ in range(10):
                _fill(conn, jobs // 10)
                wait_settled(conn)
                after.append(resident(crew.pids[0]))
        most = max(*after, watch.most)
    start, first, end = after[0], after[1], after[-1]
    notes = {"start": start, "max": most, "after_each_tenth": after[1:], "payload_bytes": PAYLOAD}

    def row(name: str, figure: float, floor_name: str, floor: float, **aim: Any) -> Row:
        return Row(
            measure="memory",
            unit="MB",
            name=name,
            figures=[figure],
            floor_name=floor_name,
            floors=[floor],
            notes=notes,
            **aim,
        )

    asleep, tenth = "asleep, before the first job", f"after the first {jobs // 10:,}"
    return [
        row(f"most, over {jobs:,} jobs of 10 kB", most, asleep, start, aim="<= 120", aim_on="figure"),
        row(f"after {jobs:,} jobs of 10 kB", end, tenth, first, aim="<= 1.1"),
    ]


def _fill(conn: Connection, jobs: int) -> None:
    """Enqueue jobs with data that compress well, so that the disk does not fill. The worker decompresses them."""
    for start in range(0, jobs, CHUNK):
        conn.execute(
            """insert into pgjobq.jobs (type, data)
               select 'ignore', jsonb_build_object('n', n, 'text', repeat('0123456789', %s / 10))
                 from generate_series(1, %s) as n""",
            [PAYLOAD, min(CHUNK, jobs - start)],
        )


class _Watch(threading.Thread):
    """Samples the memory of a process in a thread."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid, self._over = pid, threading.Event()
        self.most = 0.0

    def run(self) -> None:
        while not self._over.wait(PAUSE):
            self.most = max(self.most, resident(self._pid))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


def resident(pid: int) -> float:
    """Return the resident memory of a process, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the worker is gone")
