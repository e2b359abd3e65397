"""The rate of single enqueues by several clients, on this disk and on a slow one, with and without workers.

The floor is the same insert into a table with the columns, defaults, checks and indexes of `jobs`, with PostgreSQL's
default fillfactor, without a trigger and without workers. On the slow disk, the bench also measures some steps between
the floor and an enqueue, and an insert that notifies each time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack

import psycopg

from bench.disk import FLUSH_MS, NoSlowDisk, slow_server
from bench.harness import Bench, fleet
from bench.pgbench import pgbench
from bench.rows import Line, Missing, Row

BARE = """
    create table bare (like pgjobq.jobs including all);
    create table bare_ready (like pgjobq.ready including all);
"""
DATA = {"to": "somebody@example.org", "n": 1}
TEXT = json.dumps(DATA)
CALL = f"select enqueue_job('ignore_all', '{TEXT}');"
ROW = f"insert into bare (type, data) values ('ignore_all', '{TEXT}') returning id, queue, priority"
INSERT = f"insert into bare (type, data) values ('ignore_all', '{TEXT}') returning id;"
NO_TRIGGER = "enqueue_job without its trigger"
STEPS = {
    "explicit insert into a second table, too": f"""
        with job as ({ROW})
        insert into bare_ready (queue, lane, job_id) select queue, - priority::bigint, id from job returning job_id;""",
    NO_TRIGGER: CALL,
    "insert and notify": f"with job as ({ROW}) select pg_notify('jobs', queue) from job;",
}
ALONE, IDLE, BUSY = "without workers", "idle workers of another queue", "workers consuming"


def enqueue(bench: Bench) -> list[Line]:
    """Measure the single enqueues a second of 1, 8 and 64 clients, alone and with a fleet of workers."""
    return _rows(bench, "enqueue", bench.sizes.clients, "")


def slow_disk(bench: Bench) -> list[Line]:
    """Measure single enqueues a second on a disk whose flush takes 2 ms longer, which a preloaded library simulates."""
    try:
        with slow_server() as dsn:
            slow = Bench(dsn, bench.sizes, bench.series)
            return _rows(slow, "slow_disk", bench.sizes.fleet_clients, f", flush {FLUSH_MS} ms longer")
    except NoSlowDisk as error:
        return [Missing(measure="slow_disk", name="select enqueue_job on a slow disk", reason=str(error))]


def _rows(bench: Bench, measure: str, clients: Sequence[int], disk: str) -> list[Line]:
    figures: dict[tuple[int, str], list[float]] = {}
    floors: dict[int, list[float]] = {count: [] for count in clients}
    steps: dict[str, list[float]] = {step: [] for step in STEPS}
    most = max(clients)
    for _ in range(bench.sizes.repeat_long):
        for count in clients:
            floors[count].append(_rate(bench, INSERT, count, ALONE))
            crews = (ALONE, IDLE, BUSY) if count in bench.sizes.fleet_clients else (ALONE,)
            for crew in crews:
                figures.setdefault((count, crew), []).append(_rate(bench, CALL, count, crew))
        for step, statement in STEPS.items() if disk else ():
            steps[step].append(_rate(bench, statement, most, ALONE, trigger=False))
    lines: list[Line] = [
        Row(
            measure=measure,
            name=f"select enqueue_job, {count} client{'s' * (count > 1)}{disk}, {_named(crew, bench.sizes.fleet)}",
            unit="jobs/s",
            figures=rates,
            floors=floors[count],
            floor_name="insert without trigger",
            # Busy workers on the same processors slow down any insert, unless the disk is slower.
            aim="" if crew == BUSY and not disk else ">= 0.8",
        )
        for (count, crew), rates in figures.items()
    ]
    lines += [
        Row(
            measure=measure,
            name=f"select enqueue_job, {most} clients{disk}, {_named(crew, bench.sizes.fleet)}: the trigger alone",
            unit="jobs/s",
            figures=figures[most, crew],
            floors=steps[NO_TRIGGER],
            floor_name=NO_TRIGGER,
            aim=">= 0.8",
        )
        for crew in (ALONE, IDLE, BUSY)
        if disk
    ]
    for step, rates in steps.items():
        name, floor = f"{step}, {most} clients{disk}", "insert without trigger"
        if rates:
            lines.append(
                Row(measure=measure, name=name, unit="jobs/s", figures=rates, floors=floors[most], floor_name=floor)
            )
    return lines


def _named(crew: str, count: int) -> str:
    return crew if crew == ALONE else f"{count} {crew}"


def _rate(bench: Bench, statement: str, clients: int, crew: str, *, trigger: bool = True) -> float:
    with bench.database() as dsn, ExitStack() as stack:
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(BARE)
            if not trigger:
                conn.execute("alter table pgjobq.jobs disable trigger jobs_inserted")
        if crew != ALONE:
            queue = "other" if crew == IDLE else "default"
            stack.enter_context(fleet(dsn, bench.sizes.fleet, queues=queue))
        return pgbench(dsn, statement, clients, bench.sizes.enqueue_seconds)
