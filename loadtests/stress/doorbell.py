"""A stress test of the doorbell: no job may wait longer than a limit, with the fallback poll turned off.

    make stress SECONDS=300
    python loadtests/stress/doorbell.py --seconds 300 --seed 7

In each round, several clients run transactions of random length and isolation level, with savepoints and rollbacks, and
workers are killed from time to time. Then the clients stop until every job of the round has started. Therefore no later
enqueue can repair a lost wake-up: its job waits until the limit has passed, and the test fails.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from pgjobq.devserver import DevServer, die_with_parent
from pgjobq.postgres.schema import migrate

BOUND = 3.0  # seconds from the last commit of a round to the last start; the doorbell needs about 1
RESCUE_BOUND = 15.0  # seconds until the jobs of killed workers have run, too
WORKERS, CLIENTS = 4, 6
ISOLATION = ("read committed", "read committed", "repeatable read", "serializable")

Connection = psycopg.Connection[Any]


@dataclass
class Tally:
    """Counts what has happened in a run."""

    rounds: int = 0
    jobs: int = 0
    kills: int = 0
    waits: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run rounds for this number of seconds. Return 0 if no job waited too long."""
    parser = argparse.ArgumentParser(description="Test the doorbell with random transactions and killed workers.")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=None, help="seed of the random choices (default: a new one)")
    options = parser.parse_args(arguments)
    seed = random.randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}")
    with DevServer() as server, ExitStack() as stack:
        migrate(server.dsn)
        tally = Tally()
        fleet = [_worker(server.dsn) for _ in range(WORKERS)]
        stack.callback(lambda: _end(fleet))
        conn = stack.enter_context(psycopg.connect(server.dsn, autocommit=True, options="-c search_path=pgjobq"))
        _await_fleet(conn, WORKERS)
        clients = [stack.enter_context(psycopg.connect(server.dsn)) for _ in range(CLIENTS)]
        rng, until = random.Random(seed), time.monotonic() + options.seconds
        while time.monotonic() < until and not tally.failures:
            _round(rng, conn, clients, fleet, server.dsn, tally)
    waits = sorted(tally.waits) or [0.0]
    middle, high = waits[len(waits) // 2], waits[int(len(waits) * 0.99)]
    print(f"{tally.rounds} rounds, {tally.jobs} jobs, {tally.kills} kills; from the last commit of a round to its last")
    print(f"start: p50 {middle * 1000:.0f} ms, p99 {high * 1000:.0f} ms, max {waits[-1] * 1000:.0f} ms")
    for failure in tally.failures:
        print(failure, file=sys.stderr)
    return 1 if tally.failures or not tally.jobs else 0


def _round(
    rng: random.Random,
    conn: Connection,
    clients: Sequence[Connection],
    fleet: list[subprocess.Popen[bytes]],
    dsn: str,
    tally: Tally,
) -> None:
    committed: list[str] = []
    plans = [rng.randrange(10**9) for _ in range(rng.randint(1, len(clients)))]
    threads = [
        threading.Thread(target=_transact, args=(random.Random(plan), client, committed))
        for plan, client in zip(plans, clients, strict=False)
    ]
    for thread in threads:
        thread.start()
        time.sleep(rng.choice((0, 0, 0.001, 0.02)))
    killed = rng.random() < 0.05
    if killed:
        time.sleep(rng.uniform(0, 0.1))
        victim = rng.randrange(len(fleet))
        fleet[victim].kill()
        fleet[victim].wait()
        tally.kills += 1
    for thread in threads:
        thread.join()
    ended = time.monotonic()
    tally.rounds += 1
    tally.jobs += len(committed)
    started = "select count(*) from jobs where id = any(%s) and started_at is null"
    if _await(conn, started, committed, BOUND):
        tally.waits.append(time.monotonic() - ended)
    else:
        tally.failures.append(f"round {tally.rounds}: a job was not started within {BOUND} s of its commit")
    done = "select count(*) from jobs where id = any(%s) and status <> 'completed'"
    if not _await(conn, done, committed, RESCUE_BOUND):
        tally.failures.append(f"round {tally.rounds}: a job was not completed within {RESCUE_BOUND} s")
    if tally.failures:
        tally.failures += _seen(conn, committed)
    if killed:
        fleet[victim] = _worker(dsn)
        if rng.random() < 0.5:
            _await_fleet(conn, WORKERS)
    # Pauses around the moments at which a worker stops polling, and at which it has fallen asleep.
    time.sleep(rng.choice((0, 0.001, 0.01, 0.045, 0.05, 0.055, 0.06, 0.1, 0.3)))


def _transact(rng: random.Random, client: Connection, committed: list[str]) -> None:
    for _ in range(rng.choice((1, 1, 2, 20))):
        client.execute(f"set transaction isolation level {rng.choice(ISOLATION)}")
        if rng.random() < 0.5:
            client.execute("select count(*) from pg_class where oid < 100")  # takes a snapshot now
            time.sleep(rng.choice((0, 0.002, 0.05)))
        ids: list[str] = []
        for _ in range(rng.choice((1, 1, 3))):
            client.execute("savepoint s")
            row = client.execute("select pgjobq.enqueue_job('stress')").fetchone()
            if rng.random() < 0.2:
                client.execute("rollback to savepoint s")
            elif row is not None:
                ids.append(row[0])
            time.sleep(rng.choice((0, 0, 0.001, 0.01, 0.06)))
        if rng.random() < 0.15:
            client.rollback()
        else:
            client.commit()
            committed += ids


def _await(conn: Connection, left: str, ids: list[str], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while conn.execute(left, [ids]).fetchone() != (0,):
        if time.monotonic() > until:
            return False
        time.sleep(0.003)
    return True


def _seen(conn: Connection, ids: list[str]) -> list[str]:
    """Describe the jobs that are not completed, and the workers."""
    seen: list[str] = []
    for query, arguments in (
        ("select * from jobs where id = any(%s) and status <> 'completed'", [ids]),
        ("select ready.* from ready where job_id = any(%s)", [ids]),
        ("select * from worker_status", None),
        ("select * from claims", None),
        ("select now(), array(select live_workers())", None),
    ):
        seen += [str(row) for row in conn.execute(query, arguments).fetchall()]
    return seen


def _await_fleet(conn: Connection, count: int) -> None:
    until = time.monotonic() + 60
    while (row := conn.execute("select count(*) from worker_status where alive").fetchone()) is None or row[0] < count:
        if time.monotonic() > until:
            raise RuntimeError("a worker did not start")
        time.sleep(0.05)


def _worker(dsn: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(Path(__file__).with_name("worker.py")), dsn]
    return subprocess.Popen(command, preexec_fn=die_with_parent)  # noqa: PLW1509  # one prctl, which takes no lock


def _end(fleet: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in fleet:
        process.terminate()
    for process in fleet:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
