"""Signals to a worker and to the demo: two in quick succession count as one, and none is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.until import until
from helpers.working import finished

from pgjobq import JobQueue, JobStatus, Registry, Worker
from pgjobq.signals import ONE_SIGNAL, StopSignals

HANDLERS = """
import time
from pathlib import Path
from pgjobq import job

@job
def hold() -> None:
    Path("began").touch()
    while not Path("go").exists():
        time.sleep(0.01)
"""


class Program:
    """`pgjobq worker` with a job that can run until the test lets it end."""

    def __init__(self, folder: Path, dsn: str, *words: str) -> None:
        self.folder = folder
        (folder / "holding.py").write_text(HANDLERS)
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        with (folder / "log").open("wb") as log:
            command = [sys.executable, "-m", "pgjobq", "worker", "holding", *words]
            environment = kept | {"PGJOBQ_DSN": dsn}
            self.process = subprocess.Popen(command, stderr=log, cwd=folder, env=environment, start_new_session=True)

    def log(self) -> str:
        return (self.folder / "log").read_text()


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    """A list for the programs that a test starts. They are killed at the end of the test."""
    started: list[Program] = []
    yield started
    for program in started:
        if program.process.poll() is None:
            os.killpg(program.process.pid, signal.SIGKILL)
            program.process.wait()


@pytest.mark.parametrize("words", [(), ("--processes", "2")], ids=["one process", "supervisor"])
def test_signals_in_quick_succession_count_as_one(
    queue: JobQueue, dsn: str, tmp_path: Path, programs: list[Program], words: tuple[str, ...]
) -> None:
    """`timeout` sends two signals. Many signals interrupt the handling of the first at any point."""
    job_id = queue.enqueue("hold")
    programs.append(program := Program(tmp_path, dsn, *words))
    until((tmp_path / "began").exists, 20)
    began = time.monotonic()
    while time.monotonic() - began < ONE_SIGNAL / 2:
        program.process.send_signal(signal.SIGTERM)
    until(lambda: ".signal " in program.log())
    assert program.process.poll() is None
    (tmp_path / "go").touch()
    assert program.process.wait(20) == 0
    assert finished(queue, job_id).status == JobStatus.COMPLETED
    assert "Traceback" not in program.log()
    assert "reentrant" not in program.log()


@pytest.mark.parametrize("words", [(), ("--processes", "2")], ids=["one process", "supervisor"])
def test_signals_do_not_kill_a_stopping_worker(
    dsn: str, tmp_path: Path, programs: list[Program], words: tuple[str, ...]
) -> None:
    """An idle worker stops before the second signal arrives."""
    programs.append(program := Program(tmp_path, dsn, *words))
    until(lambda: program.log().count("worker.started") == (2 if words else 1), 20)
    while program.process.poll() is None:
        program.process.send_signal(signal.SIGTERM)
        time.sleep(0.001)
    assert program.process.returncode == 0


def test_signal_a_second_later_counts_as_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("pgjobq.signals.time.monotonic", lambda: now)
    signals = StopSignals()
    counts = []
    for now in (100.0, 100.5, 100.9, 101.0, 101.1):  # noqa: B007  # the clock returns this variable
        signals.hear(signal.SIGTERM)
        counts.append(signals.count)
    assert counts == [1, 1, 1, 2, 3]
    assert signals.untold() == ["SIGTERM"] * 5
    assert signals.untold() == []


def test_worker_that_was_stopped_before_it_ran_returns_at_once(queue: JobQueue, registry: Registry) -> None:
    worker = Worker(queue, registry=registry)
    for _ in range(2):
        worker.ask_to_stop()
        before = signal.getsignal(signal.SIGTERM)
        worker.run()
        assert not worker.is_running()
        assert signal.getsignal(signal.SIGTERM) is before


def test_worker_runs_until_another_thread_stops_it(queue: JobQueue, registry: Registry) -> None:
    worker = Worker(queue, registry=registry)
    asked = threading.Timer(0.2, worker.ask_to_stop)
    asked.start()
    worker.run()
    assert asked.finished.is_set()


SWALLOWED = """
import os, signal, sys, time
from pgjobq.demo.parts import Interruption
interruption = Interruption(at_once=True)

class Dropped:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)  # the KeyboardInterrupt arrives here, and Python drops it

Dropped()
try:
    interruption.{what}
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("what", ["pause(0)", "check()"])
def test_demo_notices_a_signal_whose_exception_python_dropped(what: str) -> None:
    command = [sys.executable, "-c", SWALLOWED.replace("{what}", what)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert "Exception ignored" in ended.stderr
    assert ended.returncode == 130
