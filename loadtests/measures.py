"""What bench.py measures, each beside its floor."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from loadtests.rig import PATIENCE, Bench, Row, asleep, drained, fill
from pgjobq import JobQueue
from pgjobq.devserver import find_bindir

BATCH = 500  # jobs in a claim of the raw loop


def drain(bench: Bench) -> list[Row]:
    """Jobs a second from the first claim to the last completion: worker processes, beside the raw loop."""
    jobs = bench.size(60_000)
    floor: list[float] = []
    figures: dict[str, list[float]] = {"sync, 1 worker": [], "async, 1 worker": [], "sync, 2 workers": []}
    for _ in range(bench.repeat):
        with bench.database() as dsn:
            fill(dsn, jobs, "noop")
            floor.append(_raw_loop(dsn, jobs))
        for name, figure in figures.items():
            with bench.database() as dsn:
                fill(dsn, jobs, "noop_async" if "async" in name else "noop")
                with bench.worker(dsn):
                    if "2" in name:
                        with bench.worker(dsn):
                            figure.append(jobs / drained(dsn, jobs))
                    else:
                        figure.append(jobs / drained(dsn, jobs))
    return [Row(f"drain, {name} / raw loop", "jobs/s", figure, floor) for name, figure in figures.items()]


def _raw_loop(dsn: str, jobs: int) -> float:
    with psycopg.connect(dsn, autocommit=True) as conn:
        started, done = time.perf_counter(), 0
        while rows := conn.execute(
            "select claim_id, id, attempts from pgjobq.claim_jobs(1, '{default}', %s)", [BATCH]
        ).fetchall():
            done += len(rows)
            arguments = [[row[1] for row in rows], [row[2] for row in rows], [rows[0][0]]]
            conn.execute("select pgjobq.complete_jobs(1, %s, %s, %s)", arguments)
        assert done == jobs
        return jobs / (time.perf_counter() - started)


def latency(bench: Bench) -> list[Row]:
    """Milliseconds from just before a lone enqueue to the handler's start, beside a bare LISTEN + claim."""
    jobs = bench.size(300, 20)
    ours: list[list[float]] = []
    bare: list[list[float]] = []
    for _ in range(bench.repeat):
        with bench.database() as dsn, bench.worker(dsn):
            asleep(dsn)
            ours.append(_starts(dsn, jobs))
        with bench.database() as dsn:
            bare.append(_bare_starts(dsn, jobs))

    def at(share: float, runs: list[list[float]]) -> list[float]:
        return [sorted(run)[min(len(run) - 1, int(share * len(run)))] for run in runs]

    return [
        Row(f"start latency p{int(100 * share)} / bare LISTEN + claim", "ms", at(share, ours), at(share, bare))
        for share in (0.5, 0.99)
    ]


def _starts(dsn: str, jobs: int) -> list[float]:
    with tempfile.TemporaryDirectory() as folder, JobQueue(dsn) as queue:
        path = Path(folder) / "starts"
        for _ in range(jobs):
            queue.enqueue("stamp", {"path": str(path), "sent": time.time()})
            time.sleep(0.01)
        deadline = time.monotonic() + PATIENCE
        while not path.exists() or len(path.read_text().splitlines()) < jobs:
            assert time.monotonic() < deadline, "a job did not start"
            time.sleep(0.05)
        return [float(line) for line in path.read_text().splitlines()]


def _bare_starts(dsn: str, jobs: int) -> list[float]:
    waits: list[float] = []

    def listen() -> None:
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("listen bare")
            ready.set()
            while len(waits) < jobs and list(conn.notifies(timeout=PATIENCE, stop_after=1)):
                rows = conn.execute("select data from pgjobq.claim_jobs(1, '{default}', 1)").fetchall()
                waits.extend((time.time() - row[0]["sent"]) * 1000 for row in rows)

    ready = threading.Event()
    listener = threading.Thread(target=listen)
    listener.start()
    ready.wait(PATIENCE)
    with psycopg.connect(dsn, autocommit=True) as conn:
        for _ in range(jobs):
            data = f'{{"sent": {time.time()}}}'
            conn.execute("select pgjobq.enqueue_job('t', %s::jsonb), pg_notify('bare', '')", [data])
            time.sleep(0.01)
    listener.join(PATIENCE)
    return waits


def enqueue(bench: Bench) -> list[Row]:
    """Single enqueues a second by 1, 8 and 64 clients of pgbench, nobody asleep, beside an insert without trigger."""
    rows = []
    calls = {
        "figure": "select pgjobq.enqueue_job('t', '{\"n\": 1}');",
        "floor": "insert into bare (id, type, data) values (pgjobq.new_job_id(), 't', '{\"n\": 1}');",
    }
    for clients in (1, 8, 64):
        found: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(bench.repeat):
            with bench.database() as dsn:
                with psycopg.connect(dsn, autocommit=True) as conn:
                    conn.execute("create table bare (like pgjobq.jobs including all)")
                for name, call in calls.items():
                    found[name].append(_pgbench(dsn, call, clients, bench.seconds(10)))
        rows.append(
            Row(f"enqueue, {clients} clients / insert without trigger", "jobs/s", found["figure"], found["floor"])
        )
    return rows


def _pgbench(dsn: str, call: str, clients: int, seconds: float) -> float:
    parts = conninfo_to_dict(dsn)
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(call)
        script.flush()
        command = [
            str(find_bindir() / "pgbench"),
            "-n",
            "-M",
            "prepared",
            "-f",
            script.name,
            "-T",
            str(int(seconds)),
            "-c",
            str(clients),
            "-j",
            "2",
        ]
        where = ["-h", str(parts["host"]), "-p", str(parts["port"]), "-U", str(parts["user"]), str(parts["dbname"])]
        env = {**os.environ, "PGPASSWORD": str(parts["password"])}
        done = subprocess.run([*command, *where], env=env, capture_output=True, text=True, check=True, timeout=PATIENCE)
    return float(done.stdout.split("tps = ")[1].split()[0])


def bulk(bench: Bench) -> list[Row]:
    """Jobs a second by enqueue_jobs of 1000 and by COPY, beside the same into a table without trigger."""
    jobs = bench.size(50_000, 1000)
    found: dict[str, list[float]] = {"insert": [], "insert floor": [], "copy": [], "copy floor": []}
    for _ in range(bench.repeat):
        with bench.database() as dsn, psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("create table bare (like pgjobq.jobs including all)")
            array = "arrayfill('t'::text, array[1000])"
            for name, statement in {
                "insert": f"select pgjobq.enqueue_jobs({array})",
                "insert floor": f"insert into bare (type) select unnest({array}) returning id",
            }.items():
                started = time.perf_counter()
                for _ in range(jobs // 1000):
                    conn.execute(statement)
                found[name].append(jobs // 1000 * 1000 / (time.perf_counter() - started))
            lines = "t\t{}\n" * jobs
            for name, table in {"copy": "pgjobq.jobs", "copy floor": "bare"}.items():
                started = time.perf_counter()
                with conn.cursor().copy(f"copy {table} (type, data) from stdin") as copy:
                    copy.write(lines)
                found[name].append(jobs / (time.perf_counter() - started))
    return [
        Row("enqueue_jobs by 1000 / without trigger", "jobs/s", found["insert"], found["insert floor"]),
        Row("COPY / without trigger", "jobs/s", found["copy"], found["copy floor"]),
    ]


def idle(bench: Bench) -> list[Row]:
    """Statements a second of one idle worker, as pg_stat_statements counts them."""
    with bench.database() as dsn, bench.worker(dsn), psycopg.connect(dsn, autocommit=True) as conn:
        asleep(dsn)
        conn.execute("create extension pg_stat_statements")
        conn.execute("select pg_stat_statements_reset()")
        seconds = bench.seconds(60, 5)
        time.sleep(seconds)
        calls = """select coalesce(sum(calls), 0) from pg_stat_statements
                    where toplevel and query !~ 'pg_stat_statements'
                      and dbid = (select oid from pg_database where datname = current_database())"""
        row = conn.execute(calls).fetchone()
        assert row is not None
        return [Row("idle worker", "statements/s", [float(row[0]) / seconds])]


def memory(bench: Bench) -> list[Row]:
    """A worker's resident memory before and after many jobs."""
    jobs = bench.size(500_000, 1000)
    with bench.database() as dsn, bench.worker(dsn) as worker:
        asleep(dsn)
        before = _rss(worker.pid)
        fill(dsn, jobs, "noop")
        drained(dsn, jobs)
        return [Row(f"worker's memory after {jobs:,} jobs / before", "MB", [_rss(worker.pid)], [before])]


def _rss(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS")


def kill(bench: Bench) -> list[Row]:
    """Seconds from the SIGKILL of a worker in the middle of a job until another starts it."""
    waits = []
    for _ in range(bench.repeat):
        with (
            bench.database() as dsn,
            bench.worker(dsn),
            bench.worker(dsn),
            tempfile.TemporaryDirectory() as folder,
            JobQueue(dsn) as queue,
        ):
            with psycopg.connect(dsn, autocommit=True) as conn:
                while conn.execute("select count(*) from pgjobq.doorbell").fetchone() != (2,):
                    time.sleep(0.05)
            path = Path(folder) / "starts"
            queue.enqueue("hang", {"path": str(path)})
            while not path.exists() or not path.read_text().endswith("\n"):
                time.sleep(0.005)
            time.sleep(0.5)
            os.kill(int(path.read_text().split()[0]), signal.SIGKILL)
            killed = time.monotonic()
            while len(path.read_text().splitlines()) < 2:
                assert time.monotonic() - killed < PATIENCE, "the job was not rescued"
                time.sleep(0.01)
            waits.append(time.monotonic() - killed)
            for line in path.read_text().splitlines():
                _end(int(line))
    return [Row("job of a killed worker starts elsewhere after", "s", waits)]


def _end(pid: int) -> None:
    """End a worker of this bench that hangs in its job; one that was killed before is gone."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
