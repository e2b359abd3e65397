"""How fast jobs go in: one by one from many clients, and in bulk; nobody asleep, nobody at work.

The floor is the same insert into a table with the columns, defaults, checks and indexes of `jobs`, at PostgreSQL's own
fillfactor, without a trigger.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
from bench_ground import PATIENCE, Bench, Connection, Row
from psycopg.conninfo import conninfo_to_dict

from pgjobq import JobQueue
from pgjobq.devserver import find_bindir

CHUNK = 1000  # jobs in a call of enqueue_jobs
BARE = "create table bare (like pgjobq.jobs including all)"
DATA = {"to": "somebody@example.org", "n": 1}


def enqueue(bench: Bench) -> list[Row]:
    """Single enqueues a second, a transaction each, by pgbench with prepared statements."""
    data = json.dumps(DATA)
    call = f"select enqueue_job('t', '{data}');"
    insert = f"insert into bare (type, data) values ('t', '{data}') returning id;"
    rows = []
    for clients in bench.sizes.enqueue_clients:
        figures, floors = [], []
        for _ in range(bench.sizes.repeat):
            with bench.database() as dsn:
                _make_bare(dsn)
                floors.append(_pgbench(dsn, insert, clients, bench.sizes.enqueue_seconds))
                figures.append(_pgbench(dsn, call, clients, bench.sizes.enqueue_seconds))
        rows.append(
            Row(
                measure="enqueue",
                name=f"select enqueue_job, {clients} client{'s' * (clients > 1)}",
                unit="jobs/s",
                floor_name="insert without trigger",
                figures=figures,
                floors=floors,
                aim=">= 0.8",
            )
        )
    return rows


def _make_bare(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(BARE)


def _pgbench(dsn: str, statement: str, clients: int, seconds: int) -> float:
    """Transactions a second, connecting not counted."""
    where = conninfo_to_dict(dsn)
    env = {**os.environ, "PGPASSWORD": str(where["password"])}
    with tempfile.TemporaryDirectory(prefix="pgjobq-bench-") as folder:
        script = Path(folder) / "script.sql"
        script.write_text(statement)
        command = [str(find_bindir() / "pgbench"), "--no-vacuum", "--protocol", "prepared", "--file", str(script)]
        command += ["--time", str(seconds), "--client", str(clients), "--jobs", str(min(clients, os.cpu_count() or 1))]
        for option, key in (("--host", "host"), ("--port", "port"), ("--username", "user")):
            command += [option, str(where[key])]
        command.append(str(where["dbname"]))
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=PATIENCE)
    if done.returncode != 0 or "number of failed transactions: 0 " not in done.stdout:
        raise RuntimeError(f"pgbench failed: {done.stdout}{done.stderr}")
    return float(done.stdout.split("tps = ")[1].split()[0])


def bulk(bench: Bench) -> list[Row]:
    """Jobs a second by enqueue_jobs, by JobQueue.enqueue_many and by COPY, on one connection."""
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
    """Python's whole way: each job made and checked, each with data of its own."""
    with JobQueue(dsn) as queue:
        for start in range(0, jobs, CHUNK):
            queue.enqueue_many([queue.new_job("t", {**DATA, "n": n}) for n in range(start, start + CHUNK)])


def _copy(conn: Connection, jobs: int, table: str) -> None:
    lines = f"t\t{json.dumps(DATA)}\n" * CHUNK
    with conn.cursor().copy(f"copy {table} (type, data) from stdin") as copy:
        for _ in range(jobs // CHUNK):
            copy.write(lines)
