"""Handlers in processes of their own: what becomes of their jobs, and what is left when they end."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers import isolated
from helpers.until import until
from helpers.working import finished

from pgjobq import JobQueue, JobStatus, Registry, Worker, job

Connection = psycopg.Connection[Any]
Run = Callable[..., Any]


@pytest.fixture
def run(queue: JobQueue, registry: Registry) -> Run:
    """Runs one try of a function in a process, and returns the job."""

    def go(function: Callable[..., Any], data: dict[str, Any] | None = None, **settings: Any) -> Any:
        settings = {"max_retries": 0, **settings}
        job(registry=registry, isolate="process", **settings)(function)
        # By name, as another program does, because enqueue(function) refuses data that does not fit the function.
        job_id = queue.enqueue(registry.for_function(function).type, data, max_retries=settings["max_retries"])
        Worker(queue, registry=registry).run_once()
        return queue.get_job(job_id)

    return go


def is_alive(pid: int) -> bool:
    """Whether a process runs, and is no zombie."""
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    return False


def test_a_handler_runs_in_a_process_and_group_of_its_own(run: Run, tmp_path: Path) -> None:
    done = run(isolated.note, {"path": str(tmp_path / "f")})
    assert done.status == JobStatus.COMPLETED
    pid, group, job_id, attempts, variable = (tmp_path / "f").read_text().split()
    assert pid == group != str(os.getpid())
    assert (job_id, attempts, variable) == (done.id, "1", "unset")
    assert not is_alive(int(pid))


def test_an_async_handler_runs_in_a_process_too(run: Run, tmp_path: Path) -> None:
    assert run(isolated.note_async, {"path": str(tmp_path / "f")}).status == JobStatus.COMPLETED
    assert (tmp_path / "f").read_text() != str(os.getpid())


@pytest.mark.parametrize("function", [isolated.spin, isolated.spin_without_gc, isolated.spin_async])
def test_a_timeout_ends_a_busy_loop(run: Run, function: Callable[..., Any]) -> None:
    began = time.monotonic()
    failed = run(function, timeout=1)
    assert 1 <= time.monotonic() - began < 4
    assert (failed.status, failed.error) == (JobStatus.FAILED, "JobTimeout: ran longer than 1 seconds")


def test_a_process_that_ignores_sigterm_is_killed(run: Run, tmp_path: Path) -> None:
    failed = run(isolated.be_deaf, {"path": str(tmp_path / "pid")}, timeout=1, kill_grace=0.5)
    assert failed.error == "JobTimeout: ran longer than 1 seconds"
    assert not is_alive(int((tmp_path / "pid").read_text()))


def test_a_handler_may_clean_up_at_its_timeout(run: Run, tmp_path: Path) -> None:
    failed = run(isolated.clean_up, {"path": str(tmp_path / "pid")}, timeout=1)
    assert failed.error == "JobTimeout: ran longer than 1 seconds"
    assert (tmp_path / "pid.clean").exists()


def test_what_the_process_started_is_ended_with_it(run: Run, tmp_path: Path) -> None:
    failed = run(isolated.have_child, {"path": str(tmp_path / "pids")}, timeout=1)
    assert failed.error == "JobTimeout: ran longer than 1 seconds"
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    until(lambda: not any(map(is_alive, pids)))


def test_a_fork_that_stays_does_not_delay_the_job(run: Run, tmp_path: Path) -> None:
    began = time.monotonic()
    assert run(isolated.leave_fork, {"path": str(tmp_path / "f")}).status == JobStatus.COMPLETED
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("function", "data", "error"),
    [
        (isolated.exit_silently, {}, "the process ended with exit status 0 before the handler returned"),
        (isolated.die, {"number": signal.SIGSEGV}, "the process was killed by SIGSEGV"),
        (
            isolated.die,
            {"number": signal.SIGKILL},
            "the process was killed by SIGKILL, as the kernel does when memory runs out",
        ),
    ],
)
def test_a_process_that_dies_fails_the_try(run: Run, function: Callable[..., Any], data: Any, error: str) -> None:
    failed = run(function, data)
    assert (failed.status, failed.error) == (JobStatus.FAILED, f"ProcessDied: {error}")


def test_a_process_that_closes_everything_fails_the_try(run: Run) -> None:
    assert run(isolated.close_all).error.startswith("ProcessDied: the process ended with exit status ")


@pytest.mark.parametrize("function", [isolated.write_rubbish, isolated.print_much])
def test_odd_output_does_no_harm(run: Run, function: Callable[..., Any]) -> None:
    assert run(function).status == JobStatus.COMPLETED


def test_errors_are_told_as_of_threads(run: Run, queue: JobQueue) -> None:
    for function in (isolated.raise_odd, isolated.raise_much, isolated.return_forever, isolated.return_odd):
        told = run(function).error
        registry = Registry()
        job(registry=registry, max_retries=0)(function)
        job_id = JobQueue(queue.storage, registry=registry).enqueue(function)
        Worker(queue, registry=registry).run_once()
        done = queue.get_job(job_id)
        assert done is not None
        assert told == done.error
    status = run(isolated.leave, {"status": 3}).error
    assert status.startswith("SystemExit: 3\nTraceback")


def test_retry_and_fail(run: Run) -> None:
    failed = run(isolated.raise_retry, max_retries=5)
    assert (failed.attempts, failed.error) == (2, "Fail: enough")


def test_bad_arguments_need_no_process(run: Run) -> None:
    assert run(isolated.wait, {"nonsense": 1}).error.startswith("BadArguments: data does not fit the parameters of")


def test_logs_come_to_the_worker(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert run(isolated.say).status == JobStatus.COMPLETED
    records: list[Any] = [record for record in caplog.records if record.name == "app.isolated"]
    assert [record.getMessage() for record in records] == ["hello there", "oh"]
    assert records[0].order == 7
    assert "ValueError: told" in records[1].exc_text
    assert records[0].process != os.getpid()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces the limit")
def test_memory_limit(run: Run) -> None:
    assert run(isolated.take_memory, memory_limit=2**30).error.startswith("MemoryError")
    assert run(isolated.note_async, memory_limit=1).status == JobStatus.FAILED


def test_a_transaction_in_the_process(run: Run, conn: Connection) -> None:
    conn.execute("create table public.effects (n int)")
    insert = "insert into public.effects values (1)"
    try:
        for function in (isolated.complete_in_transaction, isolated.complete_async):
            done = run(function, {"statement": insert})
            assert (done.status, done.error) == (JobStatus.COMPLETED, None)
        assert conn.execute("select count(*) from public.effects").fetchone() == (2,)
    finally:
        conn.execute("drop table public.effects")


def test_an_error_after_the_transaction_is_logged(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    assert run(isolated.raise_after_transaction).status == JobStatus.COMPLETED
    assert [r.levelname for r in caplog.records if vars(r).get("event") == "job.error_after_settling"] == ["ERROR"]
    assert "job.lost" not in caplog.text


@pytest.fixture
def worker(queue: JobQueue, registry: Registry) -> Iterator[Worker]:
    worker = Worker(queue, registry=registry)
    worker.start()
    yield worker
    worker.stop(grace=0)


def read_when_written(path: Path) -> str:
    return str(until(lambda: path.exists() and path.read_text()))


@pytest.mark.parametrize("function", [isolated.wait, isolated.be_deaf])
def test_a_cancel_ends_the_process(
    queue: JobQueue, registry: Registry, worker: Worker, tmp_path: Path, function: Callable[..., Any]
) -> None:
    job(registry=registry, isolate="process", type="wait", kill_grace=0.2)(function)
    job_id = queue.enqueue("wait", {"path": str(tmp_path / "pid")})
    pid = int(read_when_written(tmp_path / "pid"))
    queue.cancel(job_id, "no more")
    until(lambda: not is_alive(pid), 5)
    assert (finished(queue, job_id).status, finished(queue, job_id).error) == (JobStatus.CANCELLED, "no more")


def test_a_cancel_ends_a_statement_of_the_process(
    queue: JobQueue, registry: Registry, worker: Worker, conn: Connection
) -> None:
    job(registry=registry, isolate="process")(isolated.complete_in_transaction)
    job_id = queue.enqueue("complete_in_transaction", {"statement": "select pg_sleep(600)"})
    sleeping = (
        "select count(*) from pg_stat_activity where query = 'select pg_sleep(600)' and datname = current_database()"
    )
    until(lambda: conn.execute(sleeping).fetchone() == (1,))
    queue.cancel(job_id)
    until(lambda: conn.execute(sleeping).fetchone() == (0,), 10)


def test_a_stop_ends_the_process_and_releases_its_job_after_that(
    queue: JobQueue, registry: Registry, tmp_path: Path
) -> None:
    job(registry=registry, isolate="process")(isolated.be_deaf)
    job_id = queue.enqueue("be_deaf", {"path": str(tmp_path / "pid")})
    worker = Worker(queue, registry=registry)
    worker.start()
    pid = int(read_when_written(tmp_path / "pid"))
    began = time.monotonic()
    worker.stop(grace=0.5)
    assert time.monotonic() - began < 0.5 + 5
    assert not is_alive(pid)
    found = queue.get_job(job_id)
    assert found is not None
    assert (found.status, found.attempts, found.error) == (JobStatus.PENDING, 0, None)


def pipes() -> int:
    """How many ends of pipes this process has."""
    found = 0
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += str(fd.readlink()).startswith("pipe:")
    return found


@pytest.mark.slow
def test_fifty_at_once_leave_nothing(queue: JobQueue, registry: Registry, tmp_path: Path) -> None:
    job(registry=registry, isolate="process", timeout=3, max_retries=0)(isolated.wait)
    job(registry=registry, isolate="process", max_retries=0)(isolated.exit_silently)
    handlers = JobQueue(queue.storage, registry=registry)
    ids = [handlers.enqueue(isolated.wait, {"path": str(tmp_path / str(number))}) for number in range(25)]
    ids += [handlers.enqueue(isolated.exit_silently) for _ in range(25)]
    worker = Worker(queue, registry=registry, concurrency=50)
    worker.start()
    before = pipes()
    try:
        until(lambda: queue.counts()[JobStatus.FAILED] == len(ids), 120)
    finally:
        worker.stop()
    assert pipes() == before
    children = {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}
    assert not [pid for pid in children if not is_alive(int(pid))]  # no zombie
    assert not [pid for pid in children if "pgjobq.worker.child" in Path(f"/proc/{pid}/cmdline").read_text()]
