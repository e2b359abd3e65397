"""Isolated handlers in real programs: signals to the worker, its death, and where handlers may be defined."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.until import until
from helpers.working import finished

from pgjobq import JobQueue, JobStatus

HANDLERS = """
import subprocess, sys, time
from pathlib import Path
from pgjobq import RunningJob, job

@job(isolate="process")
def hold(job: RunningJob) -> None:
    import os
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(f"pids{job.attempts}").write_text(f"{os.getpid()} {process.pid}")
    if not job.crashes:
        %s
    process.kill()
"""
SLEEPS = "time.sleep(600)"
IN_C = "import gc; gc.disable(); sum(iter(int, 1))"  # a call that never lets another thread run
UNTIL_GO = """
        while not Path("go").exists():
            time.sleep(0.01)"""
SCRIPT = """
import sys
from pathlib import Path
from pgjobq import JobQueue, Worker, job

@job(isolate="process")
def hold() -> None:
    Path("ran").write_text(__name__)

{guard}Worker(JobQueue(sys.argv[1])).run_once()
"""
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(dsn: str, tmp_path: Path) -> Iterator[Start]:
    """Starts Python programs in a folder of their own; none outlives the test."""
    started: list[subprocess.Popen[bytes]] = []
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PG")}

    def go(*words: str) -> subprocess.Popen[bytes]:
        with (tmp_path / "log").open("ab") as log:
            command = [sys.executable, *words]
            program = subprocess.Popen(
                command, stderr=log, cwd=tmp_path, env=kept | {"PGJOBQ_DSN": dsn}, start_new_session=True
            )
        started.append(program)
        return program

    yield go
    for program in started:
        if program.poll() is None:
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()


@pytest.fixture
def worker(start: Start, tmp_path: Path) -> Callable[..., Any]:
    def go(body: str, *words: str) -> Any:
        (tmp_path / "holding.py").write_text(HANDLERS % body)
        return start("-m", "pgjobq", "worker", "holding", *words)

    return go


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def pids(path: Path) -> list[int]:
    return [int(pid) for pid in until(lambda: path.exists() and path.read_text().split(), 30)]


@pytest.mark.parametrize("body", [SLEEPS, IN_C], ids=["sleeps", "in C"])
def test_when_the_worker_is_killed_its_processes_end_and_the_job_is_rescued_once(
    queue: JobQueue, worker: Callable[..., Any], tmp_path: Path, body: str
) -> None:
    job_id = queue.enqueue("hold")
    killed = worker(body)
    of_the_first = pids(tmp_path / "pids1")
    killed.kill()
    until(lambda: not any(map(running, of_the_first)), 5)
    worker(body)
    done = finished(queue, job_id)
    assert (done.status, done.attempts) == (JobStatus.COMPLETED, 2)


@pytest.mark.parametrize("words", [(), ("--processes", "2")], ids=["one process", "supervisor"])
def test_a_process_may_end_within_the_grace(
    queue: JobQueue, worker: Callable[..., Any], tmp_path: Path, words: tuple[str, ...]
) -> None:
    job_id = queue.enqueue("hold")
    program = worker(UNTIL_GO, *words)
    pids(tmp_path / "pids1")
    os.killpg(program.pid, signal.SIGINT)  # like Ctrl-C, to every process of the terminal's group
    until(lambda: b".signal " in (tmp_path / "log").read_bytes())
    (tmp_path / "go").touch()
    assert program.wait(20) == 0
    done = finished(queue, job_id)
    assert (done.status, done.attempts) == (JobStatus.COMPLETED, 1)


def test_after_the_grace_the_process_ends_and_the_job_is_released(
    queue: JobQueue, worker: Callable[..., Any], tmp_path: Path
) -> None:
    job_id = queue.enqueue("hold")
    program = worker(SLEEPS, "--grace", "0.5")
    held = pids(tmp_path / "pids1")
    program.terminate()
    assert program.wait(20) == 0
    until(lambda: not any(map(running, held)), 5)
    found = queue.get_job(job_id)
    assert found is not None
    assert (found.status, found.attempts, found.error) == (JobStatus.PENDING, 0, None)


def test_a_handler_of_the_main_module(queue: JobQueue, start: Start, dsn: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT.format(guard='if __name__ == "__main__":\n    '))
    for words in (["script.py"], ["-m", "script"]):
        job_id = queue.enqueue("hold")
        assert start(*words, dsn).wait(20) == 0
        done = queue.get_job(job_id)
        assert done is not None
        assert (done.status, done.error) == (JobStatus.COMPLETED, None)
    assert (tmp_path / "ran").read_text() == "script"


def test_a_worker_without_a_guard_does_not_start_in_the_process(
    queue: JobQueue, start: Start, dsn: str, tmp_path: Path
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT.format(guard=""))
    job_id = queue.enqueue("hold", max_retries=0)
    assert start("script.py", dsn).wait(20) == 0
    done = queue.get_job(job_id)
    assert done is not None
    assert (done.status, "start a Worker under" in (done.error or "")) == (JobStatus.FAILED, True)
    assert "failed to import it" in (done.error or "")
