"""Tests whether a drain slows down while a transaction holds an old snapshot, so that vacuum can remove no rows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import psycopg

from bench import single_table
from bench.drain import last_in_line, wait_done
from bench.harness import Bench, fill, settle_down, value, wait_until, workers
from bench.rows import Line, Row

SINGLE_TABLE_BATCH = 200
SLOTS = 30  # points on the chart's axis
WAITING = """
    insert into pgjobq.jobs (type, data, priority)
    select 'noop', jsonb_build_object('n', n), 1 from generate_series(1, %s::integer) as n
"""
HELD = """
    select count(*) from pg_stat_activity
     where datname = current_database() and backend_xmin is not null and state = 'idle in transaction'
"""
FINISHED_AT = """
    select extract(epoch from finished_at - min(started_at) over ())::float8
      from pgjobq.jobs
     where priority > 1
     order by finished_at
"""


def snapshot(bench: Bench) -> list[Line]:
    """Measure the jobs a second in the last tenth of a drain, compared with the first, under an old snapshot."""
    jobs, waiting = bench.sizes.snapshot_jobs, bench.sizes.waiting_jobs
    alone: list[list[float]] = []
    beside: list[list[float]] = []
    bare: list[list[float]] = []
    with _filled(bench, jobs, 0) as queue, _filled(bench, jobs, waiting) as queue_beside:
        for _ in range(bench.sizes.repeat_long):
            alone.append(_drained(bench, queue))
            bare.append(_single_table(bench, jobs))
            beside.append(_drained(bench, queue_beside))
    bench.series["snapshot"] = {"jobs": jobs, "worker": _paces(alone[0], jobs), "single_table": _paces(bare[0], jobs)}
    name = f"old snapshot, {jobs:,} jobs pass"
    return [
        _row(f"{name}: last tenth", alone, "its first tenth", [_tenth(run, 0) for run in alone], ">= 0.9"),
        _row(
            f"{name}, {waiting:,} of priority 1 wait: last tenth",
            beside,
            "its first tenth",
            [_tenth(run, 0) for run in beside],
            ">= 0.9",
        ),
        _row(
            f"{name}: last tenth",
            alone,
            f"single table, claimed {SINGLE_TABLE_BATCH} at a time: its last tenth",
            [_tenth(run, 9) for run in bare],
            ">= 1.0",
        ),
        Row(
            measure="snapshot",
            name=f"{name}, single table: last tenth",
            unit="jobs/s",
            figures=[_tenth(run, 9) for run in bare],
            floors=[_tenth(run, 0) for run in bare],
            floor_name="its first tenth",
            notes={"passed": [len(run) for run in bare], "seconds_allowed": bench.sizes.single_table_seconds},
        ),
    ]


def _row(name: str, runs: list[list[float]], floor_name: str, floors: list[float], aim: str) -> Row:
    notes = {"tenths": [[_tenth(run, number) for number in range(10)] for run in runs]}
    return Row(
        measure="snapshot",
        name=name,
        unit="jobs/s",
        figures=[_tenth(run, 9) for run in runs],
        floors=floors,
        floor_name=floor_name,
        aim=aim,
        notes=notes,
    )


def _tenth(run: list[float], number: int) -> float:
    """Return the jobs a second in one tenth of the jobs, from 0 to 9.

    run: the time at which each job was finished, in seconds after the first claim.
    """
    edges = [0.0, *(run[len(run) * share // 10 - 1] for share in range(1, 11))]
    return len(run) / 10 / max(edges[number + 1] - edges[number], 1e-3)


def _paces(run: list[float], jobs: int) -> dict[str, Any]:
    """Return the points of the chart: jobs a second over the number of finished jobs, in SLOTS steps."""
    size = max(1, jobs // SLOTS)
    ends = [0.0, *run[size - 1 :: size]]
    pace = [(size * (slot + 0.5), size / max(end - begin, 1e-3)) for slot, (begin, end) in enumerate(pairwise(ends))]
    return {"done": len(run), "seconds": run[-1], "pace": [(x, round(y, 1)) for x, y in pace]}


@contextmanager
def _filled(bench: Bench, jobs: int, waiting: int) -> Iterator[str]:
    with bench.database() as dsn:
        with psycopg.connect(dsn, autocommit=True) as conn:
            if waiting:
                conn.execute(WAITING, [waiting])
        fill(dsn, jobs, "noop")
        settle_down(dsn)
        yield dsn


@contextmanager
def old_snapshot(dsn: str) -> Iterator[None]:
    """Keep a transaction open that holds its snapshot and reads nothing more."""
    with psycopg.connect(dsn, autocommit=True) as conn, psycopg.connect(dsn) as holder:
        holder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        holder.execute("select count(*) from pg_class")
        if value(conn, HELD) != 1:
            raise RuntimeError("the snapshot is not held")
        yield
        if value(conn, HELD) != 1:
            raise RuntimeError("the snapshot was not held to the end")


def _drained(bench: Bench, filled: str) -> list[float]:
    """Return the time at which each job with a priority above 1 was finished, in seconds after the first claim."""
    with (
        bench.database(like=filled) as dsn,
        old_snapshot(dsn),
        workers(dsn, gated=True) as crew,
        psycopg.connect(dsn, autocommit=True) as conn,
    ):
        last = last_in_line(conn, "lane < -1")
        crew.go()
        wait_done(conn, last)
        left = "select exists (select from pgjobq.jobs where priority > 1 and status <> 'completed')"
        wait_until(lambda: not value(conn, left), "the drain did not end", 0.1)
        return [row[0] for row in conn.execute(FINISHED_AT)]


def _single_table(bench: Bench, jobs: int) -> list[float]:
    """Return the time at which each job was finished, in seconds. Stop after single_table_seconds."""
    with bench.database(empty=True) as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        single_table.create(conn, jobs)
        with old_snapshot(dsn):
            started = time.perf_counter()
            run: list[float] = []
            while ids := single_table.claim(conn, SINGLE_TABLE_BATCH):
                single_table.complete(conn, ids)
                now = time.perf_counter() - started
                run += [now] * len(ids)
                if now > bench.sizes.single_table_seconds:
                    break
            return run
