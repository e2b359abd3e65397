"""What handlers with capture_logs log is kept, whatever it is and wherever they run."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from helpers import isolated
from helpers.memory_storages import DictStorage
from helpers.until import until
from helpers.working import finished

from pgjobq import ConfigurationError, JobQueue, JobStatus, Registry, RunningJob, Unsupported, Worker, job
from pgjobq.reports import MAX_LOG
from pgjobq.storage.postgres_storage import PostgresStorage
from pgjobq.worker.capturing import HANDLER

Connection = psycopg.Connection[Any]
app = logging.getLogger("app.tasks")


@pytest.fixture(autouse=True)
def informed() -> Iterator[None]:
    """The logger of the handlers passes on lines of level INFO."""
    app.setLevel(logging.INFO)
    yield
    app.setLevel(logging.NOTSET)
    logging.root.removeHandler(HANDLER)


def run(queue: JobQueue, registry: Registry, job_type: str = "log") -> list[dict[str, Any]]:
    """Run a job of this type to its end, and return its lines."""
    job_id = queue.enqueue(job_type)
    Worker(queue, registry=registry).run_once()
    finished(queue, job_id)
    return queue.logs(job_id)


def texts(lines: list[dict[str, Any]]) -> list[str]:
    return [line["line"] for line in lines]


@pytest.mark.parametrize("kind", ["sync", "async", "process"])
def test_every_kind_of_handler_is_captured(queue: JobQueue, registry: Registry, kind: str) -> None:
    if kind == "async":

        @job(registry=registry, type="log", capture_logs=True)
        async def log() -> None:
            await asyncio.to_thread(isolated.log_twice)
    else:
        isolate: Any = "process" if kind == "process" else None
        job(registry=registry, type="log", capture_logs=True, isolate=isolate)(isolated.log_twice)
    found = run(queue, registry)
    assert texts(found) == ["one of 2", "two"]
    assert [(line["attempt"], line["level"], line["logger"], line["seq"]) for line in found] == [
        (1, "INFO", "app.tasks", 1),
        (1, "ERROR", "app.tasks", 2),
    ]
    assert found[0]["logged_at"] <= found[1]["logged_at"]
    assert found[0]["logged_at"].utcoffset() is not None


def test_only_handlers_that_opt_in_are_captured(queue: JobQueue, registry: Registry) -> None:
    @job(registry=registry)
    def log() -> None:
        app.info("no")

    assert run(queue, registry) == []


def test_jobs_that_run_at_once_keep_their_own_lines(
    queue: JobQueue, registry: Registry, make_storage: Callable[..., PostgresStorage]
) -> None:
    meet = threading.Barrier(2, timeout=20)

    @job(registry=registry, capture_logs=True)
    def log(n: int) -> None:
        for _ in range(20):
            meet.wait()
            app.info("n %s", n)

    ids = [queue.enqueue("log", {"n": n}) for n in (1, 2)]
    worker = Worker(make_storage(), registry=registry)
    worker.start()
    for n, job_id in enumerate(ids, 1):
        finished(queue, job_id)
        assert texts(queue.logs(job_id)) == [f"n {n}"] * 20
    worker.stop()


def test_lines_are_seen_while_the_handler_runs(
    queue: JobQueue, registry: Registry, make_storage: Callable[..., PostgresStorage]
) -> None:
    go_on = threading.Event()

    @job(registry=registry, capture_logs=True)
    def log() -> None:
        app.info("before")
        go_on.wait(20)
        app.info("after")

    job_id = queue.enqueue("log")
    worker = Worker(make_storage(), registry=registry)
    worker.start()
    assert texts(until(lambda: queue.logs(job_id))) == ["before"]
    go_on.set()
    finished(queue, job_id)
    assert texts(queue.logs(job_id)) == ["before", "after"]  # at once, because it is written before the settle
    worker.stop()


def test_each_try_has_its_lines(queue: JobQueue, registry: Registry) -> None:
    @job(registry=registry, capture_logs=True, backoff=lambda _: 0.0)
    def log(job: RunningJob) -> None:
        app.info("try %s", job.attempts)
        if job.attempts == 1:
            raise ValueError("again")

    found = run(queue, registry)
    assert [(line["attempt"], line["line"]) for line in found] == [(1, "try 1"), (2, "try 2")]


def test_lines_of_a_handler_that_completes_its_job_itself_are_kept(
    queue: JobQueue, registry: Registry, make_storage: Callable[..., PostgresStorage]
) -> None:
    @job(registry=registry, capture_logs=True)
    def log(job: RunningJob) -> None:
        with job.transaction():
            app.info("inside")

    job_id = queue.enqueue("log")
    worker = Worker(make_storage(), registry=registry)
    worker.start()
    finished(queue, job_id)
    worker.stop()
    assert texts(queue.logs(job_id)) == ["inside"]


class Angry:
    """Cannot be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no")


class Chatty:
    """Logs when it is printed, also in another thread that waits for its lines."""

    def __str__(self) -> str:
        app.info("nested")
        thread = threading.Thread(target=app.info, args=("in a thread",))
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
        return "chatty"


def test_no_line_harms_the_handler(
    queue: JobQueue, registry: Registry, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)

    @job(registry=registry, capture_logs=True, max_retries=0)
    def log() -> None:
        HANDLER.handle(logging.makeLogRecord({"name": "app", "msg": "%s", "args": (Angry(),), "created": "never"}))
        HANDLER.handle(logging.makeLogRecord({"name": "app", "msg": Angry(), "levelname": 7}))
        HANDLER.handle(logging.makeLogRecord({"name": "app", "msg": "%d", "args": ("x",)}))
        HANDLER.handle(logging.makeLogRecord({"name": "app", "msg": "%s", "args": (Chatty(),)}))
        HANDLER.handle(logging.makeLogRecord({"name": "app", "msg": "a\0b \ud800 \x1b[31m"}))
        try:
            raise ValueError("caught")
        except ValueError:
            app.exception("it failed")
        gc.collect()

    found = texts(run(queue, registry))
    assert conn.execute("select status, error from pgjobq.jobs").fetchall() == [("completed", None)]
    assert len(found) == 6
    assert found[2] == "%d"
    assert found[3] == "chatty"
    assert found[4] == "a\\0b \\ud800 \x1b[31m"
    assert found[5].startswith("it failed\nTraceback")
    assert found[5].endswith("ValueError: caught")


def test_a_try_keeps_64_kib_and_says_that_the_rest_was_cut(queue: JobQueue, registry: Registry) -> None:
    @job(registry=registry, capture_logs=True)
    def log() -> None:
        app.info("first")
        for _ in range(10_000):
            app.info("")
        app.info("x" * 200_000)

    @job(registry=registry, capture_logs=True)
    def long() -> None:
        app.info("é" * 200_000)
        app.info("after")

    for job_type in ("log", "long"):
        *kept, last = run(queue, registry, job_type)
        assert last["line"] == f"the rest of the lines was cut, because a try keeps {MAX_LOG} bytes"
        assert sum(len(line["line"].encode()) for line in kept) <= MAX_LOG
        assert len(kept) <= MAX_LOG // 50 + 1
    assert len(kept[0]["line"].encode()) == MAX_LOG


def test_a_storage_without_logs_runs_the_handler(registry: Registry) -> None:
    @job(registry=registry, capture_logs=True)
    def log() -> None:
        app.info("dropped")

    queue = JobQueue(DictStorage())
    job_id = queue.enqueue("log")
    Worker(queue, registry=registry).run_once()
    assert finished(queue, job_id).status is JobStatus.COMPLETED
    with pytest.raises(Unsupported, match="logs: DictStorage"):
        queue.logs(job_id)


def test_capture_logs_must_be_a_bool(registry: Registry) -> None:
    with pytest.raises(ConfigurationError, match="capture_logs: 1 is not allowed"):
        job(registry=registry, capture_logs=1)(lambda: None)  # type: ignore[call-overload]


PROGRAM = """
import logging
from pgjobq.worker.capturing import start_capture
logging.getLogger("a").warning("before")
kept = []
start_capture(kept.append)
logging.getLogger("a").warning("during")
logging.getLogger("a").info("quiet")
print([line.text for line in kept])
"""


def test_a_program_without_handlers_prints_its_warnings_as_before() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=30)
    assert done.stderr.splitlines() == ["before", "during"]
    assert done.stdout == "['during']\n"
