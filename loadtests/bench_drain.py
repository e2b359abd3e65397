"""How fast jobs drain, and what a worker's memory does meanwhile.

All rows are kept. Every repetition starts from a copy of one filled database, vacuumed and analysed; figure and floor
take turns. A drain counts from the first claim's time to the last completion's, as the rows of `jobs` tell.
"""

from __future__ import annotations

from pathlib import Path

import psycopg
from bench_ground import Bench, Connection, Row, fill, settle_down, value, wait_until, workers

BATCH = 500  # jobs in a claim of the raw loop


def drain(bench: Bench) -> list[Row]:
    """One worker process with sync and with async no-op handlers, two worker processes; beside the raw loop."""
    jobs = bench.sizes.drain_jobs
    raw: list[float] = []
    sync: list[float] = []
    on_loop: list[float] = []
    two: list[float] = []
    with bench.database() as filled, bench.database() as filled_async:
        for database, kind in ((filled, "noop"), (filled_async, "noop_async")):
            fill(database, jobs, kind)
            settle_down(database)
        for _ in range(bench.sizes.repeat):
            with bench.database(like=filled) as dsn:
                raw.append(_raw_loop(dsn, jobs))
            sync.append(_drained_by(bench, filled, jobs, 1))
            on_loop.append(_drained_by(bench, filled_async, jobs, 1))
            two.append(_drained_by(bench, filled, jobs, 2))
    loop = f"claim_jobs + complete_jobs inline, one connection, {BATCH} at a time"
    return [
        _row("one worker, sync handlers", loop, sync, raw, ">= 0.7"),
        _row("one worker, async handlers", loop, on_loop, raw, ">= 0.6"),
        _row("two workers, sync handlers", "one worker", two, sync, ">= 1.0"),
    ]


def _row(name: str, floor_name: str, figures: list[float], floors: list[float], aim: str) -> Row:
    return Row(
        measure="drain", name=name, unit="jobs/s", floor_name=floor_name, figures=figures, floors=floors, aim=aim
    )


def _drained_by(bench: Bench, filled: str, jobs: int, count: int) -> float:
    with bench.database(like=filled) as dsn, workers(dsn, count, gated=True) as crew:
        crew.go()
        return _rate(dsn, jobs)


def _raw_loop(dsn: str, jobs: int) -> float:
    claim = "select claim_id, id, attempts from pgjobq.claim_jobs(1, '{default}', %s)"
    with psycopg.connect(dsn, autocommit=True) as conn:
        while rows := conn.execute(claim, [BATCH]).fetchall():
            arguments = [[row[1] for row in rows], [row[2] for row in rows], [rows[0][0]]]
            conn.execute("select pgjobq.complete_jobs(1, %s, %s, %s)", arguments)
    return _rate(dsn, jobs)


def _rate(dsn: str, jobs: int) -> float:
    """Jobs a second, once all are done. Looks at one row and a tiny table, so as not to disturb."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        last = conn.execute("select job_id from pgjobq.ready order by seq desc limit 1").fetchone()
        if last is not None:
            done = "select status = 'completed' from pgjobq.jobs where id = %s"
            wait_until(lambda: value(conn, done, last), "the drain did not end", 0.1)
        _wait_settled(conn)
        completed, seconds = conn.execute(
            """select count(*), extract(epoch from max(finished_at) - min(started_at))::float8
                 from pgjobq.jobs where status = 'completed'"""
        ).fetchone() or (0, 0.0)
        if completed != jobs:
            raise RuntimeError(f"{jobs} jobs were enqueued, {completed} completed")
        return jobs / max(float(seconds), 1e-3)


def _wait_settled(conn: Connection) -> None:
    left = "select exists (select from pgjobq.claims) or exists (select from pgjobq.ready)"
    wait_until(lambda: not value(conn, left), "the drain did not end", 0.1)


def memory(bench: Bench) -> list[Row]:
    """A worker's resident memory at its start, after a tenth of the jobs and after all of them.

    Jobs come in and are drained a tenth at a time, so that the worker also falls asleep in between.
    """
    jobs = bench.sizes.memory_jobs
    with bench.database() as dsn, workers(dsn) as crew, psycopg.connect(dsn, autocommit=True) as conn:
        seen = [_resident(crew.pids[0])]
        for _ in range(10):
            fill(dsn, jobs // 10, "noop")
            _wait_settled(conn)
            seen.append(_resident(crew.pids[0]))
    notes = {"after_each_tenth": seen[1:]}

    def row(name: str, floor_name: str, floor: float, aim: str) -> Row:
        return Row(
            measure="memory",
            name=name,
            unit="MB",
            floor_name=floor_name,
            figures=[seen[-1]],
            floors=[floor],
            aim=aim,
            notes=notes,
        )

    return [
        row(f"worker after {jobs:,} jobs", f"after the first {jobs // 10:,}", seen[1], "<= 1.1"),
        row(f"worker after {jobs:,} jobs", "asleep, before the first job", seen[0], "<= 2"),
    ]


def _resident(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the worker is gone")
