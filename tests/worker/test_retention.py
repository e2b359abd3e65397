"""How long finished jobs are kept: Worker(keep=...), `pgjobq worker --keep`, and pruning in the storage."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers.memory_storages import DictStorage
from helpers.until import until

from pgjobq import ConfigurationError, Fail, JobNotFound, JobQueue, LostJob, NewJob, Registry, Worker, job
from pgjobq.postgres import pruning
from pgjobq.storage.base import Completed, Failed, Retried
from pgjobq.storage.postgres_storage import PostgresStorage

Connection = psycopg.Connection[Any]
MakeStorage = Callable[..., PostgresStorage]
AGED = """update jobs set created_at = created_at - interval '9 days', finished_at = finished_at - interval '8 days'
           where status in ('completed', 'failed', 'cancelled')"""


def finish(storage: PostgresStorage, completed: int = 0, failed: int = 0, cancelled: int = 0) -> None:
    """Add this many jobs of each finished status."""
    names = [*(f"done-{n}" for n in range(completed)), *(f"failed-{n}" for n in range(failed))]
    storage.enqueue_many([NewJob(type="t", id=name) for name in names])
    jobs = storage.dequeue_many(len(names))
    storage.settle([Completed(job) if job.id.startswith("done") else Failed(job, "no luck") for job in jobs])
    for n in range(cancelled):
        storage.enqueue(f"cancelled-{n}", "t", {})
        storage.cancel(f"cancelled-{n}")


def ids(storage: PostgresStorage) -> list[str]:
    return sorted(job.id for job in storage.list_jobs())


# -- the storage ------------------------------------------------------------------------------------


def test_completed_job_is_deleted_if_completed_jobs_are_not_kept(storage: PostgresStorage) -> None:
    storage.keep_completed = False
    finish(storage, completed=2, failed=1, cancelled=1)
    assert ids(storage) == ["cancelled-0", "failed-0"]
    storage.enqueue("a", "t", {})
    assert storage.dequeue() is not None
    storage.complete("a")
    assert storage.get_job("a") is None
    with pytest.raises(JobNotFound):
        storage.complete("a")
    storage.enqueue("a", "t", {})  # the id is free again
    assert ids(storage) == ["a", "cancelled-0", "failed-0"]


def test_settling_a_deleted_job_again_is_not_a_loss(storage: PostgresStorage, conn: Connection) -> None:
    storage.keep_completed = False
    storage.enqueue_many([NewJob(type="t", id=name) for name in "abc"])
    jobs = storage.dequeue_many(3)
    conn.execute("select cancel_job('c')")
    for _ in range(2):
        lost = storage.settle([Completed(job) for job in jobs])
        assert [outcome.job.id for outcome in lost] == ["c"]
    assert [outcome.job.id for outcome in storage.settle([Retried(jobs[0], 0, None)])] == ["a"]
    assert ids(storage) == ["c"]
    assert conn.execute("select count(*) from claims").fetchone() == (0,)


def test_transaction_of_a_handler_is_refused_if_its_job_is_deleted(storage: PostgresStorage, conn: Connection) -> None:
    """If the job is gone, another worker has run it, so the handler's writes must not be committed."""
    storage.keep_completed = False
    conn.execute("create table written (n int)")
    storage.enqueue_many([NewJob(type="t", id=name) for name in "ab"])
    a, b = storage.dequeue_many(2)
    with storage.transaction(a) as own:
        own.execute("insert into pgjobq.written values (1)")
    assert [job.status for job in storage.list_jobs() if job.id == "a"] == ["completed"]  # prune_some deletes it later
    conn.execute("delete from jobs where id = 'b'")
    with pytest.raises(LostJob), storage.transaction(b) as own:
        own.execute("insert into pgjobq.written values (2)")
    assert conn.execute("select n from written").fetchall() == [(1,)]


def test_prune_some_deletes_one_batch_per_call(
    storage: PostgresStorage, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "BATCH", 4)
    finish(storage, completed=9, failed=2, cancelled=1)
    conn.execute(AGED)
    finish_young = [NewJob(type="t", id="young")]
    storage.enqueue_many(finish_young)
    assert storage.dequeue() is not None
    storage.complete("young")
    week = timedelta(days=7)
    rounds = [storage.prune_some(week) for _ in range(4)]
    assert [some.jobs for some in rounds] == [4, 4, 2, 0]
    assert all(some.again_in < pruning.ROUND for some in rounds[:2])
    assert [some.again_in for some in rounds[2:]] == [pruning.ROUND] * 2
    assert ids(storage) == ["failed-0", "failed-1", "young"]


def test_prune_some_later_finds_jobs_that_it_skipped(
    storage: PostgresStorage, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.enqueue("late", "t", {})
    conn.execute("update jobs set created_at = created_at - interval '9 days'")
    week = timedelta(days=7)
    assert storage.prune_some(week).jobs == 0
    assert storage.dequeue() is not None
    storage.complete("late")
    conn.execute("update jobs set finished_at = finished_at - interval '8 days'")
    assert storage.prune_some(week).jobs == 0  # it continues after the jobs that it has seen
    monkeypatch.setattr(pruning, "SWEEP", 0.0)
    assert storage.prune_some(week).jobs == 1


def test_one_worker_prunes_at_a_time(make_storage: MakeStorage, connect: Callable[..., Connection]) -> None:
    storage = make_storage()
    finish(storage, completed=3)
    other = connect(autocommit=False)
    other.execute("select prune_jobs('1 day')")
    some = storage.prune_some(timedelta(0))
    assert some.jobs == 0
    assert 0.5 * pruning.OTHERS_TURN <= some.again_in <= 1.5 * pruning.OTHERS_TURN
    other.commit()
    assert storage.prune_some(timedelta(0)).jobs == 3


def test_prune_waits_for_its_turn(
    storage: PostgresStorage, connect: Callable[..., Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(storage, completed=3)
    other = connect(autocommit=False)
    other.execute("select prune_jobs('1 day')")
    paused: list[float] = []

    def pause(seconds: float) -> None:
        paused.append(seconds)
        other.commit()

    monkeypatch.setattr("pgjobq.postgres.pruning.time.sleep", pause)
    assert storage.prune(timedelta(0)) == 3
    assert paused == [pruning.RETRY]


# -- the worker -------------------------------------------------------------------------------------


@pytest.fixture
def start(storage: PostgresStorage, registry: Registry) -> Iterator[Callable[..., Worker]]:
    """Return a function that starts workers. They are stopped at the end."""
    workers: list[Worker] = []

    def make(**options: Any) -> Worker:
        workers.append(Worker(storage, registry=registry, grace=5, **options))
        workers[-1].start()
        return workers[-1]

    yield make
    for worker in workers:
        worker.stop()


def test_worker_with_keep_0_deletes_completed_jobs(
    storage: PostgresStorage, queue: JobQueue, registry: Registry, start: Callable[..., Worker], conn: Connection
) -> None:
    finish(storage, completed=3)  # completed before the worker started

    @job(registry=registry, max_retries=0)
    def good() -> None:
        pass

    @job(registry=registry)
    def bad() -> None:
        raise Fail("no luck")

    for n in range(50):
        queue.enqueue("good", job_id=f"good-{n}")
    queue.enqueue("bad", job_id="bad")
    start(keep=timedelta(0))
    until(lambda: ids(storage) == ["bad"])
    assert queue.get_failed_jobs()[0].id == "bad"
    until(lambda: conn.execute("select count(*) from claims").fetchone() == (0,))


def test_worker_deletes_jobs_past_the_age(
    storage: PostgresStorage, start: Callable[..., Worker], conn: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    finish(storage, completed=2500, failed=1, cancelled=1)
    conn.execute(AGED)
    storage.enqueue("young", "t", {})
    storage.cancel("young")
    with caplog.at_level(logging.INFO, "pgjobq.worker"):
        worker = start(keep=timedelta(days=7))
        until(lambda: ids(storage) == ["failed-0", "young"])
        worker.stop()
    told = [record for record in caplog.records if vars(record).get("event") == "jobs.pruned"]
    assert told
    assert vars(told[0])["jobs"] > 0


def test_worker_keeps_everything_by_default(
    storage: PostgresStorage, start: Callable[..., Worker], conn: Connection
) -> None:
    finish(storage, completed=3)
    conn.execute("update jobs set created_at = '2001-01-01Z', finished_at = '2001-01-01Z'")
    worker = start()
    assert worker._pruner is None
    assert storage.keep_completed


@pytest.mark.parametrize("keep", [timedelta(seconds=-1), 7, "7d"])
def test_invalid_keep_is_refused(storage: PostgresStorage, keep: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"keep: .* is not allowed; use a timedelta"):
        Worker(storage, keep=keep)


def test_storage_without_prune_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match="keep: DictStorage cannot prune jobs"):
        Worker(DictStorage(), keep=timedelta(days=1))


# -- the command ------------------------------------------------------------------------------------

HANDLERS = """
from pgjobq import job

@job
def touch() -> None:
    pass
"""


def command(folder: Path, dsn: str, *words: str) -> subprocess.Popen[str]:
    """Start `pgjobq worker handlers` with its log on a pipe."""
    (folder / "handlers.py").write_text(HANDLERS)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    return subprocess.Popen(
        [sys.executable, "-m", "pgjobq", "worker", "handlers", "--log-json", *words],
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=kept | {"PGJOBQ_DSN": dsn},
    )


def test_command_with_keep_deletes_jobs(storage: PostgresStorage, tmp_path: Path, dsn: str, conn: Connection) -> None:
    finish(storage, completed=3, failed=1)
    conn.execute(AGED)
    storage.enqueue("new", "touch", {})
    with command(tmp_path, dsn, "--keep", "7d", "--processes", "2") as process:
        until(lambda: ids(storage) == ["failed-0", "new"])
        until(lambda: [job.status for job in storage.list_jobs() if job.id == "new"] == ["completed"])
        process.terminate()
        _, log = process.communicate(timeout=20)
    assert {"event": "jobs.pruned", "jobs": 3}.items() <= next(
        line for line in map(json.loads, log.splitlines()) if line["event"] == "jobs.pruned"
    ).items()
    storage.enqueue("newer", "touch", {})
    with command(tmp_path, dsn, "--keep", "0") as process:
        until(lambda: ids(storage) == ["failed-0"])
        process.terminate()
        assert process.wait(20) == 0
        process.communicate()


@pytest.mark.parametrize("keep", ["7", "d", "-1d", "7 d", "", "7dd", "9999999999d", "1e3s"])
def test_command_refuses_an_invalid_keep(tmp_path: Path, keep: str) -> None:
    with command(tmp_path, "postgresql://127.0.0.1:1/x", f"--keep={keep}") as process:
        assert process.wait(20) == 2
        assert process.stderr is not None
        assert process.stderr.read().startswith(f"pgjobq: --keep: {keep!r} is ")


@pytest.mark.parametrize(
    ("keep", "says"),
    [
        ("failed=7", "failed: '7' is not a time"),
        ("running=7d", "'running' is not a final status; use completed=7d,failed=30d,cancelled=7d"),
        ("failed=7d,", "'' is not a final status"),
        ("failed=7d,failed=8d", "failed is given twice; give it once"),
    ],
)
def test_command_refuses_what_is_no_time_of_a_status(tmp_path: Path, keep: str, says: str) -> None:
    with command(tmp_path, "postgresql://127.0.0.1:1/x", f"--keep={keep}") as process:
        assert process.wait(20) == 2
        assert process.stderr is not None
        assert process.stderr.read().startswith(f"pgjobq: --keep: {says}")


def test_command_keeps_by_status(dsn: str, storage: PostgresStorage, conn: Connection, tmp_path: Path) -> None:
    finish(storage, completed=1, failed=1, cancelled=1)
    conn.execute(AGED)
    with command(tmp_path, dsn, "--keep=completed=30d,failed=7d") as process:
        until(lambda: ids(storage) == ["cancelled-0", "done-0"])
        process.terminate()
        assert process.wait(20) == 0
        process.communicate()


# -- by status --------------------------------------------------------------------------------------


def test_a_worker_keeps_each_status_for_its_own_time(
    storage: PostgresStorage, start: Callable[..., Worker], conn: Connection
) -> None:
    finish(storage, completed=1, failed=2, cancelled=1)
    conn.execute(AGED)
    conn.execute("update jobs set finished_at = now() where id = 'failed-0'")
    keep = {"failed": timedelta(days=7), "completed": timedelta(days=30)}
    start(keep=keep)
    until(lambda: ids(storage) == ["cancelled-0", "done-0", "failed-0"])
    assert conn.execute("select array_agg(job_id) from attempts").fetchall() == [(["failed-0"],)]


def test_completed_0_deletes_them_as_they_complete(storage: PostgresStorage, registry: Registry) -> None:
    Worker(storage, registry=registry, keep={"failed": timedelta(0)})
    assert storage.keep_completed
    Worker(storage, registry=registry, keep={"completed": timedelta(0)})
    assert not storage.keep_completed


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"running": timedelta(1)}, "keep: 'running' is not a final status; use completed, failed, cancelled"),
        ({"failed": 7}, "keep: 7 is not allowed"),
        ({"failed": timedelta(-1)}, "keep: .* is not allowed"),
        ({}, "keep: {} is not allowed"),
    ],
)
def test_bad_keep_by_status_is_refused(storage: PostgresStorage, keep: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Worker(storage, keep=keep)


def test_keep_by_status_needs_a_storage_that_can(registry: Registry) -> None:
    class Plain(DictStorage):
        def prune_some(self, older_than: timedelta, queues: Any = None) -> Any:  # type: ignore[override]  # an old one
            raise AssertionError

    with pytest.raises(ConfigurationError, match="keep: Plain cannot prune by status"):
        Worker(Plain(), registry=registry, keep={"failed": timedelta(1)})
