"""A frozen worker, or another session that holds the keys, delays a job by about a second and blocks nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from helpers.calls import one
from helpers.until import until
from psycopg.conninfo import make_conninfo

from pgjobq import Registry, Worker, job
from pgjobq.storage.postgres_storage import PostgresStorage

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]
MakeStorage = Callable[..., PostgresStorage]

SOON, LATE = 2.5, 7.0  # seconds; typical are 1.2 and 5, and the machine may be busy

PROCESS = """
import logging, sys, time
from pgjobq import Registry, Worker, job
from pgjobq.storage.postgres_storage import PostgresStorage

output = logging.StreamHandler(sys.stderr)
output.setFormatter(logging.Formatter("%(message)s %(error)s", defaults={"error": ""}))
logging.getLogger().addHandler(output)
registry = Registry()

@job(type="t", registry=registry)
def run():
    pass

@job(type="long", registry=registry)
def long():
    time.sleep(60)

Worker(PostgresStorage(sys.argv[1], poll_interval=float(sys.argv[2])), registry=registry, grace=0.5).run()
"""


class Frozen:
    """A worker that has published a state and does nothing, like a process that was stopped in that state."""

    def __init__(self, conn: Connection) -> None:
        self.conn = conn
        self.id = int(one(conn, "select register_worker('frozen')"))
        self.channel = f"pgjobq:{self.id}"
        for end in ("", "!", "?"):
            conn.execute(f'listen "{self.channel}{end}"')

    def tell(self, state: str, *, busy: bool = False) -> None:
        """Publish this state. A worker needs two calls to be asleep."""
        for _ in range(2):
            query = "select set_worker_state(%s, %s, %s, channel => %s)"
            self.conn.execute(query, [self.id, state, busy, self.channel])

    def heard(self) -> int:
        """Return how many jobs it was notified of since the last call."""
        return sum(notification.channel == self.channel for notification in self.conn.notifies(timeout=0.1))


@pytest.fixture
def frozen(connect: Connect) -> Callable[[], Frozen]:
    """Return a function that creates frozen workers."""
    return lambda: Frozen(connect())


@pytest.fixture
def start(make_storage: MakeStorage, conn: Connection, registry: Registry) -> Iterator[Callable[[int], None]]:
    """Return a function that starts this many workers without a fallback poll and waits until they sleep."""
    started: list[Worker] = []

    @job(type="t", registry=registry)
    def run() -> None:
        pass

    def make(count: int) -> None:
        before = one(conn, "select count(*) from doorbell where is_held('asleep', worker_id)")
        for _ in range(count):
            started.append(Worker(make_storage(poll_interval=3600), registry=registry))
            started[-1].start()
        asleep = "select count(*) from doorbell where is_held('asleep', worker_id)"
        until(lambda: bool(one(conn, asleep) == before + count))
        time.sleep(0.5)  # after the last claim before sleep

    yield make
    for worker in started:
        worker.stop()


@pytest.fixture
def spawn(dsn: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts a worker's process. The processes are killed at the end."""
    made: list[subprocess.Popen[str]] = []

    def make(poll_interval: float = 3600) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PROCESS, dsn, str(poll_interval)]
        made.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        return made[-1]

    yield make
    for process in made:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def delays(conn: Connection, jobs: int, gap: float) -> list[float]:
    """Enqueue jobs one by one, and return the seconds until each started, longest first."""
    for _ in range(jobs):
        conn.execute("select enqueue_job('t')")
        time.sleep(gap)
    until(lambda: one(conn, "select count(*) from jobs where type = 't' and started_at is null") == 0, 40)
    query = "select extract(epoch from started_at - created_at)::float8 from jobs where type = 't' order by 1 desc"
    return [row[0] for row in conn.execute(query).fetchall()]


@pytest.mark.parametrize("alive", [1, 3])
@pytest.mark.parametrize("state", ["asleep", "asleep, busy", "polling", "polling, busy", "awake", "dead"])
@pytest.mark.parametrize("order", ["before", "after"])
def test_one_frozen_worker_delays_no_job_much(
    conn: Connection, frozen: Callable[[], Frozen], start: Callable[[int], None], alive: int, state: str, order: str
) -> None:
    """Another worker starts each job, whatever the frozen worker did, and whether it froze before or after the others slept."""
    if order == "after":
        start(alive)
    worker = frozen()
    worker.tell(state.partition(",")[0] if state != "dead" else "polling", busy="busy" in state)
    if state.startswith("polling"):
        conn.execute("select call_workers(%s, 'watch')", [worker.id])  # as each worker does when it finds its first job
    if order == "before":
        start(alive)
    if state == "dead":
        worker.conn.close()
    assert delays(conn, 6, 0.3)[0] < SOON


@pytest.mark.parametrize("states", [["asleep"] * 3, ["polling", "asleep", "asleep"], ["polling"] * 3])
def test_all_workers_but_one_frozen_delay_a_job_by_some_seconds(
    conn: Connection, frozen: Callable[[], Frozen], start: Callable[[int], None], states: list[str]
) -> None:
    """The last worker polls, although no notification reaches it."""
    start(1)
    for state in states:
        frozen().tell(state)
    assert delays(conn, 4, 0.7)[0] < LATE


@pytest.mark.parametrize("state", ["asleep", "running", "polling"])
def test_stopped_process_delays_no_job_much(
    conn: Connection, spawn: Callable[..., subprocess.Popen[str]], state: str
) -> None:
    """A process that is stopped, or whose host is frozen, keeps its session and its keys."""
    processes = [spawn() for _ in range(3)]
    until(lambda: bool(one(conn, "select count(*) from worker_status where asleep") == 3))
    time.sleep(0.5)
    victim = processes[0].pid
    if state == "running":
        conn.execute("select enqueue_job('long')")
        query = "select name from workers join jobs on worker_id = workers.id where status = 'running'"
        until(lambda: conn.execute(query).fetchone() is not None)
        victim = int(one(conn, query).rpartition(":")[2])
    elif state == "polling":
        query = "select name from workers where is_held('polling', id) limit 1"
        while (name := conn.execute(query).fetchone()) is None:
            conn.execute("select enqueue_job('t'), enqueue_job('t'), enqueue_job('t')")
        victim = int(name[0].rpartition(":")[2])
    os.kill(victim, signal.SIGSTOP)
    conn.execute("delete from jobs where type = 't' and status <> 'running'")
    assert delays(conn, 6, 0.4)[0] < SOON


def test_sleeping_workers_are_notified_in_turn_except_one_that_does_not_answer(
    conn: Connection, frozen: Callable[[], Frozen]
) -> None:
    """Each of four workers is notified of every fourth job, until another worker marks one of them as passed over."""
    workers = [frozen() for _ in range(4)]
    for worker in workers:
        worker.tell("asleep")
    for _ in range(8):
        conn.execute("select enqueue_job('t')")
    assert [worker.heard() for worker in workers] == [2, 2, 2, 2]
    workers[3].conn.execute("select watch_workers(%s, null, %s)", [workers[3].id, [workers[0].id]])
    for _ in range(6):
        conn.execute("select enqueue_job('t')")
    assert [worker.heard() for worker in workers] == [0, 2, 2, 2]
    workers[0].tell("asleep")  # the worker continues
    for _ in range(4):
        conn.execute("select enqueue_job('t')")
    assert [worker.heard() for worker in workers] == [1, 1, 1, 1]


@pytest.fixture
def stranger(conn: Connection, dsn: str) -> Iterator[Callable[[str, range], Connection]]:
    """Return a function that opens a session of another role without rights, which takes these workers' keys."""
    conn.execute("drop role if exists stranger; create role stranger login password 'secret'")
    made: list[Connection] = []

    def hold(key: str, ids: range) -> Connection:
        key_class = one(conn, "select lock_class(%s)", key)
        other = psycopg.connect(make_conninfo(dsn, user="stranger", password="secret"), autocommit=True)  # noqa: S106
        for number in ids:
            other.execute("select pg_advisory_lock(%s, %s)", [key_class, number])
        made.append(other)
        return other

    yield hold
    for other in made:
        other.close()
    conn.execute("drop role stranger")


@pytest.mark.parametrize(("key", "ids"), [
    ("asleep", range(1)), ("asleep", range(300)), ("polling", range(1)), ("polling", range(300)),
    ("busy", range(300)), ("alive", range(300)),
])  # fmt: skip
def test_session_that_holds_the_keys_blocks_nothing(
    conn: Connection,
    spawn: Callable[..., subprocess.Popen[str]],
    stranger: Callable[..., Connection],
    key: str,
    ids: range,
) -> None:
    """The worker starts its jobs by the fallback poll, or reports why it cannot start. SIGTERM stops it in both cases."""
    keys = stranger(key, ids)
    process, began = spawn(2.0), time.monotonic()
    assert process.stderr is not None
    if key == "alive":
        assert any("another session holds the locks of workers" in line for line in process.stderr)
        assert time.monotonic() - began < 15
    else:
        assert delays(conn, 3, 0.5)[0] < 8 + LATE  # the first job waits for the process to start
    process.terminate()
    process.wait(8)
    keys.close()
    spawn(2.0)
    assert delays(conn, 1, 0.1)[0] < 8 + LATE


def test_workers_wait_for_an_open_enqueue_without_reading_locks(
    conn: Connection, connect: Connect, start: Callable[[int], None]
) -> None:
    """The workers read all locks once, when they publish their state. Afterwards they check only the transaction."""
    conn.execute("create extension if not exists pg_stat_statements schema public")
    writer = connect(autocommit=False)
    writer.execute("select enqueue_job('t')")
    start(6)

    def calls(function: str) -> int:
        query = """select coalesce(sum(calls), 0)::integer from pg_stat_statements
                    where query like %s and dbid = (select oid from pg_database where datname = current_database())"""
        return int(one(conn, query, f"%{function}(%"))

    tells, looks = calls("set_worker_state"), calls("open_transactions")
    time.sleep(2)
    assert calls("set_worker_state") == tells
    assert 6 <= calls("open_transactions") - looks <= 6 * 60
    writer.rollback()
