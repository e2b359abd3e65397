"""The rate at which one or several worker processes drain a queue, compared with a raw loop.

All rows are kept, unless the name of the measure says otherwise. Every repetition starts from a copy of one filled,
vacuumed and analysed database. Figure and floor are measured in turns. The time of a drain is from the first claim to
the last completion, according to the rows of `jobs`.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache

import psycopg

from bench.harness import Bench, Connection, fill, settle_down, value, wait_until, workers
from bench.rows import Line, Missing, Row

BATCH = 500  # jobs per claim of the raw loop
CROWD = 4  # worker processes, the most that two cores can serve
LOOP = f"claim_jobs + complete_jobs inline, one connection, {BATCH} at a time"


def drain(bench: Bench) -> list[Line]:
    """Measure the jobs a second of one worker process, sync and async, and of several, compared with a raw loop."""
    jobs, crews = bench.sizes.drain_jobs, bench.sizes.crews
    raw: list[float] = []
    sync: list[float] = []
    on_loop: list[float] = []
    several: dict[int, list[float]] = {count: [] for count in crews}
    with bench.database() as filled, bench.database() as filled_async:
        for database, kind in ((filled, "noop"), (filled_async, "noop_async")):
            fill(database, jobs, kind)
            settle_down(database)
        for repetition in range(bench.sizes.repeat):
            with bench.database(like=filled) as dsn:
                raw.append(_raw_loop(dsn, jobs))
            sync.append(drained(bench, filled, jobs))
            on_loop.append(drained(bench, filled_async, jobs, kind="noop_async"))
            for count in crews if repetition < bench.sizes.repeat_long else ():
                several[count].append(drained(bench, filled, jobs, count))
    return [
        _row("one worker, sync handlers", LOOP, sync, raw, ">= 0.7"),
        _row("one worker, async handlers", LOOP, on_loop, raw, ">= 0.6"),
        *[
            _row(
                f"{count} workers, sync handlers",
                "one worker",
                several[count],
                sync[: len(several[count])],
                ">= 1.0" if count <= CROWD else ">= 0.7",  # more processes only must not be much slower
            )
            for count in crews
        ],
    ]


def _row(name: str, floor_name: str, figures: list[float], floors: list[float], aim: str) -> Row:
    return Row(
        measure="drain", name=name, unit="jobs/s", floor_name=floor_name, figures=figures, floors=floors, aim=aim
    )


def drained(bench: Bench, filled: str, jobs: int, count: int = 1, *, kind: str = "noop") -> float:
    """Return the jobs a second of these workers on a copy of a database with due jobs of one type."""
    with bench.database(like=filled) as dsn, workers(dsn, count, gated=True) as crew:
        return _rate(dsn, jobs, kind, crew.go)


def _raw_loop(dsn: str, jobs: int) -> float:
    def loop() -> None:
        with psycopg.connect(dsn, autocommit=True) as conn:
            while claim_and_complete(conn, BATCH):
                pass

    return _rate(dsn, jobs, "noop", loop)


def claim_and_complete(conn: Connection, batch: int, queues: Sequence[str] | None = ("default",)) -> int:
    """Claim and complete all jobs in a raw loop, and return their number."""
    claim = "select claim_id, id from pgjobq.claim_jobs(1, %s, %s)"
    rows = conn.execute(claim, [None if queues is None else list(queues), batch], prepare=True).fetchall()
    if rows:
        arguments = [[row[1] for row in rows], [row[0] for row in rows], list({row[0] for row in rows})]
        conn.execute("select pgjobq.complete_jobs(1, %s, %s, %s)", arguments, prepare=True)
    return len(rows)


def _rate(dsn: str, jobs: int, kind: str, start: Callable[[], None]) -> float:
    with psycopg.connect(dsn, autocommit=True) as conn:
        last = last_in_line(conn)
        start()
        wait_done(conn, last)
        wait_settled(conn)
        completed, seconds = conn.execute(
            """select count(*), extract(epoch from max(finished_at) - min(started_at))::float8
                 from pgjobq.jobs where type = %s and status = 'completed'""",
            [kind],
        ).fetchone() or (0, 0.0)
        if completed != jobs:
            raise RuntimeError(f"{jobs} jobs were enqueued, {completed} completed")
        return jobs / max(float(seconds), 1e-3)


def last_in_line(conn: Connection, condition: str = "true") -> str | None:
    """Return the id of the job that will be claimed last."""
    query = f"select job_id from pgjobq.ready where {condition} order by lane desc, seq desc limit 1"
    row = conn.execute(query).fetchone()
    return row[0] if row is not None else None


def wait_done(conn: Connection, job_id: str | None) -> None:
    """Wait until the job is finished or deleted. Read only one row, in order not to disturb the drain."""
    open_ = "select exists (select from pgjobq.jobs where id = %s and status in ('pending', 'running'))"
    wait_until(lambda: not value(conn, open_, [job_id]), "the drain did not end", 0.02)


def wait_settled(conn: Connection) -> None:
    """Wait until no job is running or in line."""
    left = "select exists (select from pgjobq.claims) or exists (select from pgjobq.ready)"
    wait_until(lambda: not value(conn, left), "the drain did not end", 0.05)


def keep_none(bench: Bench) -> list[Line]:
    """Measure the jobs a second of one worker that deletes completed jobs, compared with one that keeps them."""
    name = "one worker, --keep 0"
    if "--keep " not in _worker_help():
        return [Missing(measure="keep", name=name, reason="this version's worker has no option --keep")]
    jobs = bench.sizes.drain_jobs
    figures, floors = [], []
    with bench.database() as filled:
        fill(filled, jobs, "noop")
        settle_down(filled)
        for _ in range(bench.sizes.repeat_long):
            floors.append(_on_the_clock(bench, filled, jobs, ()))
            figures.append(_on_the_clock(bench, filled, jobs, ("--keep", "0")))
    floor_name = "one worker, rows kept; both by the bench's clock, connecting included"
    return [
        Row(
            measure="keep",
            name=name,
            unit="jobs/s",
            floor_name=floor_name,
            figures=figures,
            floors=floors,
            aim=">= 1.0",
        )
    ]


@cache
def _worker_help() -> str:
    command = [sys.executable, "-m", "pgjobq", "worker", "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _on_the_clock(bench: Bench, filled: str, jobs: int, options: Sequence[str]) -> float:
    with (
        bench.database(like=filled) as dsn,
        psycopg.connect(dsn, autocommit=True) as conn,
        workers(dsn, gated=True, options=options) as crew,
    ):
        last = last_in_line(conn)
        started = time.perf_counter()
        crew.go()
        wait_done(conn, last)
        wait_settled(conn)
        return jobs / (time.perf_counter() - started)
