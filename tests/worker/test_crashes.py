"""Jobs that kill their process: the jobs beside them lose no try, and the killers fail. The workers are processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgjobq import JobQueue
from pgjobq.worker.in_flight import InFlight

Connection = psycopg.Connection[Any]

HANDLERS = """
import os, time
from pathlib import Path
from pgjobq import RunningJob, job

HERE = Path(__file__).parent

def began(job: RunningJob) -> None:
    with (HERE / "starts").open("a") as starts:
        starts.write(f"{job.id}\\n")

@job
def innocent(job: RunningJob, seconds: float) -> None:
    began(job)
    time.sleep(seconds)

@job
def kill(job: RunningJob, after: float = 0) -> None:
    began(job)
    time.sleep(after)
    os._exit(9)
"""


class Respawned:
    """A worker process that is replaced when it dies. Its death is noticed at once."""

    def __init__(self, folder: Path, dsn: str, conn: Connection) -> None:
        self._folder, self._dsn, self._conn = folder, dsn, conn
        self._process: subprocess.Popen[bytes] | None = None
        self.deaths = 0
        (folder / "handlers.py").write_text(HANDLERS)

    def run_all(self, *words: str) -> None:
        """Run until no job is pending or running."""
        unfinished = "select exists (select from jobs where status in ('pending', 'running'))"
        while self._conn.execute(unfinished).fetchone() == (True,):
            if self._process is None:
                self._process = self._start(*words)
            try:
                self._process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            self._process = None
            self.deaths += 1
            assert self.deaths < 100
            # The server may still hold the key of the dead worker. Then a later call rescues the jobs.
            self._conn.execute("select rescue_jobs('0 s')")

    def starts(self) -> list[str]:
        """Return the ids of the started jobs, in the order of their starts."""
        return (self._folder / "starts").read_text().splitlines()

    def stop(self) -> None:
        """Kill the running process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        with (self._folder / "log").open("ab") as log:
            command = [sys.executable, "-m", "pgjobq", "worker", "handlers", *words]
            return subprocess.Popen(command, stderr=log, cwd=self._folder, env=kept | {"PGJOBQ_DSN": self._dsn})


@pytest.fixture
def worker(dsn: str, conn: Connection, tmp_path: Path) -> Iterator[Respawned]:
    """A worker on the test's database that is replaced when it dies."""
    worker = Respawned(tmp_path, dsn, conn)
    yield worker
    worker.stop()


def of(conn: Connection, type_: str) -> list[Any]:
    """Return (status, crashes, error) of the jobs of this type."""
    return conn.execute("select status, crashes, error from jobs where type = %s", [type_]).fetchall()


@pytest.mark.parametrize("seconds", [0, 0.02])
def test_killer_fails_and_innocent_jobs_complete(
    worker: Respawned, queue: JobQueue, conn: Connection, seconds: float
) -> None:
    """Innocent jobs without retries all complete. None of them shares more than one crash."""
    for n in range(3):
        for m in range(60):
            queue.enqueue("innocent", {"seconds": seconds}, job_id=f"innocent-{n}-{m}", max_retries=0)
            if m == 30:
                queue.enqueue("kill", job_id=f"killer-{n}", max_retries=0)
        worker.run_all()
    assert of(conn, "innocent") == [("completed", 0, None)] * 180
    killers = of(conn, "kill")
    assert [(status, crashes) for status, crashes, _ in killers] == [("failed", 3)] * 3
    assert all("(try 1 of 1, crash 3 of 3); it failed because of its crashes" in error for _, _, error in killers)
    assert worker.deaths == 9
    starts = worker.starts()
    assert [starts.count(f"killer-{n}") for n in range(3)] == [3, 3, 3]
    assert max(starts.count(f"innocent-{n}-{m}") for n in range(3) for m in range(60)) <= 2


def test_four_killers_among_six_long_jobs(worker: Respawned, queue: JobQueue, conn: Connection) -> None:
    """The ten jobs crash together once. Then each runs alone."""
    for n in range(6):
        queue.enqueue("innocent", {"seconds": 1.0}, job_id=f"long-{n}", max_retries=0)
    for n in range(4):
        queue.enqueue("kill", {"after": 0.3}, job_id=f"killer-{n}", max_retries=9)
    worker.run_all("--concurrency", "10")
    assert of(conn, "innocent") == [("completed", 0, None)] * 6
    assert [(status, crashes) for status, crashes, _ in of(conn, "kill")] == [("failed", 3)] * 4
    starts = worker.starts()
    assert {starts.count(f"long-{n}") for n in range(6)} <= {1, 2}
    assert worker.deaths <= 4 + 8


@pytest.mark.parametrize(("seconds", "most"), [(0.05, 4), (0.01, 30), (0.0001, 1000)])
def test_slow_jobs_are_hardly_claimed_ahead(monkeypatch: pytest.MonkeyPatch, seconds: float, most: int) -> None:
    """Eight slow jobs that end at the same moment must not look like a high rate."""
    now = 0.0
    monkeypatch.setattr("pgjobq.worker.in_flight.time.monotonic", lambda: now)
    in_flight = InFlight(8)
    ahead: list[int] = []
    running = waiting = 0
    for _ in range(200):
        for _ in range(4):  # the fetcher asks for room several times
            room = in_flight.room()
            in_flight.note_claimed(room)
            in_flight.measure_rate()
            waiting += room
        start = min(8 - running, waiting)
        running, waiting = running + start, waiting - start
        ahead.append(waiting)
        now += seconds
        for _ in range(running):
            in_flight.add_outcome(None)
            now += 0.00001
            in_flight.measure_rate()
        in_flight.take_outcomes(running)
        running = 0
    assert max(ahead[20:]) <= most
    assert most < 1000 or max(ahead) > 100  # quick jobs are claimed ahead
