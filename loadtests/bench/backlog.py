"""Tests whether scheduled jobs and finished jobs slow down a drain."""

from __future__ import annotations

import psycopg

from bench.drain import drained
from bench.harness import Bench, fill, settle_down
from bench.rows import Line, Row

CHUNK = 100_000  # rows per statement
FUTURE = """
    insert into pgjobq.jobs (type, data, execute_at)
    select 'old', jsonb_build_object('n', n), now() + interval '1 day' + n * interval '1 ms'
      from generate_series(%s::integer, %s) as n
"""
# They finished in the last hour, so that no worker prunes them.
FINISHED = """
    insert into pgjobq.jobs (type, data, status, attempts, created_at, updated_at, started_at, finished_at)
    select 'old', jsonb_build_object('n', n), 'completed', 1, t.at, t.at, t.at, t.at
      from generate_series(%s::integer, %s) as n
     cross join lateral (select now() - interval '1 hour' + n * interval '0.5 ms' as at) as t
"""


def future(bench: Bench) -> list[Line]:
    """Measure the jobs a second of one worker, with and without many jobs that are scheduled for tomorrow."""
    count = bench.sizes.future_jobs
    return [_beside(bench, "future", FUTURE, count, f"drain with {count:,} jobs for tomorrow")]


def finished(bench: Bench) -> list[Line]:
    """Measure the jobs a second of one worker, with and without many finished jobs."""
    count = bench.sizes.finished_jobs
    return [_beside(bench, "finished", FINISHED, count, f"drain with {count:,} finished jobs kept")]


def _beside(bench: Bench, measure: str, statement: str, count: int, name: str) -> Row:
    jobs = bench.sizes.drain_jobs
    figures, floors = [], []
    with bench.database() as without, bench.database() as laden:
        with psycopg.connect(laden, autocommit=True) as conn:
            for start in range(0, count, CHUNK):
                conn.execute(statement, [start + 1, min(start + CHUNK, count)])
        for database in (without, laden):
            fill(database, jobs, "noop")
            settle_down(database)
        for _ in range(bench.sizes.repeat_long):
            floors.append(drained(bench, without, jobs))
            figures.append(drained(bench, laden, jobs))
    return Row(
        measure=measure,
        name=name,
        unit="jobs/s",
        figures=figures,
        floors=floors,
        floor_name="drain without them",
        aim=">= 0.9",
    )
