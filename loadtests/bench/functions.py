"""The cost of one job in each SQL function: time, buffers and WAL, according to pg_stat_statements.

The floor of an enqueue is an insert without a trigger. The floor of a claim and of a completion is the single table.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from bench import single_table
from bench.enqueue import BARE, DATA
from bench.harness import Bench, Connection, fill, settle_down
from bench.rows import Line, Row

MANY, BATCHES = 1000, (1, 200)
WARM = 10  # calls that are not measured, because they make plans and read pages
UNITS = {"us": "us/job", "buffers": "buffers/job", "wal": "WAL bytes/job"}
FIGURES = """
    select sum(total_exec_time)::float8 * 1000, sum(shared_blks_hit + shared_blks_read)::float8, sum(wal_bytes)::float8,
           sum(wal_fpi)::integer
      from pg_stat_statements
     where toplevel and query ~ %s and dbid = (select oid from pg_database where datname = current_database())
"""
NESTED = """
    select regexp_replace(query, '\\s+', ' ', 'g') as query, calls, mean_exec_time * 1000 as us,
           (shared_blks_hit + shared_blks_read)::float8 / calls as buffers, wal_bytes::float8 / calls as wal
      from pg_stat_statements
     where not toplevel and calls > 1 and dbid = (select oid from pg_database where datname = current_database())
     order by total_exec_time desc
     limit 12
"""
Call = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost per job. nested: the cost per call of the statements inside the function."""

    us: float
    buffers: float
    wal: float
    full_pages: int
    nested: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A call for a number of jobs, its floor, and the patterns by which both are found in pg_stat_statements."""

    name: str
    jobs: int  # in a call
    call: Call
    pattern: str
    floor: Call
    floor_pattern: str
    floor_name: str


def functions(bench: Bench) -> list[Line]:
    """Measure the time, buffers and WAL of one job in enqueue_job, enqueue_jobs, claim_jobs and complete_jobs."""
    return [*_enqueue_rows(bench), *_claim_rows(bench)]


def _enqueue_rows(bench: Bench) -> list[Row]:
    rows: list[Row] = []
    with _counting(bench) as (_, conn):
        conn.execute(BARE)
        for case in _enqueues(conn):
            rows += _rows(case, [_pair(conn, case, bench.sizes.function_calls) for _ in range(bench.sizes.repeat)])
    return rows


def _claim_rows(bench: Bench) -> list[Row]:
    calls = bench.sizes.function_calls
    rows: list[Row] = []
    with _counting(bench) as (dsn, conn):
        needed = bench.sizes.repeat * sum(batch * (_calls(calls, batch) + WARM) for batch in BATCHES)
        fill(dsn, needed, "noop")
        single_table.create(conn, needed)
        settle_down(dsn)
        for batch in BATCHES:
            claims, completions = _claim_cases(conn, batch)
            pairs: list[list[tuple[Cost, Cost]]] = [[], []]
            for _ in range(bench.sizes.repeat):
                for case, found in zip((claims, completions), pairs, strict=True):
                    found.append(_pair(conn, case, calls))
            rows += _rows(claims, pairs[0]) + _rows(completions, pairs[1])
    return rows


@contextmanager
def _counting(bench: Bench) -> Iterator[tuple[str, Connection]]:
    with bench.database() as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("create extension pg_stat_statements")
        conn.execute("set pg_stat_statements.track = 'all'")
        yield dsn, conn


def _calls(calls: int, jobs: int) -> int:
    return calls if jobs == 1 else max(5, calls // 20)


def _pair(conn: Connection, case: Case, calls: int) -> tuple[Cost, Cost]:
    calls = _calls(calls, case.jobs)
    return (
        _cost(conn, case.call, case.pattern, calls, case.jobs),
        _cost(conn, case.floor, case.floor_pattern, calls, case.jobs),
    )


def _cost(conn: Connection, call: Call, pattern: str, calls: int, jobs: int) -> Cost:
    for _ in range(WARM):
        call()
    conn.execute("select pg_stat_statements_reset()")
    for _ in range(calls):
        call()
    row = conn.execute(FIGURES, [pattern]).fetchone()
    if row is None or row[0] is None:
        raise RuntimeError(f"pg_stat_statements has no statement like {pattern}")
    names = ("query", "calls", "us", "buffers", "wal")
    nested = [dict(zip(names, found, strict=True)) for found in conn.execute(NESTED)]
    us, buffers, wal = (value / calls / jobs for value in row[:3])
    return Cost(us=us, buffers=buffers, wal=wal, full_pages=row[3], nested=nested)


def _rows(case: Case, pairs: list[tuple[Cost, Cost]]) -> list[Row]:
    last = pairs[-1][0]
    return [
        Row(
            measure="functions",
            name=case.name,
            unit=unit,
            figures=[getattr(cost, key) for cost, _ in pairs],
            floors=[getattr(floor, key) for _, floor in pairs],
            floor_name=case.floor_name,
            notes={"full_page_images": last.full_pages, **({"nested": last.nested} if key == "us" else {})},
        )
        for key, unit in UNITS.items()
    ]


def _enqueues(conn: Connection) -> list[Case]:
    data = json.dumps(DATA)
    many = [["t"] * MANY, [data] * MANY]
    insert_many = "insert into bare (type, data) select * from unnest(%s::text[], %s::jsonb[])"

    def run(statement: str, arguments: Sequence[Any]) -> Call:
        return lambda: conn.execute(statement, arguments, prepare=True)

    return [
        Case(
            name="enqueue_job",
            jobs=1,
            call=run("select pgjobq.enqueue_job('t', %s)", [data]),
            pattern=r"enqueue_job\(",
            floor=run("insert into bare (type, data) values ('t', %s)", [data]),
            floor_pattern="insert into bare",
            floor_name="insert without trigger",
        ),
        *(
            Case(
                name=f"enqueue_job with a unique key, {what}",
                jobs=1,
                call=run(f"select pgjobq.enqueue_job('t', %s, unique_key => {key})", [data]),
                pattern="unique_key =>",
                floor=run("select pgjobq.enqueue_job('t', %s)", [data]),
                floor_pattern=r"enqueue_job\(",
                floor_name="enqueue_job without a key",
            )
            for what, key in (("which is new", "gen_random_uuid()::text"), ("which another job has", "'k'"))
        ),
        Case(
            name=f"enqueue_jobs, {MANY} at a time",
            jobs=MANY,
            call=run("select pgjobq.enqueue_jobs(%s::text[], %s::jsonb[])", many),
            pattern=r"enqueue_jobs\(",
            floor=run(insert_many, many),
            floor_pattern="insert into bare",
            floor_name="insert from unnest, no trigger",
        ),
    ]


def _claim_cases(conn: Connection, batch: int) -> tuple[Case, Case]:
    """Return the cases of a claim and of a completion. Each completion settles the jobs of one claim."""
    held: list[Sequence[Any]] = []
    single_held: list[list[int]] = []

    def claim() -> None:
        query = "select claim_id, id from pgjobq.claim_jobs(1, '{default}', %s)"
        rows = conn.execute(query, [batch], prepare=True).fetchall()
        held.append([[row[1] for row in rows], [row[0] for row in rows], list({row[0] for row in rows})])

    def complete() -> None:
        conn.execute("select pgjobq.complete_jobs(1, %s, %s, %s)", held.pop(0), prepare=True)

    return (
        Case(
            jobs=batch,
            floor_name="the single table's",
            name=f"claim_jobs, {batch} at a time",
            call=claim,
            pattern=r"claim_jobs\(",
            floor=lambda: single_held.append(single_table.claim(conn, batch)),
            floor_pattern="update single_table",
        ),
        Case(
            jobs=batch,
            floor_name="the single table's",
            name=f"complete_jobs, {batch} at a time",
            call=complete,
            pattern=r"complete_jobs\(",
            floor=lambda: single_table.complete(conn, single_held.pop(0)),
            floor_pattern="update single_table",
        ),
    )
