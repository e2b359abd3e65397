"""The rate of bulk enqueues on one connection, without workers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import psycopg

from bench.enqueue import BARE, DATA
from bench.harness import Bench, Connection
from bench.rows import Line, Row
from pgjobq import JobQueue

CHUNK = 1000  # jobs per call of enqueue_jobs


def bulk(bench: Bench) -> list[Line]:
    """Measure the jobs a second of enqueue_jobs, JobQueue.enqueue_many and COPY, compared with no trigger."""
    jobs = max(CHUNK, bench.sizes.bulk_jobs // CHUNK * CHUNK)
    ways: dict[str, Callable[[str, Connection], None]] = {
        "insert": lambda _, conn: _calls(
            conn, jobs, "insert into bare (type, data) select * from unnest(%s::text[], %s::jsonb[])"
        ),
        "enqueue_jobs": lambda _, conn: _calls(conn, jobs, "select pgjobq.enqueue_jobs(%s::text[], %s::jsonb[])"),
        "enqueue_many": lambda dsn, _: _enqueue_many(dsn, jobs),
        "copy": lambda _, conn: _copy(conn, jobs, "bare"),
        "copy jobs": lambda _, conn: _copy(conn, jobs, "pgjobq.jobs"),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(bench.sizes.repeat):
        for name, way in ways.items():
            with bench.database() as dsn, psycopg.connect(dsn, autocommit=True) as conn:
                conn.execute(BARE)
                started = time.perf_counter()
                way(dsn, conn)
                found[name].append(jobs / (time.perf_counter() - started))

    def row(name: str, floor_name: str, figures: str, floors: str, aim: str) -> Row:
        return Row(
            measure="bulk",
            name=name,
            unit="jobs/s",
            floor_name=floor_name,
            figures=found[figures],
            floors=found[floors],
            aim=aim,
        )

    return [
        row(f"enqueue_jobs by {CHUNK}", "insert from unnest, no trigger", "enqueue_jobs", "insert", ">= 0.5"),
        row(f"JobQueue.enqueue_many by {CHUNK}", "insert from unnest, no trigger", "enqueue_many", "insert", ">= 0.3"),
        row("COPY into jobs", "COPY, no trigger", "copy jobs", "copy", ">= 0.5"),
    ]


def _calls(conn: Connection, jobs: int, statement: str) -> None:
    arguments = [["t"] * CHUNK, [json.dumps(DATA)] * CHUNK]
    for _ in range(jobs // CHUNK):
        conn.execute(statement, arguments, prepare=True)


def _enqueue_many(dsn: str, jobs: int) -> None:
    """Enqueue from Python, which creates and checks each job. Each job has different data."""
    with JobQueue(dsn) as queue:
        for start in range(0, jobs, CHUNK):
            queue.enqueue_many([queue.new_job("t", {**DATA, "n": n}) for n in range(start, start + CHUNK)])


def _copy(conn: Connection, jobs: int, table: str) -> None:
    lines = f"t\t{json.dumps(DATA)}\n" * CHUNK
    with conn.cursor().copy(f"copy {table} (type, data) from stdin") as copy:
        for _ in range(jobs // CHUNK):
            copy.write(lines)
