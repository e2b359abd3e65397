"""Attempts, failures, redrive, edit and actions, from Python and the command line."""

from __future__ import annotations

import signal
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from helpers.cli import NOT_DONE, NOT_FOUND, USAGE, Cli
from helpers.until import until

from pgjobq import (
    Fail,
    InvalidJob,
    JobNotFound,
    JobQueue,
    JobStatus,
    LostJob,
    Registry,
    Unsupported,
    Worker,
    job,
    open_storage,
)
from pgjobq.postgres import history

Connection = psycopg.Connection[Any]


def fail_jobs(queue: JobQueue, *orders: int, job_type: str = "pay") -> list[str]:
    """Jobs that a worker has failed."""
    registry = Registry()

    @job(type=job_type, registry=registry)
    def pay(order: int) -> None:
        raise Fail(f"order {order} is not payable")

    ids = [str(queue.enqueue(job_type, {"order": order})) for order in orders]
    Worker(queue, registry=registry).run_once()
    assert {queue.storage.get_job(job_id).status for job_id in ids} == {JobStatus.FAILED}  # type: ignore[union-attr]
    return ids


# -- attempts ---------------------------------------------------------------------------------------


def test_a_worker_says_how_each_try_ended(queue: JobQueue, registry: Registry, conn: Connection) -> None:
    @job(registry=registry, timeout=0.1, backoff=lambda _: 0.0)
    def flaky(job: Any) -> str | None:
        if job.attempts == 1:
            raise ValueError("a\0b")
        if job.attempts == 2:
            while not job.lost:
                pass
        return None

    job_id = queue.enqueue("flaky")
    assert queue.attempts(job_id) == []
    with_timeout = Worker(queue, registry=registry, grace=5)
    with_timeout.start()
    until(lambda: queue.storage.get_job(job_id).status == "completed")  # type: ignore[union-attr]
    with_timeout.stop()
    tries = queue.attempts(job_id)
    found = [(row["attempt"], row["outcome"], row["error_class"]) for row in tries]
    assert found == [(1, "raised", "ValueError"), (2, "timed out", "JobTimeout")]
    assert tries[0]["error"].startswith("ValueError: a\\0b\n")
    assert all(row["started_at"] <= row["ended_at"] and row["worker"] for row in tries)


def test_the_end_of_the_grace_keeps_the_try_of_what_ran(queue: JobQueue, registry: Registry, conn: Connection) -> None:
    began = threading.Event()

    @job(registry=registry)
    def hold(job: Any) -> None:
        began.set()
        while not job.lost:
            pass

    job_id = queue.enqueue("hold")
    worker = Worker(queue, registry=registry, grace=0)
    worker.start()
    assert began.wait(20)
    worker.stop()
    assert [(row["outcome"], row["error"]) for row in queue.attempts(job_id)] == [("released", None)]
    assert conn.execute("select status, attempts from jobs").fetchall() == [("pending", 0)]


def test_a_killed_try_has_its_row_with_the_name_of_its_worker(cli: Cli, queue: JobQueue, conn: Connection) -> None:
    process = cli.start("worker", "handlers", "--concurrency", "1")
    job_id = queue.enqueue("hold", {"name": "first"})
    until((cli.folder / "first.began").exists)
    ((name,),) = conn.execute("select name from workers").fetchall()
    process.send_signal(signal.SIGKILL)
    process.wait()
    until(lambda: queue.storage.rescue() or queue.attempts(job_id))
    (row,) = queue.attempts(job_id)
    assert (row["outcome"], row["worker"], row["error_class"]) == ("worker died", name, "WorkerDied")
    shown = cli.said("show", job_id)
    assert "Tries that did not succeed" in shown
    assert name in shown
    assert cli.json("show", job_id)["tries"][0]["outcome"] == "worker died"


def test_a_process_that_dies_is_a_worker_that_died(cli: Cli, queue: JobQueue) -> None:
    (cli.folder / "dying.py").write_text(
        "import os\nfrom pgjobq import job\n\n@job(isolate='process', max_retries=0)\ndef die() -> None:\n    os._exit(3)\n"
    )
    cli.start("worker", "dying")
    job_id = queue.enqueue("die", max_retries=0)
    until(queue.get_failed_jobs)
    (row,) = queue.attempts(job_id)
    assert (row["outcome"], row["error_class"]) == ("worker died", "ProcessDied")


# -- failures and redrive ---------------------------------------------------------------------------


def test_failures_and_retry_by_fingerprint(cli: Cli, queue: JobQueue) -> None:
    fail_jobs(queue, 1, 2)
    (other,) = fail_jobs(queue, 3, job_type="ship")
    groups = cli.json("failures")
    assert [(group["type"], group["jobs"], group["message"]) for group in groups] == [
        ("ship", 1, "Fail: order 3 is not payable"),
        ("pay", 2, "Fail: order 2 is not payable"),
    ]
    assert "Fail: order 2 is not payable" in cli.said("failures")
    words = ("retry", "--failed", "--fingerprint", groups[1]["fingerprint"])
    assert cli.said(*words, "--dry-run") == "2 jobs match\n"
    assert len(queue.get_failed_jobs()) == 3
    assert cli.complaint(USAGE, *words).startswith("pgjobq: --yes: ")
    assert cli.said(*words, "--yes", "--reason", "order desk is open") == "2 jobs retried\n"
    assert [found.id for found in queue.get_failed_jobs()] == [other]
    (action,) = cli.json("actions")
    assert (action["action"], action["jobs"], action["reason"]) == ("retry", 2, "order desk is open")
    assert "order desk is open" in cli.said("actions")
    assert cli.said("retry", "--failed", "--yes") == "1 jobs retried\n"


def test_retry_with_a_spread_and_a_patch(cli: Cli, queue: JobQueue) -> None:
    ids = fail_jobs(queue, 1, 2)
    words = ("--spread", "1h", "--starting-at", "2999-01-01T00:00Z", "--data-patch", '{"order": 9}', "--max", "1")
    assert cli.said("retry", "--failed", "--type", "pay", "--yes", *words) == "1 jobs retried\n"
    (retried,) = queue.get_pending_jobs()
    assert (retried.id, retried.data) == (ids[0], {"order": 9})
    assert retried.execute_at is not None
    assert datetime(2999, 1, 1, tzinfo=UTC) <= retried.execute_at <= datetime(2999, 1, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ((), USAGE, "use the ids of jobs, or else --failed"),
        (("x", "--failed"), USAGE, "use the ids of jobs, or else --failed"),
        (("x", "--spread", "1h"), USAGE, "--spread: this option goes with --failed"),
        (("--failed", "--delay", "5"), USAGE, "--delay: this option goes with ids"),
        (("--failed", "--type", "x", "--spread", "soon"), USAGE, "--spread: 'soon' is not a time"),
        (("--failed", "--type", "x", "--data-patch", "[]", "--yes"), USAGE, "--data-patch: '[]' is no JSON object"),
        (("--failed", "--type", "x", "--data-patch", "{", "--yes"), USAGE, "--data-patch: "),
        (("--failed", "--failed-since", "soon", "--yes"), USAGE, "--failed-since: 'soon' is not a time"),
    ],
)
def test_retry_refuses(cli: Cli, words: tuple[str, ...], status: int, says: str) -> None:
    assert cli.complaint(status, "retry", *words).startswith(f"pgjobq: {says}")


def test_retry_jobs_goes_on_in_batches(queue: JobQueue, conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "BATCH", 7)
    conn.execute(
        """insert into jobs (type, data, status, failed_at, finished_at)
           select 'x', '{}', 'failed', now(), now() from generate_series(1, 50)"""
    )
    assert queue.retry_jobs(type="x", max_jobs=20, spread=60) == 20
    assert queue.retry_jobs(type="x", dry_run=True) == 30
    assert queue.retry_jobs(failed_until=datetime.now(UTC) + timedelta(hours=1)) == 30
    assert [action["jobs"] for action in queue.actions()] == [30, 20]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "queue: say which failed jobs"),
        ({"type": "x", "spread": -1}, "spread: -1 is not allowed"),
        ({"type": "x", "spread": "1h"}, "spread: '1h' is not allowed"),
        ({"type": "x", "max_jobs": 0}, "max_jobs: 0 is not allowed"),
        ({"failed_since": datetime(2020, 1, 1)}, "failed_since: .* has no time zone"),  # noqa: DTZ001  # what is refused
        ({"type": "x", "data_patch": {"a": object()}}, "data_patch.a: object cannot be stored as JSON"),
        ({"type": "x", "reason": ""}, "reason: "),
        ({"fingerprint": ""}, "fingerprint: "),
    ],
)
def test_retry_jobs_refuses(queue: JobQueue, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidJob, match=f"^{says}"):
        queue.retry_jobs(**options)


# -- edit -------------------------------------------------------------------------------------------


def test_edit(cli: Cli, queue: JobQueue) -> None:
    job_id = queue.enqueue("x", {"a": 1}, priority=3)
    assert cli.said("edit", job_id, "--data", '{"b": 2}', "--queue", "mail", "--reason", "wrong") == f"{job_id}\n"
    edited = queue.get_job(job_id)
    assert edited is not None
    assert (edited.data, edited.queue, edited.priority) == ({"b": 2}, "mail", 3)
    assert queue.actions()[0]["reason"] == "wrong"
    assert cli.complaint(NOT_FOUND, "edit", "none", "--priority", "1") == "pgjobq: there is no job 'none'\n"
    assert cli.complaint(USAGE, "edit", job_id).startswith("pgjobq: --data: nothing to change; give data, queue")
    queue.cancel(job_id)
    says = f"pgjobq: job {job_id} is cancelled; only a pending job can be edited; "
    assert cli.complaint(NOT_DONE, "edit", job_id, "--priority", "1").startswith(says)
    with pytest.raises(LostJob):
        queue.edit_job(job_id, priority=1)
    with pytest.raises(JobNotFound):
        queue.edit_job("none", priority=1)


# -- other storages ---------------------------------------------------------------------------------


def test_other_storages_retry_by_a_walk_and_name_what_they_cannot(cli: Cli) -> None:
    with JobQueue(open_storage("sqlite:///:memory:")) as queue:
        first, _ = fail_jobs(queue, 1, 2)
        fail_jobs(queue, 3, job_type="ship")
        assert queue.retry_jobs(type="pay", dry_run=True) == 2
        assert queue.retry_jobs(type="pay", max_jobs=1, spread=3600) == 1
        (retried,) = queue.get_pending_jobs()
        assert retried.id == first
        assert retried.execute_at is not None
        assert timedelta(minutes=29) < retried.execute_at - datetime.now(UTC) < timedelta(minutes=31)
        assert queue.retry_jobs(failed_since=datetime(2020, 1, 1, tzinfo=UTC)) == 2
        for call in (
            lambda: queue.retry_jobs(fingerprint="x"),
            lambda: queue.retry_jobs(type="x", data_patch={}),
            lambda: queue.attempts("x"),
            queue.failures,
            queue.actions,
            lambda: queue.edit_job("x", priority=1),
        ):
            with pytest.raises(Unsupported, match="SQLAlchemyStorage"):
                call()
    url = f"sqlite:///{cli.folder}/jobs.db"
    job_id = cli.said("enqueue", "x", "--dsn", url).strip()
    assert "Tries" not in cli.said("show", job_id, "--dsn", url)
