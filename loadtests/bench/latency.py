"""The time until an idle worker starts a single job, and until a worker starts the job of a dead one."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import psycopg

from bench.harness import PATIENCE, Bench, Connection, Crew, files, process, wait_until, workers
from bench.rows import Line, Row, at
from pgjobq.postgres.presence import GRACE

GAP = 0.005  # seconds between two single jobs
WARM = 20  # single jobs that are not measured
BIN = 0.1  # ms, of the histogram
LAST_BIN = 200  # also counts all longer waits


def latency(bench: Bench) -> list[Line]:
    """Measure the time from just before the enqueue of a single job to its handler's first line, at 200 jobs a second.

    The floor has no worker: a process waits for a NOTIFY that the enqueueing statement sends, and then claims. For both
    sides, the same loop enqueues on one connection, and the same function claims.
    """
    ours, bare = [], []
    for _ in range(bench.sizes.repeat_long):
        with bench.database() as dsn, workers(dsn) as crew:
            ours.append(_starts(dsn, bench.sizes.latency_jobs, "select pgjobq.enqueue_job('stamp', %s)", crew))
        with bench.database() as dsn:
            bare.append(_bare_starts(dsn, bench.sizes.latency_jobs))
    bench.series["latency"] = {
        "bin_ms": BIN,
        "jobs": bench.sizes.latency_jobs * len(ours),
        "worker": _histogram(ours),
        "floor": _histogram(bare),
    }
    return [
        Row(
            measure="latency",
            name=f"start of a lone job, 200 a second, p{int(share * 100)}",
            unit="ms",
            floor_name="bare LISTEN, claim_jobs",
            figures=[at(share, run) for run in ours],
            floors=[at(share, run) for run in bare],
            aim="<= 1.5",
            notes={"most": max(map(max, ours)), "floor_most": max(map(max, bare))},
        )
        for share in (0.5, 0.99)
    ]


def _histogram(runs: list[list[float]]) -> dict[str, Any]:
    waits = [wait for run in runs for wait in run]
    counts = [0] * (LAST_BIN + 1)
    for wait in waits:
        counts[min(LAST_BIN, int(wait / BIN))] += 1
    return {"p50": at(0.5, waits), "p99": at(0.99, waits), "counts": counts}


def _starts(dsn: str, jobs: int, enqueue: str, crew: Crew) -> list[float]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        _send(conn, enqueue, WARM)  # the first statements of a connection are slower
        wait_until(lambda: len(crew.starts()) == WARM, "a job did not start")
        _send(conn, enqueue, jobs)
        wait_until(lambda: len(crew.starts()) == WARM + jobs, "a job did not start")
    return [float(line) for line in crew.starts()[WARM:]]


def _send(conn: Connection, enqueue: str, jobs: int) -> None:
    due = time.perf_counter()
    for _ in range(jobs):
        conn.execute(enqueue, [f'{{"sent": {time.time()!r}}}'], prepare=True)
        due += GAP
        time.sleep(max(0.0, due - time.perf_counter()))


def _bare_starts(dsn: str, jobs: int) -> list[float]:
    with files() as folder, process([sys.executable, "-m", "bench.listener", dsn, str(folder)], {}):
        wait_until((folder / "ready").exists, "the bare listener did not start")
        enqueue = "select pgjobq.enqueue_job('stamp', %s), pg_notify('bare', '')"
        return _starts(dsn, jobs, enqueue, Crew(folder, []))


def kill(bench: Bench) -> list[Line]:
    """Measure the time from SIGKILL of a worker that runs a job until an idle worker starts that job."""
    waits = []
    for _ in range(bench.sizes.kills):
        with bench.database() as dsn, workers(dsn, 2) as crew, psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("select pgjobq.enqueue_job('hang')")
            wait_until(lambda crew=crew: len(crew.starts()) == 1, "the job did not start", 0.005)  # type: ignore[misc]
            time.sleep(0.5)
            os.kill(int(crew.starts()[0]), signal.SIGKILL)
            waits.append(_seconds_until(lambda crew=crew: len(crew.starts()) == 2))  # type: ignore[misc]
            os.kill(int(crew.starts()[1]), signal.SIGKILL)  # which would otherwise run the job to its end
    return [
        Row(
            measure="kill",
            name="SIGKILL of a worker to its job's next start",
            unit="s",
            floor_name="the grace that a lost worker has to reconnect",
            figures=waits,
            floors=[GRACE] * len(waits),
            aim="<= 2.5",
        )
    ]


def _seconds_until(done: Callable[[], bool]) -> float:
    started = time.monotonic()
    wait_until(done, f"the job was not rescued in {PATIENCE:.0f} s", 0.005)
    return time.monotonic() - started
