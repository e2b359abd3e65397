"""How soon a job starts: on an idle worker, after the death of another; and what an idle worker asks of the server."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable

import psycopg
from bench_ground import PATIENCE, Bench, Connection, Crew, Row, files, process, wait_until, workers

from pgjobq.postgres.presence import GRACE

GAP = 0.010  # seconds between two lone jobs
IDLE_PROMISE = 0.2  # statements a second of one idle worker


def latency(bench: Bench) -> list[Row]:
    """Milliseconds from just before the enqueue call of a lone job to its handler's first line.

    The floor has no worker: a process waits for a NOTIFY sent by the statement that enqueues, and claims one job. Both
    sides are enqueued by the same loop on one connection, and claim with the same function.
    """
    ours, bare = [], []
    for _ in range(bench.sizes.repeat):
        with bench.database() as dsn, workers(dsn) as crew:
            ours.append(_starts(dsn, bench.sizes.latency_jobs, "select pgjobq.enqueue_job('stamp', %s)", crew))
        with bench.database() as dsn:
            bare.append(_bare_starts(dsn, bench.sizes.latency_jobs))
    return [
        Row(
            measure="latency",
            name=f"start of a lone job, p{int(share * 100)}",
            unit="ms",
            floor_name="bare LISTEN, claim_jobs",
            figures=[_at(share, run) for run in ours],
            floors=[_at(share, run) for run in bare],
            aim=aim,
        )
        for share, aim in ((0.5, "<= 1.5"), (0.99, "<= 1.5"))
    ]


def _at(share: float, run: list[float]) -> float:
    return sorted(run)[min(len(run) - 1, int(share * len(run)))]


def _starts(dsn: str, jobs: int, enqueue: str, crew: Crew) -> list[float]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        _send(conn, enqueue, 10)  # a connection's first statements are slower, a worker's first job too
        wait_until(lambda: len(crew.starts()) == 10, "a job did not start")
        _send(conn, enqueue, jobs)
        wait_until(lambda: len(crew.starts()) == 10 + jobs, "a job did not start")
    return [float(line) for line in crew.starts()[10:]]


def _send(conn: Connection, enqueue: str, jobs: int) -> None:
    for _ in range(jobs):
        conn.execute(enqueue, [f'{{"sent": {time.time()!r}}}'], prepare=True)
        time.sleep(GAP)


def _bare_starts(dsn: str, jobs: int) -> list[float]:
    with files() as folder, process([sys.executable, "bench_listener.py", dsn, str(folder)], {}):
        wait_until((folder / "ready").exists, "the bare listener did not start")
        enqueue = "select pgjobq.enqueue_job('stamp', %s), pg_notify('bare', '')"
        return _starts(dsn, jobs, enqueue, Crew(folder, []))


def idle(bench: Bench) -> list[Row]:
    """Statements a second of one idle worker, as pg_stat_statements counts them: all of its sessions together."""
    seconds = bench.sizes.idle_seconds
    with bench.database() as dsn, workers(dsn), psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("create extension pg_stat_statements")
        time.sleep(min(2.0, seconds))  # past what follows the worker's start
        conn.execute("select pg_stat_statements_reset()")
        time.sleep(seconds)
        calls = conn.execute(
            """select query, calls from pg_stat_statements
                where toplevel and query !~ 'pg_stat_statements'
                  and dbid = (select oid from pg_database where datname = current_database())"""
        ).fetchall()
    return [
        Row(
            measure="idle",
            name="an idle worker",
            unit="statements/s",
            floor_name="promised: 1 in 5 s",
            figures=[sum(count for _, count in calls) / seconds],
            floors=[IDLE_PROMISE],
            aim="<= 1",
            notes={"seconds": seconds, "calls": dict(calls)},
        )
    ]


def kill(bench: Bench) -> list[Row]:
    """Seconds from SIGKILL of a worker in the middle of a job until another, idle one starts that job."""
    waits = []
    for _ in range(bench.sizes.kills):
        with bench.database() as dsn, workers(dsn, 2) as crew, psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("select pgjobq.enqueue_job('hang')")
            wait_until(lambda crew=crew: len(crew.starts()) == 1, "the job did not start", 0.005)  # type: ignore[misc]
            time.sleep(0.5)
            os.kill(int(crew.starts()[0]), signal.SIGKILL)
            waits.append(_seconds_until(lambda crew=crew: len(crew.starts()) == 2))  # type: ignore[misc]
            os.kill(int(crew.starts()[1]), signal.SIGKILL)  # it would sit out the job
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
