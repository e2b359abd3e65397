"""The statements of a fleet of idle workers: while nothing happens, and when one job is enqueued."""

from __future__ import annotations

import time
from contextlib import ExitStack

import psycopg

from bench.harness import Bench, Connection, fleet, value, wait_until
from bench.rows import Line, Row

# The statements of the bench itself do not count.
CALLS = """
    select query, calls from pg_stat_statements
     where toplevel and query !~ 'pg_stat_statements'
       and dbid = (select oid from pg_database where datname = current_database())
"""


def idle(bench: Bench) -> list[Line]:
    """Measure the statements a second of a fleet of idle processes, compared with a single one."""
    seconds, count = bench.sizes.idle_seconds, bench.sizes.fleet
    with ExitStack() as stack:
        conns = [_idle_fleet(bench, stack, size) for size in (count, 1)]
        time.sleep(bench.sizes.quiet)  # until the statements that follow a start are over
        for conn in conns:
            _forget(conn)
        time.sleep(seconds)
        calls, floor_calls = (_calls(conn) for conn in conns)
    return [
        Row(
            measure="idle",
            name=f"{count} idle processes, in all",
            unit="statements/s",
            floor_name="one idle process",
            figures=[sum(calls.values()) / seconds],
            floors=[sum(floor_calls.values()) / seconds],
            aim="<= 2",
            aim_on="figure",
            notes={"seconds": seconds, "calls": calls, "floor_calls": floor_calls},
        )
    ]


def herd(bench: Bench) -> list[Line]:
    """Measure the claims that one job causes in a fleet of idle processes, compared with a single one."""
    count, quiet = bench.sizes.fleet, bench.sizes.quiet
    with ExitStack() as stack:
        conns = [_idle_fleet(bench, stack, size) for size in (count, 1)]
        _one_job_each(conns, quiet)  # the first job of each worker is not measured
        figures: list[float] = []
        floors: list[float] = []
        for _ in range(bench.sizes.herd_jobs):
            for conn in conns:
                _forget(conn)
            _one_job_each(conns, quiet)
            for conn, claims in zip(conns, (figures, floors), strict=True):
                claims.append(sum(calls for query, calls in _calls(conn).items() if "claim_jobs" in query))
    return [
        Row(
            measure="herd",
            name=f"one job, {count} idle processes: mean claims in {quiet:g} s",
            unit="claims",
            floor_name="one idle process",
            figures=[sum(figures) / len(figures)],
            floors=[sum(floors) / len(floors)],
            aim="<= 3",
            aim_on="figure",
            notes={"claims": figures, "floor_claims": floors},
        )
    ]


def _idle_fleet(bench: Bench, stack: ExitStack, count: int) -> Connection:
    dsn = stack.enter_context(bench.database())
    conn = stack.enter_context(psycopg.connect(dsn, autocommit=True))
    conn.execute("create extension pg_stat_statements")
    stack.enter_context(fleet(dsn, count))
    return conn


def _one_job_each(conns: list[Connection], quiet: float) -> None:
    """Run one job in each of the databases. Then wait for the claims that it causes."""
    jobs = [(conn, value(conn, """select pgjobq.enqueue_job('noop', '{"n": 1}')""")) for conn in conns]
    time.sleep(quiet)
    done = "select status = 'completed' from pgjobq.jobs where id = %s"
    for conn, job_id in jobs:
        wait_until(lambda conn=conn, job_id=job_id: value(conn, done, [job_id]), "a job was not run")  # type: ignore[misc]


def _forget(conn: Connection) -> None:
    conn.execute("select pg_stat_statements_reset(0, oid) from pg_database where datname = current_database()")


def _calls(conn: Connection) -> dict[str, int]:
    found: dict[str, int] = {}
    for query, calls in conn.execute(CALLS):
        found[query] = found.get(query, 0) + calls
    return found
