"""Several worker processes compete for jobs while more jobs are enqueued, and one of them is killed.

The environment variable PGJOBQ_STRESS_JOBS sets the number of jobs, which is 1,000 by default.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from pgjobq import NewJob
from pgjobq.models import JobStatus
from pgjobq.storage.sqlalchemy_storage import SQLAlchemyStorage

JOBS = int(os.environ.get("PGJOBQ_STRESS_JOBS", "1000"))
KILLED_AT = JOBS // 20  # starts
PROCESSES, LEASE = 4, 5.0  # seconds
PATIENCE = 60 + JOBS / 50  # seconds

# The worker first writes a line for each start. After KILLED_AT starts it kills itself while it holds jobs.
WORKER = """
import itertools, os, signal, sys
from pgjobq import Worker, Registry, job
from pgjobq.storage.sqlalchemy_storage import SQLAlchemyStorage

url, path, lease, killed_at = sys.argv[1:]
count = itertools.count(1)
registry, log = Registry(), os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

@job(type="t", registry=registry)
def handler(job):
    os.write(log, f"{job.id} {job.attempts}\\n".encode())
    if next(count) == int(killed_at):
        os.kill(os.getpid(), signal.SIGKILL)

storage = SQLAlchemyStorage(url, lease=float(lease), poll_interval=0.1)
Worker(storage, registry=registry, concurrency=4).run()
"""


def starts(path: Path) -> list[tuple[str, int]]:
    """Return the starts that a worker has written."""
    if not path.exists():
        return []
    return [(name, int(attempts)) for name, attempts in map(str.split, path.read_text().splitlines())]


def start_worker(url: str, log: Path, killed_at: int) -> subprocess.Popen[str]:
    """Start a worker in a child process."""
    command = [sys.executable, "-c", WORKER, url, str(log), str(LEASE), str(killed_at)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_no_job_is_lost_or_run_twice_when_a_worker_is_killed(url: str, tmp_path: Path) -> None:
    storage = SQLAlchemyStorage(url)
    names = [f"{n:06}" for n in range(JOBS)]
    new = [NewJob(id=name, type="t", priority=n % 3) for n, name in enumerate(names)]
    half = JOBS // 2
    storage.enqueue_many(new[:half])
    logs = [tmp_path / f"starts-{n}" for n in range(PROCESSES)]
    deadline = time.monotonic() + PATIENCE
    workers = [start_worker(url, logs[0], KILLED_AT)]
    try:
        while not starts(logs[0]):  # until the worker to be killed has jobs
            assert time.monotonic() < deadline
            time.sleep(0.01)
        workers += [start_worker(url, log, 0) for log in logs[1:]]
        for begin in range(half, JOBS, 50):
            storage.enqueue_many(new[begin : begin + 50])
        while storage.counts()[JobStatus.COMPLETED] < JOBS or len(storage.workers()) < PROCESSES - 1:
            assert time.monotonic() < deadline, storage.counts()
            time.sleep(0.05)
    finally:
        for worker in workers:
            worker.terminate()
        errors = [worker.communicate(timeout=60)[1] for worker in workers]
    assert workers[0].returncode == -9, errors
    assert [worker.returncode for worker in workers[1:]] == [0] * (PROCESSES - 1), errors
    check([starts(log) for log in logs], names)
    assert storage.workers() == []  # the live workers have left, and the killed one was rescued
    storage.close()


def check(found: list[list[tuple[str, int]]], names: list[str]) -> None:
    """Check the starts of all workers. The first list is that of the killed worker."""
    killed, others = set(found[0]), [start for part in found[1:] for start in part]
    counted = Counter([*found[0], *others])
    assert [start for start, times in counted.items() if times > 1] == []
    assert {name for name, _ in counted} == set(names)
    again = {name for name, attempts in others if attempts > 1}
    # Only jobs that the killed worker held were started again. It had started them, or was about to.
    assert again & {name for name, attempts in others if attempts == 1} == set()
    assert max(attempts for _, attempts in counted) <= 2
    print(f"{len(counted)} starts of {len(names)} jobs; {len(again)} again, {len(killed)} by the killed worker")
