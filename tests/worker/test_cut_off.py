"""A worker behind a network that drops everything logs it once, stops in time, and learns which jobs it has lost."""

from __future__ import annotations

import logging
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers.stalling_proxy import StallingProxy
from helpers.until import until
from helpers.working import finished, logged
from psycopg.conninfo import make_conninfo

from pgjobq import JobQueue, JobStatus, Registry, RunningJob, Worker, job
from pgjobq.postgres import listener
from pgjobq.storage.postgres_storage import PostgresStorage

Connection = psycopg.Connection[Any]

GRACE, BOUND = 1.0, 10.0  # seconds; stopping took 20 to 46 without a limit on each call, and the machine may be busy
TASKS = """
import asyncio, os, time
from pgjobq import job

@job
def waits(until: str) -> None:
    open(until + ".began", "w").close()
    while not os.path.exists(until):
        time.sleep(0.01)

@job
async def waits_too(until: str) -> None:
    open(until + ".began_too", "w").close()
    while not os.path.exists(until):
        await asyncio.sleep(0.01)

@job
async def in_a_thread(until: str) -> None:
    await asyncio.to_thread(waits, until)
"""


class Process:
    """`pgjobq worker` as a process with a log file."""

    def __init__(self, folder: Path, dsn: str, *options: str) -> None:
        (folder / "cut_off_tasks.py").write_text(TASKS)
        self.log = folder / "log"
        command = [sys.executable, "-m", "pgjobq", "worker", "cut_off_tasks", "--dsn", dsn, "--grace", str(GRACE)]
        with self.log.open("w") as out:
            self.popen = subprocess.Popen([*command, *options], cwd=folder, stderr=out)

    def logged(self, event: str) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if f" {event}" in line]

    def end(self) -> float:
        """Send SIGTERM, wait for the end, and return the seconds that it took."""
        began = time.monotonic()
        self.popen.send_signal(signal.SIGTERM)
        self.popen.wait(60)
        return time.monotonic() - began


@pytest.fixture
def run(tmp_path: Path, dsn: str, proxy: StallingProxy) -> Iterator[Callable[..., Process]]:
    """Return a function that starts processes that connect through the proxy. They are killed at the end."""
    made: list[Process] = []

    def start(*options: str) -> Process:
        made.append(Process(tmp_path, make_conninfo(dsn, port=proxy.port), *options))
        return made[-1]

    yield start
    for each in made:
        if each.popen.poll() is None:
            each.popen.kill()
        each.popen.wait()


def waits_for_a_lock(conn: Connection, function: str) -> bool:
    query = (
        "select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database() and query ~ %s"
    )
    return conn.execute(query, [function]).fetchone() is not None


def asleep(queue: JobQueue) -> bool:
    return any(worker["asleep"] for worker in queue.storage.workers())


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["connect", "idle", "running", "claim", "settle"])
def test_process_stops_in_time_when_the_network_drops_everything(
    dsn: str,
    queue: JobQueue,
    connect: Callable[..., Connection],
    conn: Connection,
    proxy: StallingProxy,
    run: Callable[..., Process],
    tmp_path: Path,
    moment: str,
) -> None:
    gate, locker = tmp_path / "until", connect(autocommit=False)
    if moment == "connect":
        proxy.stall()
    held = [
        queue.enqueue(type, {"until": str(gate)}) for type in ("waits", "waits_too") if moment in {"running", "settle"}
    ]
    process = run()
    if held:  # the claims have returned
        until(lambda: all(Path(f"{gate}.{began}").exists() for began in ("began", "began_too")))
    elif moment != "connect":
        until(lambda: asleep(queue))
    if moment == "claim":
        locker.execute("lock table claims in exclusive mode")
        held = [queue.enqueue("waits", {"until": str(gate)})]
        until(lambda: waits_for_a_lock(conn, "claim_jobs"))
    elif moment == "settle":
        locker.execute("lock table claims in exclusive mode")
        gate.touch()
        until(lambda: waits_for_a_lock(conn, "complete_jobs"))
    proxy.stall()
    locker.rollback()
    assert process.end() < GRACE + BOUND
    if moment == "connect":
        return
    assert process.popen.returncode == 0
    assert process.logged("worker.stopped")
    if moment in {"running", "settle"}:
        (line,) = process.logged("worker.unsettled")
        named = re.findall(r"[0-9a-f-]{36}", line)
        assert set(named) <= set(held)
        assert len(named) >= 1
    proxy.flow()  # the late messages of the process must have no effect
    gate.touch()
    with PostgresStorage(dsn)._database.connection():
        pass


@pytest.mark.slow
def test_supervisor_stops_in_time_when_the_network_drops_everything(
    queue: JobQueue, proxy: StallingProxy, run: Callable[..., Process], tmp_path: Path
) -> None:
    process = run("--processes", "2")
    gates = [tmp_path / f"until-{n}" for n in range(4)]
    held = [queue.enqueue("waits", {"until": str(gate)}) for gate in gates]
    until(lambda: len(queue.storage.workers()) == 2)
    until(lambda: all(Path(f"{gate}.began").exists() for gate in gates))  # the claims have returned
    proxy.stall()
    assert process.end() < GRACE + BOUND
    assert process.popen.returncode == 0
    named = re.findall(r"[0-9a-f-]{36}", " ".join(process.logged("worker.unsettled")))
    assert sorted(named) == sorted(held)


@pytest.mark.slow
def test_thread_that_python_waits_for_does_not_delay_the_exit(
    queue: JobQueue, run: Callable[..., Process], tmp_path: Path
) -> None:
    process = run()
    job_id = queue.enqueue("in_a_thread", {"until": str(tmp_path / "until")})
    until((tmp_path / "until.began").exists)
    assert process.end() < GRACE + BOUND
    assert process.popen.returncode == 0
    assert process.logged("worker.threads_left"), process.log.read_text()
    found = queue.get_job(job_id)
    assert found is not None
    assert (found.status, found.attempts) == (JobStatus.PENDING, 0)


def test_worker_that_is_cut_off_logs_it_once_and_learns_which_jobs_it_lost(
    dsn: str,
    queue: JobQueue,
    conn: Connection,
    proxy: StallingProxy,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(listener, "ANSWER_TIME", 0.5)
    began, lost, elsewhere = threading.Semaphore(0), [], Registry()
    ours = Registry()

    @job(registry=ours, type="long", max_retries=0)
    def long(job: RunningJob) -> None:
        began.release()
        until(lambda: job.lost, 60)
        lost.append(job.id)

    @job(registry=ours, type="long_async", max_retries=0)
    async def long_async(job: RunningJob) -> None:
        import asyncio

        began.release()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            lost.append(job.id)

    for name in ("long", "long_async"):
        job(registry=elsewhere, type=name)(lambda: None)
    cut = PostgresStorage(make_conninfo(dsn, port=proxy.port, connect_timeout=2), answer_timeout=0.5, timeout=1)
    worker = Worker(cut, registry=ours)
    jobs = [queue.enqueue("long"), queue.enqueue("long_async")]
    caplog.set_level(logging.INFO)
    worker.start()
    other: Worker | None = None
    try:
        for _ in jobs:
            assert began.acquire(timeout=10)
        proxy.stall()
        (line,) = until(lambda: logged(caplog, "worker.cut_off"), 20)
        assert line.jobs_in_flight == 2
        # The server ends the sessions, as its own keepalive would.
        conn.execute(
            "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and granted"
            " and database = (select oid from pg_database where datname = current_database())"
        )
        other = Worker(PostgresStorage(dsn, application_name="other"), registry=elsewhere)
        other.start()
        assert {finished(queue, job_id).status for job_id in jobs} == {JobStatus.COMPLETED}
        assert len(logged(caplog, "worker.cut_off")) == 1
        assert not lost
        proxy.flow()
        until(lambda: sorted(lost) == sorted(jobs), 30)
        assert {record.job_id for record in logged(caplog, "job.lost")} == set(jobs)
        until(lambda: logged(caplog, "worker.reconnected"), 30)
        assert len(logged(caplog, "worker.cut_off")) == 1
    finally:
        proxy.flow()
        for each in (worker, other):
            if each is not None:
                each.stop(grace=0)
                each.storage.close()


def test_worker_stops_in_time_while_a_host_name_is_not_resolved(
    dsn: str, queue: JobQueue, conn: Connection, proxy: StallingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer, resolve = threading.Event(), threading.Event(), socket.getaddrinfo

    def silent(*arguments: Any, **options: Any) -> Any:
        asked.set()
        answer.wait(60)
        return resolve(*arguments, **options)

    storage = PostgresStorage(make_conninfo(dsn, host="localhost", port=proxy.port))
    worker = Worker(storage, registry=Registry())
    worker.start()
    try:
        until(lambda: asleep(queue))
        monkeypatch.setattr(socket, "getaddrinfo", silent)
        conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"
        )
        assert asked.wait(10)
        began = time.monotonic()
        worker.stop(grace=GRACE)
        assert time.monotonic() - began < GRACE + BOUND
    finally:
        answer.set()
        storage.close()
