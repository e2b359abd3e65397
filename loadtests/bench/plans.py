"""Tests whether the time of a claim depends on the planner's statistics or on the number of lanes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import psycopg

from bench.drain import claim_and_complete
from bench.harness import Bench, Connection, fill, settle_down
from bench.rows import Line, Row

BATCHES = (1, 10, 100, 500, 2000)
TABLES = """
    select oid::regclass::text from pg_class where relnamespace = 'pgjobq'::regnamespace and relkind = 'r'
"""
QUEUES, PRIORITIES = 50, 10
ONE_LANE, MANY_LANES = "one lane", f"{QUEUES} queues x {PRIORITIES} priorities"
ANY_PRIORITY = "priorities drawn from all of int4"
CLAIMS = {1: 100, 200: 2}  # jobs per claim, and the divisor of the jobs to claim so, because each claim is a commit
LANES = {
    ONE_LANE: "array_fill(5, array[n]), array_fill('q1'::text, array[n])",
    MANY_LANES: f"""array(select 1 + mod(i, {PRIORITIES}) from generate_series(1, n) as i),
                    array(select 'q' || 1 + mod(i / {PRIORITIES}, {QUEUES}) from generate_series(1, n) as i)""",
    ANY_PRIORITY: """array(select (random() * 4294967295 - 2147483648)::bigint::integer from generate_series(1, n)),
                     array_fill('q1'::text, array[n])""",
}


def plans(bench: Bench) -> list[Line]:
    """Measure claim and settle in the worst of four states of the statistics, compared with the best, by batch size.

    Autovacuum is off, so that the states do not change. Each run has its own connection and therefore its own plans.
    """
    states: dict[str, Callable[[str, int], None]] = {
        "just created, never analysed": lambda dsn, jobs: fill(dsn, jobs, "noop"),
        "analysed when empty, then filled": _analysed_empty,
        "analysed when all were pending": _analysed_full,
        "analysed when all were finished, then filled": _analysed_done,
    }
    counts = {batch: batch * max(bench.sizes.plan_batches, bench.sizes.plan_jobs // batch) for batch in BATCHES}
    counts[1] = min(counts[1], 50 * bench.sizes.plan_batches)  # each claim is a commit
    jobs = sum(counts.values(), len(counts)) * bench.sizes.repeat_long
    found: dict[int, dict[str, list[float]]] = {batch: {state: [] for state in states} for batch in BATCHES}
    with ExitStack() as stack:
        databases = {state: stack.enter_context(bench.database()) for state in states}
        for state, prepare in states.items():
            _forbid_autovacuum(databases[state])
            prepare(databases[state], jobs)
        for _ in range(bench.sizes.repeat_long):
            for batch in BATCHES:
                for state, spent in _in_turn(databases, batch, counts[batch] // batch).items():
                    found[batch][state].append(spent)
    return [_worst_and_best(batch, found[batch]) for batch in BATCHES]


def _worst_and_best(batch: int, found: dict[str, list[float]]) -> Row:
    median = {state: statistics.median(times) for state, times in found.items()}
    worst, best = max(median, key=median.__getitem__), min(median, key=median.__getitem__)
    return Row(
        measure="plans",
        name=f"claim and settle {batch:,}: {worst}",
        unit="us/job",
        figures=found[worst],
        floors=found[best],
        floor_name=best,
        aim="<= 1.5",
        notes=dict(found),
    )


def _forbid_autovacuum(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        for (table,) in conn.execute(TABLES).fetchall():
            conn.execute(f"alter table {table} set (autovacuum_enabled = off)")


def _analyse(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("analyze")


def _analysed_empty(dsn: str, jobs: int) -> None:
    _analyse(dsn)
    fill(dsn, jobs, "noop")


def _analysed_full(dsn: str, jobs: int) -> None:
    fill(dsn, jobs, "noop")
    _analyse(dsn)


def _analysed_done(dsn: str, jobs: int) -> None:
    fill(dsn, jobs, "noop")
    with psycopg.connect(dsn, autocommit=True) as conn:
        while claim_and_complete(conn, 500):
            pass
        conn.execute("vacuum analyze")
    fill(dsn, jobs, "noop")


def _in_turn(databases: dict[str, str], batch: int, batches: int) -> dict[str, float]:
    """Return the microseconds per job of each state. They take turns, because the machine's speed drifts."""
    spent = dict.fromkeys(databases, 0.0)
    with ExitStack() as stack:
        conns = {state: stack.enter_context(psycopg.connect(dsn, autocommit=True)) for state, dsn in databases.items()}
        for conn in conns.values():
            claim_and_complete(conn, 1)  # makes the plans
        for _ in range(batches):
            for state, conn in conns.items():
                started = time.perf_counter()
                got = claim_and_complete(conn, batch)
                spent[state] += time.perf_counter() - started
                if got != batch:
                    raise RuntimeError(f"a claim of {batch} jobs gave {got}")
    return {state: seconds / (batch * batches) * 1e6 for state, seconds in spent.items()}


def lanes(bench: Bench) -> list[Line]:
    """Measure claim_jobs on many queues and priorities, compared with the same jobs in one lane."""
    jobs = bench.sizes.lane_jobs
    found: dict[tuple[str, int], list[float]] = {(lane, claim): [] for lane in LANES for claim in CLAIMS}
    with ExitStack() as stack:
        filled = {lane: stack.enter_context(bench.database()) for lane in LANES}
        for lane, dsn in filled.items():
            _fill_lanes(dsn, jobs, LANES[lane])
            settle_down(dsn)
        for _ in range(bench.sizes.repeat_long):
            with ExitStack() as copies:
                copied = {lane: copies.enter_context(bench.database(like=dsn)) for lane, dsn in filled.items()}
                for claim, share in CLAIMS.items():
                    for lane, spent in _claims(copied, claim, jobs // share // claim or 1).items():
                        found[lane, claim].append(spent)
    return [
        Row(
            measure="lanes",
            name=f"claim {claim:,} of {lane}",
            unit="us/job",
            figures=found[lane, claim],
            floors=found[ONE_LANE, claim],
            floor_name=f"claim {claim:,} of {ONE_LANE}",
            aim="<= 2",
        )
        for lane in (MANY_LANES, ANY_PRIORITY)
        for claim in CLAIMS
    ]


def _fill_lanes(dsn: str, jobs: int, lanes: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        for start in range(0, jobs, 5000):
            conn.execute(
                f"""with lane (priorities, queues) as (select {lanes} from (values (%s::integer)) as given (n))
                    select count(*)
                      from lane
                     cross join lateral pgjobq.enqueue_jobs(
                       array_fill('noop'::text, array[cardinality(lane.queues)]),
                       priorities => lane.priorities, queues => lane.queues)""",
                [min(5000, jobs - start)],
            )


def _claims(databases: dict[str, str], batch: int, claims: int) -> dict[str, float]:
    """Return the microseconds per job of the claims. The layouts take turns; jobs are completed between two claims."""
    claim = "select claim_id, id from pgjobq.claim_jobs(1, null, %s)"
    spent = dict.fromkeys(databases, 0.0)
    with ExitStack() as stack:
        conns = {lane: stack.enter_context(psycopg.connect(dsn, autocommit=True)) for lane, dsn in databases.items()}
        for conn in conns.values():
            _complete(conn, conn.execute(claim, [1], prepare=True).fetchall())  # makes the plans
        for _ in range(claims):
            for lane, conn in conns.items():
                started = time.perf_counter()
                rows = conn.execute(claim, [batch], prepare=True).fetchall()
                spent[lane] += time.perf_counter() - started
                if len(rows) != batch:
                    raise RuntimeError(f"a claim of {batch} jobs gave {len(rows)}")
                _complete(conn, rows)
    return {lane: seconds / (batch * claims) * 1e6 for lane, seconds in spent.items()}


def _complete(conn: Connection, rows: Sequence[tuple[int, str]]) -> None:
    arguments = [[row[1] for row in rows], [row[0] for row in rows], list({row[0] for row in rows})]
    conn.execute("select pgjobq.complete_jobs(1, %s, %s, %s)", arguments, prepare=True)
