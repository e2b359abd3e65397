"""Liveness of workers that are killed, stopped, cut off or without a server. The workers are real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers.until import until
from helpers.working import status
from psycopg.conninfo import conninfo_to_dict

from pgjobq import JobQueue, Registry
from pgjobq.devserver import DevServer
from pgjobq.postgres.schema import migrate
from pgjobq.storage.postgres_storage import PostgresStorage

Connection = psycopg.Connection[Any]

RESCUED_WITHIN = 8.0  # seconds; documented is 5, on a machine without other load
HANDLERS = '''
import os, time
from pathlib import Path
from pgjobq import RunningJob, job

HERE = Path(__file__).parent

@job
def hold(job: RunningJob) -> None:
    """Record the try, the process and the time of the start. End when the test allows it, or after 60 seconds."""
    with (HERE / "starts").open("a") as starts:
        starts.write(f"{job.id} {job.attempts} {os.getpid()} {time.time()}\\n")
    deadline = time.monotonic() + 60
    while not (HERE / f"{job.id}.go").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    with (HERE / "ends").open("a") as ends:
        ends.write(f"{job.id} {job.attempts} {os.getpid()}\\n")
'''


class Fleet:
    """Worker processes on one database, and what their handlers recorded."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self.folder, self.dsn = folder, dsn
        self.workers: list[subprocess.Popen[bytes]] = []
        (folder / "handlers.py").write_text(HANDLERS)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a worker process that logs to the file `log`."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        with (self.folder / "log").open("ab") as log:
            command = [sys.executable, "-m", "pgjobq", "worker", "handlers", "--log-json", *words]
            self.workers.append(
                subprocess.Popen(command, stderr=log, cwd=self.folder, env=kept | {"PGJOBQ_DSN": self.dsn})
            )
        return self.workers[-1]

    def starts(self, job_id: str) -> list[tuple[int, int, float]]:
        """Return the starts of a job in order, as (try, process id, time)."""
        return [(int(n), int(pid), float(at)) for n, pid, at in self._lines("starts", job_id)]

    def ends(self, job_id: str) -> list[tuple[int, int]]:
        """Return the ends of a job in order, as (try, process id)."""
        return [(int(n), int(pid)) for n, pid in self._lines("ends", job_id)]

    def wait_for_starts(self, job_id: str, starts: int) -> list[tuple[int, int, float]]:
        """Wait until a job has started this many times, and return its starts."""
        until(lambda: len(self.starts(job_id)) == starts, RESCUED_WITHIN + 5)
        return self.starts(job_id)

    def allow(self, job_id: str) -> None:
        """Let the job end."""
        (self.folder / f"{job_id}.go").touch()

    def log(self) -> list[dict[str, Any]]:
        """Return the lines of the log."""
        return [json.loads(line) for line in (self.folder / "log").read_text().splitlines()]

    def events(self) -> list[str]:
        """Return the events of the log."""
        return [line["event"] for line in self.log()]

    def stop(self) -> None:
        """Kill all processes."""
        for worker in self.workers:
            worker.kill()  # this also ends a process that SIGSTOP has stopped
            worker.wait()

    def _lines(self, name: str, job_id: str) -> list[list[str]]:
        path = self.folder / name
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [rest for found, *rest in lines if found == job_id]


@pytest.fixture
def fleet(dsn: str, tmp_path: Path) -> Iterator[Fleet]:
    """A fleet on the test's database."""
    fleet = Fleet(tmp_path, dsn)
    yield fleet
    fleet.stop()


def asleep(conn: Connection) -> int:
    """Return how many workers are asleep."""
    row = conn.execute("select count(*) from pgjobq.worker_status where alive and asleep").fetchone()
    return int(row[0]) if row else 0


@pytest.mark.parametrize("moment", ["while it runs", "at its start"])
def test_idle_worker_runs_the_job_of_a_killed_worker(
    fleet: Fleet, queue: JobQueue, conn: Connection, moment: str, record_property: Callable[[str, object], None]
) -> None:
    victim = fleet.start()
    until(lambda: asleep(conn) == 1)
    job_id = queue.enqueue("hold", max_retries=1)
    until(lambda: fleet.starts(job_id))
    if moment == "while it runs":
        # By now the job counts as long, and the other worker fell asleep after the job began.
        fleet.start()
        until(lambda: asleep(conn) == 2)
    victim.kill()
    killed = time.time()
    victim.wait()
    if moment == "at its start":
        fleet.start()
    first, second = fleet.wait_for_starts(job_id, 2)
    record_property("seconds from kill to start", round(second[2] - killed, 2))
    print(f"a killed worker's job ran again after {second[2] - killed:.2f} s")
    assert second[2] - killed < RESCUED_WITHIN
    assert (first[0], second[0]) == (1, 2)
    assert (first[1], second[1]) == (victim.pid, fleet.workers[-1].pid)
    assert status(conn, job_id) == ("running", 2)
    fleet.allow(job_id)
    until(lambda: status(conn, job_id) == ("completed", 2))
    assert fleet.ends(job_id) == [(2, fleet.workers[-1].pid)]


def test_sleeping_worker_runs_a_job_whose_worker_died_at_its_start(
    fleet: Fleet, queue: JobQueue, conn: Connection, record_property: Callable[[str, object], None]
) -> None:
    workers = {fleet.start().pid: fleet.workers[-1] for _ in range(2)}
    until(lambda: asleep(conn) == 2)
    job_id = queue.enqueue("hold")
    ((_, pid, _),) = until(lambda: fleet.starts(job_id))
    workers[pid].kill()
    killed = time.time()
    _, second = fleet.wait_for_starts(job_id, 2)
    record_property("seconds from kill to start", round(second[2] - killed, 2))
    print(f"a job whose worker died at its start ran again after {second[2] - killed:.2f} s")
    assert second[2] - killed < RESCUED_WITHIN
    assert second[1] != pid


def test_job_that_kills_its_workers_fails_after_the_third_crash(
    fleet: Fleet, queue: JobQueue, conn: Connection
) -> None:
    job_id = queue.enqueue("hold", max_retries=1)
    for n in (1, 2, 3):
        fleet.start()
        fleet.wait_for_starts(job_id, n)
        fleet.workers[-1].kill()
        fleet.workers[-1].wait()
    fleet.start()
    until(lambda: status(conn, job_id) == ("failed", 3), seconds=RESCUED_WITHIN + 2)
    job = queue.get_job(job_id)
    assert job is not None
    assert "stopped or died while it held this job (try 1 of 2, crash 3 of 3)" in str(job.error)
    lines = [line for line in fleet.log() if line["event"] == "jobs.rescued"]
    assert [line["worker_name"] for line in lines] == [
        f"{socket.gethostname()}:{dead.pid}" for dead in fleet.workers[:3]
    ]
    assert [line["job_ids"] for line in lines] == [job_id] * 3
    assert [(line["rescued"], line["failed"], line.get("crashes")) for line in lines] == [
        (1, 0, None),
        (1, 0, f"{job_id}:2"),
        (0, 1, f"{job_id}:3"),
    ]
    assert all(2 <= line["stood"] < 60 for line in lines)
    assert len(fleet.starts(job_id)) == 3


def test_stopped_process_keeps_its_jobs(fleet: Fleet, queue: JobQueue, conn: Connection) -> None:
    still = fleet.start("--concurrency", "1")
    until(lambda: asleep(conn) == 1)
    job_id = queue.enqueue("hold", max_retries=5)
    until(lambda: fleet.starts(job_id))
    still.send_signal(signal.SIGSTOP)
    fleet.start()
    until(lambda: asleep(conn) == 1)  # this is the other worker, because the stopped one is awake with a job
    # Rescue often and for longer than the grace period: time alone must not take the jobs of a live session.
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:
        assert conn.execute("select rescued, failed from rescue_jobs()").fetchone() == (0, 0)
        time.sleep(0.1)
    assert status(conn, job_id) == ("running", 1)
    still.send_signal(signal.SIGCONT)
    fleet.allow(job_id)
    until(lambda: status(conn, job_id) == ("completed", 1))
    assert fleet.starts(job_id)[0][1] == still.pid
    assert fleet.ends(job_id) == [(1, still.pid)]
    assert len(fleet.starts(job_id)) == 1


@pytest.mark.parametrize("times", [1, 3])
def test_worker_whose_listener_is_cut_off_keeps_its_jobs_and_continues(
    fleet: Fleet, queue: JobQueue, conn: Connection, times: int
) -> None:
    worker = fleet.start()
    until(lambda: asleep(conn) == 1)
    fleet.start()  # this worker would run the jobs if they were rescued
    until(lambda: asleep(conn) == 2)
    first = queue.enqueue("hold")
    ((_, owner, _),) = until(lambda: fleet.starts(first))
    holder = "select worker_id from jobs where id = %s"
    lock = "select pid from pg_locks where locktype = 'advisory' and classid = 'workers'::regclass and objsubid = 2 and objid = %s"
    worker_id = conn.execute(holder, [first]).fetchone()
    assert worker_id is not None
    gone: list[int] = []
    for _ in range(times):
        (backend,) = until(lambda: conn.execute(lock, worker_id).fetchone())
        assert conn.execute("select pg_terminate_backend(%s, 5000)", [backend]).fetchone() == (True,)
        # The worker takes its key again on another connection within the grace period.
        gone.append(backend)
        until(lambda: (now := conn.execute(lock, worker_id).fetchone()) and now[0] not in gone, 5)
    assert conn.execute("select rescued, failed from rescue_jobs('0')").fetchone() == (0, 0)
    fleet.allow(first)
    until(lambda: status(conn, first) == ("completed", 1))
    assert fleet.ends(first) == [(1, owner)]
    # Both workers are still notified, so jobs start at once.
    until(lambda: asleep(conn) == 2)
    began = time.time()
    again = queue.enqueue("hold")
    ((_, _, at),) = until(lambda: fleet.starts(again))
    assert at - began < 2  # the fallback poll would take 30 seconds
    fleet.allow(again)
    assert worker.poll() is None
    assert "job.lost" not in fleet.events()


def test_worker_survives_a_restart_of_the_server(registry: Registry) -> None:
    with tempfile.TemporaryDirectory(prefix="pgjobq-liveness-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the server may run as another user
        server = DevServer(folder / "server").start()
        port = int(str(conninfo_to_dict(server.dsn)["port"]))
        (folder / "work").mkdir()
        fleet = Fleet(folder / "work", server.dsn)
        try:
            migrate(server.dsn)
            worker = fleet.start()
            with JobQueue(server.dsn, registry=registry) as queue, psycopg.connect(server.dsn, autocommit=True) as conn:
                until(lambda: asleep(conn) == 1)
                across = queue.enqueue("hold", job_id="across")
                until(lambda: fleet.starts(across))
            server.stop()
            fleet.allow("across")  # the job ends while the server is down, so its outcome has to wait
            until(lambda: fleet.ends("across"))
            server = DevServer(folder / "server", port=port).start()
            with JobQueue(server.dsn, registry=registry) as queue, psycopg.connect(server.dsn, autocommit=True) as conn:
                began = time.time()
                new = queue.enqueue("hold", job_id="new")
                fleet.allow("new")
                until(lambda: status(conn, new) == ("completed", 1), 20)
                print(f"a new job ran {fleet.starts(new)[0][2] - began:.2f} s after the server was back")
                until(lambda: (status(conn, "across") or ("",))[0] == "completed", 20)
                # The worker is notified again.
                until(lambda: asleep(conn) == 1, 20)
                rung = time.time()
                last = queue.enqueue("hold", job_id="last")
                fleet.allow("last")
                until(lambda: status(conn, last) == ("completed", 1))
                assert fleet.starts(last)[0][2] - rung < 2
            assert worker.poll() is None
            assert {pid for _, pid in fleet.ends("across") + fleet.ends("new") + fleet.ends("last")} == {worker.pid}
        finally:
            fleet.stop()
            server.stop()


def test_worker_with_heartbeats_runs_jobs(fleet: Fleet, queue: JobQueue, conn: Connection) -> None:
    worker = fleet.start("--pooled")
    alive = "select alive, asleep from worker_status"
    until(lambda: conn.execute(alive).fetchone() == (True, False))
    assert conn.execute("select count(heartbeat_at) from workers").fetchone() == (1,)
    assert conn.execute("select count(*) from pg_locks where locktype = 'advisory' and objsubid = 2").fetchone() == (0,)
    job_id = queue.enqueue("hold")
    until(lambda: fleet.starts(job_id))
    beat = conn.execute("select heartbeat_at from workers").fetchone()
    assert beat is not None
    # The worker sends a heartbeat about once a second while it runs a job.
    until(lambda: conn.execute("select heartbeat_at > %s from workers", beat).fetchone() == (True,), 5)
    fleet.allow(job_id)
    until(lambda: status(conn, job_id) == ("completed", 1))
    worker.terminate()
    assert worker.wait(10) == 0
    assert conn.execute("select count(*) from workers").fetchone() == (0,)


def test_jobs_of_a_killed_worker_with_heartbeats_are_rescued(fleet: Fleet, queue: JobQueue, conn: Connection) -> None:
    victim = fleet.start("--pooled")
    until(lambda: conn.execute("select count(*) from workers").fetchone() == (1,))
    job_id = queue.enqueue("hold")
    until(lambda: fleet.starts(job_id))
    victim.kill()
    victim.wait()
    fleet.start("--pooled")
    until(lambda: conn.execute("select count(*) from workers").fetchone() == (2,))
    assert conn.execute("select rescued, failed from rescue_jobs('0')").fetchone() == (0, 0)  # not yet 30 seconds old
    assert status(conn, job_id) == ("running", 1)
    dead = "update workers set heartbeat_at = heartbeat_at - interval '31 seconds' where id = (select worker_id from jobs where id = %s)"
    assert conn.execute(dead, [job_id]).rowcount == 1
    starts = fleet.wait_for_starts(job_id, 2)
    assert [(n, pid) for n, pid, _ in starts] == [(1, victim.pid), (2, fleet.workers[-1].pid)]
    fleet.allow(job_id)
    until(lambda: status(conn, job_id) == ("completed", 2))


def test_worker_taken_for_dead_by_its_heartbeat_learns_of_it_and_continues(
    make_storage: Callable[..., PostgresStorage], conn: Connection
) -> None:
    storage, other = make_storage(pooled=True), make_storage(pooled=True)
    storage.enqueue("a", "t", {})
    held = storage.dequeue_many(1)
    assert [job.id for job in held] == ["a"]
    conn.execute("update workers set heartbeat_at = heartbeat_at - interval '31 seconds'")
    assert conn.execute("select rescued from rescue_jobs('0')").fetchone() == (1,)
    found = storage.maintain(held)
    assert [job.id for job in found.lost] == ["a"]
    assert [job.attempts for job in other.dequeue_many(1)] == [2]
    storage.enqueue("b", "t", {})
    assert [job.id for job in storage.dequeue_many(1)] == ["b"]  # the storage has registered as another worker
    storage.complete("b")
    assert status(conn, "b") == ("completed", 1)
