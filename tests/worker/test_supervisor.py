"""`pgjobq worker --processes`: processes are forked, replaced when they die, and stopped together."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers.until import until
from helpers.working import status

from pgjobq import JobQueue

Connection = psycopg.Connection[Any]

REPLACED_WITHIN = 10.0  # seconds; the supervisor waits one, and the rescue takes about three
HANDLERS = '''
import os, time
from pathlib import Path
from pgjobq import RunningJob, job

HERE = Path(__file__).parent
if (HERE / "broken").exists():
    os._exit(7)

@job
def hold(job: RunningJob) -> None:
    """Record which process began the job. End when the test allows it, or after 30 seconds."""
    (HERE / f"{job.id}.{job.attempts}").write_text(str(os.getpid()))
    deadline = time.monotonic() + 30
    while not (HERE / "go").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
'''


def is_alive(pid: int) -> bool:
    """Return whether the process runs. A zombie does not, even before its parent has reaped it."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


class Fleet:
    """A supervisor on the test's database, with its children and its log."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self.folder, self.dsn = folder, dsn
        self.process: subprocess.Popen[bytes] | None = None
        self.seen: set[int] = set()
        (folder / "handlers.py").write_text(HANDLERS)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start `pgjobq worker` in a process group of its own. Its log goes to the file `log`."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pgjobq", "worker", "--log-json", *words],
                stderr=log,
                cwd=self.folder,
                env=kept | {"PGJOBQ_DSN": self.dsn},
                start_new_session=True,
            )
        return self.process

    def started(self, processes: int, *words: str) -> subprocess.Popen[bytes]:
        """Start it and wait until this many workers have started."""
        process = self.start("handlers", "--concurrency", "1", "--processes", str(processes), *words)
        until(lambda: len(self.log("worker.started")) == processes)
        return process

    def log(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines of this event."""
        lines = (self.folder / "log").read_text().splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        self.seen |= {line["pid"] for line in found if line["event"] == "process.started"}
        return [line for line in found if line["event"] == event]

    def pids(self) -> dict[int, int]:
        """Return the latest process of each worker number."""
        return {line["worker"]: line["pid"] for line in self.log("process.started")}

    def began(self, job_id: str, attempt: int) -> int:
        """Wait until this start of a job has begun, and return its process id."""
        path = self.folder / f"{job_id}.{attempt}"
        return int(until(lambda: path.exists() and path.read_text(), REPLACED_WITHIN))

    def allow(self) -> None:
        """Let the jobs end."""
        (self.folder / "go").touch()

    def are_gone(self) -> bool:
        """Return whether every child has ended."""
        self.log("process.started")
        return not any(is_alive(pid) for pid in self.seen)

    def kill(self) -> None:
        """Kill every running process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        for pid in self.seen:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def fleet(dsn: str, tmp_path: Path) -> Iterator[Fleet]:
    """A fleet on the test's database."""
    fleet = Fleet(tmp_path, dsn)
    yield fleet
    fleet.kill()


def test_each_process_runs_jobs_and_logs_its_number(fleet: Fleet, conn: Connection, queue: JobQueue) -> None:
    fleet.started(3)
    for name in "abc":
        queue.enqueue("hold", job_id=name)
    assert {fleet.began(name, 1) for name in "abc"} == set(fleet.pids().values())
    assert conn.execute("select count(*) from worker_status where alive").fetchone() == (3,)
    assert sorted(line["worker"] for line in fleet.log("worker.started")) == [1, 2, 3]
    fleet.allow()
    until(lambda: len(queue.get_completed_jobs()) == 3)


def test_killed_child_is_replaced_and_its_job_rescued(fleet: Fleet, conn: Connection, queue: JobQueue) -> None:
    fleet.started(2)
    queue.enqueue("hold", job_id="a")
    victim = fleet.began("a", 1)
    number = {pid: number for number, pid in fleet.pids().items()}[victim]
    os.kill(victim, signal.SIGKILL)
    (ended,) = until(lambda: fleet.log("process.ended"))
    assert (ended["worker"], ended["pid"], ended["signal"], ended["retry_in"]) == (number, victim, "SIGKILL", 1.0)
    assert fleet.began("a", 2) != victim
    until(lambda: fleet.pids()[number] != victim, REPLACED_WITHIN)
    fleet.allow()
    until(lambda: status(conn, "a") == ("completed", 2))
    until(lambda: conn.execute("select count(*) from worker_status where alive").fetchone() == (2,))


def test_child_killed_by_a_signal_without_a_name_is_replaced(fleet: Fleet) -> None:
    supervisor = fleet.started(2)
    os.kill(fleet.pids()[1], signal.SIGRTMIN + 7)
    (ended,) = until(lambda: fleet.log("process.ended"))
    assert (ended["worker"], ended["signal"]) == (1, str(signal.SIGRTMIN + 7))
    assert supervisor.poll() is None


def test_child_that_stops_on_a_signal_is_replaced(fleet: Fleet) -> None:
    fleet.started(2)
    os.kill(fleet.pids()[1], signal.SIGTERM)
    (ended,) = until(lambda: fleet.log("process.ended"))
    assert (ended["worker"], ended["status"]) == (1, 0)
    until(lambda: len(fleet.log("worker.started")) == 3, REPLACED_WITHIN)


@pytest.mark.parametrize("how", ["grace is over", "second signal"])
def test_sigterm_stops_all_processes_and_releases_their_jobs(
    fleet: Fleet, conn: Connection, queue: JobQueue, how: str
) -> None:
    supervisor = fleet.started(2, "--grace", "0.3" if how == "grace is over" else "30")
    for name in "abc":  # one more than can run at once
        queue.enqueue("hold", job_id=name)
    for name in "ab":
        fleet.began(name, 1)
    supervisor.send_signal(signal.SIGTERM)
    if how == "second signal":
        until(lambda: fleet.log("supervisor.signal"))
        assert supervisor.poll() is None
        # Repeat the signal, because signals within a second of the first count as one.
        while supervisor.poll() is None:
            supervisor.send_signal(signal.SIGTERM)
            time.sleep(0.02)
    assert supervisor.wait(10) == 0
    assert fleet.are_gone()
    assert [status(conn, name) for name in "abc"] == [("pending", 0)] * 3
    assert [line["status"] for line in fleet.log("process.ended")] == [0, 0]
    assert conn.execute("select count(*) from workers").fetchone() == (0,)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_to_the_whole_group_counts_as_one(
    fleet: Fleet, conn: Connection, queue: JobQueue, number: signal.Signals
) -> None:
    """A terminal or systemd signals the children too. They must not take the supervisor's signal for a second one."""
    supervisor = fleet.started(2)
    queue.enqueue("hold", job_id="a")
    fleet.began("a", 1)
    os.killpg(supervisor.pid, number)
    until(lambda: fleet.log("supervisor.signal"))
    until(lambda: len(fleet.log("process.ended")) == 1)  # the idle child
    fleet.allow()
    assert supervisor.wait(10) == 0
    assert status(conn, "a") == ("completed", 1)


def test_signal_that_a_child_also_gets_later_counts_as_one(fleet: Fleet, conn: Connection, queue: JobQueue) -> None:
    supervisor = fleet.started(2)
    queue.enqueue("hold", job_id="a")
    child = fleet.began("a", 1)
    supervisor.terminate()
    until(lambda: len(fleet.log("process.ended")) == 1)
    os.kill(child, signal.SIGTERM)
    until(lambda: fleet.log("worker.signal"))
    fleet.allow()
    assert supervisor.wait(10) == 0
    assert status(conn, "a") == ("completed", 1)


def test_children_stop_cleanly_when_the_supervisor_is_killed(fleet: Fleet, conn: Connection, queue: JobQueue) -> None:
    supervisor = fleet.started(2)
    queue.enqueue("hold", job_id="a")
    fleet.began("a", 1)
    supervisor.kill()
    until(lambda: len(fleet.log("supervisor.gone")) == 2)
    fleet.allow()
    until(fleet.are_gone)
    assert status(conn, "a") == ("completed", 1)
    assert conn.execute("select count(*) from workers").fetchone() == (0,)


def test_child_that_keeps_crashing_is_restarted_with_a_backoff(fleet: Fleet) -> None:
    supervisor = fleet.started(2)
    (fleet.folder / "broken").touch()
    os.kill(fleet.pids()[2], signal.SIGKILL)
    ended = until(lambda: len(found := fleet.log("process.ended")) == 3 and found, 20)
    assert [line["retry_in"] for line in ended] == [1.0, 2.0, 4.0]
    assert [line.get("status") for line in ended] == [None, 7, 7]
    assert is_alive(fleet.pids()[1])
    supervisor.terminate()
    assert supervisor.wait(10) == 0


@pytest.mark.parametrize(
    ("words", "exit_status", "message"),
    [
        (["nothing.here"], 2, "module: 'nothing' is neither here nor installed"),
        (["json"], 2, "json: no handlers found; decorate functions with @job from pgjobq"),
        (["handlers", "--concurrency", "0"], 2, "concurrency: 0 is not allowed"),
        (["handlers", "--schema", "other"], 1, "run: pgjobq migrate"),
        (["handlers", "--dsn", "postgresql://u:s3cret@127.0.0.1:1/x"], 1, "PostgreSQL does not answer"),
        (["handlers", "--processes", "0"], 2, "processes: 0 is not allowed; use a whole number above 0"),
        (["handlers", "--processes", "-2"], 2, "processes: -2 is not allowed"),
    ],
)
def test_error_in_all_processes_is_reported_once(
    fleet: Fleet, words: list[str], exit_status: int, message: str
) -> None:
    assert fleet.start("--processes", "3", *words).wait(20) == exit_status
    log = (fleet.folder / "log").read_text()
    assert len(re.findall(f"(?m)^pgjobq: .*{re.escape(message)}", log)) == 1, log
    assert "Traceback" not in log
    assert fleet.are_gone()


def test_sigterm_stops_it_before_any_worker_has_started(fleet: Fleet) -> None:
    (fleet.folder / "slow.py").write_text("import time\ntime.sleep(60)")
    supervisor = fleet.start("slow", "--processes", "2")
    until(fleet.pids)
    supervisor.terminate()
    assert supervisor.wait(10) == 0
    assert fleet.are_gone()
    assert len(fleet.seen) == 1


SCRIPT = """
import logging, os, signal, sys, time
from pathlib import Path
from pgjobq.cli import supervisor
from pgjobq.cli.logs import configure
supervisor.BACKOFF_MIN, supervisor.BACKOFF_MAX, supervisor.PROVEN_AFTER = 0.01, 0.04, 0.3
configure(as_json=True, level="info")
boss = supervisor.Supervisor(1)
line = boss.run()
if line is None:
    sys.exit(boss.status)
starts = Path("starts").open("a+")
starts.write("x")
starts.flush()
line.ready(lambda hurry: os._exit(0))
life = os.stat("starts").st_size
if life < 7:
    time.sleep(0.4 if life == 5 else 0)
    os._exit(life)
time.sleep(30)
"""


def test_failed_fork_is_retried(fleet: Fleet) -> None:
    failing = """
forked, calls = os.fork, []
def fork():
    calls.append(1)
    if len(calls) < 3:
        raise BlockingIOError("no more processes")
    return forked()
os.fork = fork
boss ="""
    with (fleet.folder / "log").open("wb") as log:
        command = [sys.executable, "-c", SCRIPT.replace("boss =", failing, 1)]
        (fleet.folder / "starts").write_text("xxxxxx")  # the first process that starts keeps running
        fleet.process = subprocess.Popen(command, stderr=log, cwd=fleet.folder)
    until(lambda: fleet.log("process.started"))
    assert [line["error"] for line in fleet.log("process.not_started")] == ["no more processes"] * 2
    until(lambda: (fleet.folder / "starts").stat().st_size == 7)
    fleet.process.terminate()
    assert fleet.process.wait(10) == 0


def test_backoff_is_capped_and_reset_after_a_process_has_run_long_enough(fleet: Fleet) -> None:
    with (fleet.folder / "log").open("wb") as log:
        fleet.process = subprocess.Popen([sys.executable, "-c", SCRIPT], stderr=log, cwd=fleet.folder)
    until(lambda: len(fleet.log("process.started")) == 7)
    ended = fleet.log("process.ended")
    assert [line["status"] for line in ended] == [1, 2, 3, 4, 5, 6]
    assert [line["retry_in"] for line in ended] == [0.01, 0.02, 0.04, 0.04, 0.01, 0.02]
    until(lambda: (fleet.folder / "starts").stat().st_size == 7)
    fleet.process.terminate()
    assert fleet.process.wait(10) == 0
