"""pgjobq why, JobQueue.why, and how check reports the oldest due jobs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from helpers.cli import NOT_DONE, Cli
from helpers.until import until

from pgjobq import JobQueue, Registry, Unsupported, Worker, job, open_storage
from pgjobq.postgres import oldest
from pgjobq.postgres.doctor import examine
from pgjobq.storage.postgres_storage import PostgresStorage

Connection = psycopg.Connection[Any]


def told_by_check(dsn: str) -> str:
    (found,) = [found for found in examine(dsn, "pgjobq") if found.name == "oldest jobs"]
    assert found.ok
    return found.detail


def test_why(cli: Cli, queue: JobQueue) -> None:
    job_id = queue.enqueue("t", queue="mail")
    told = "No live worker serves the queue 'mail' (live workers: 0)."
    assert queue.why(job_id) == told
    assert cli.said("why", job_id) == f"{told}\n"
    assert cli.json("why", job_id) == {"id": job_id, "why": told}
    assert cli.said("why", "nothing").startswith("There is no job 'nothing'")


def test_why_escapes_control_characters(cli: Cli, queue: JobQueue) -> None:
    queue.pause_queue("mail", reason="\x1b[2J\nfake")
    assert r"because: \x1b[2J\nfake." in cli.said("why", queue.enqueue("t", queue="mail"))


def test_check_says_why_the_oldest_job_of_each_queue_waits(cli: Cli, queue: JobQueue, dsn: str) -> None:
    assert told_by_check(dsn) == "no due job is waiting"
    first = queue.enqueue("t", queue="mail")
    queue.enqueue("t", queue="mail")
    queue.enqueue("t", queue="later", delay=3600)
    assert f"ok    oldest jobs: queue mail, job {first}, due for " in cli.run("check").stdout
    assert told_by_check(dsn).endswith("No live worker serves the queue 'mail' (live workers: 0).")
    for n in range(oldest.QUEUES):
        queue.enqueue("t", queue=f"queue{n}")
    assert told_by_check(dsn).endswith("more queues have due jobs; see oldest_jobs")


def test_check_gives_up_in_time(
    queue: JobQueue, dsn: str, connect: Callable[..., Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oldest, "TIMEOUT", 0.1)
    other = connect(autocommit=False)
    other.execute("lock table ready")
    with psycopg.connect(dsn, autocommit=True) as conn:
        told = oldest.oldest_due(conn, "pgjobq")
    assert told is not None
    assert told.startswith("unknown, because they could not be read")


def test_other_storages_cannot_say_why(cli: Cli) -> None:
    with (
        JobQueue(open_storage("sqlite:///:memory:")) as queue,
        pytest.raises(Unsupported, match="SQLAlchemyStorage cannot say why"),
    ):
        queue.why("a")
    assert "cannot say why" in cli.complaint(NOT_DONE, "why", "a", "--dsn", "sqlite:///jobs.db")


def test_why_while_a_worker_is_busy(
    queue: JobQueue, make_storage: Callable[[], PostgresStorage], registry: Registry
) -> None:
    """A worker whose only thread is busy is not waiting for jobs, and then completes them all."""
    go = threading.Event()

    @job(registry=registry)
    def hold() -> None:
        go.wait(30)

    ids = [queue.enqueue(hold) for _ in range(2)]
    worker = Worker(make_storage(), registry=registry, concurrency=1)
    worker.start()
    try:
        until(lambda: queue.why(ids[0]).startswith("The job is running: worker "))
        waits = "No worker that serves the queue 'default' is waiting for jobs (workers: 1, jobs that they hold: 1, "
        until(lambda: queue.why(ids[1]).startswith(waits))
        go.set()
        until(lambda: queue.why(ids[1]).startswith("The job was completed at "))
    finally:
        go.set()
        worker.stop(grace=5)
