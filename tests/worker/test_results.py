"""What handlers return becomes the results of their jobs, or the job fails and its error says why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers.working import finished

from pgjobq import (
    BaseStorage,
    ConfigurationError,
    JobNotFound,
    JobQueue,
    JobStatus,
    Registry,
    Worker,
    job,
    open_storage,
)
from pgjobq.storage.postgres_storage import PostgresStorage

Connection = psycopg.Connection[Any]
Start = Callable[..., Worker]


@pytest.fixture
def start(make_storage: Callable[..., PostgresStorage], registry: Registry) -> Iterator[Start]:
    """Starts workers; stopped at the end."""
    made: list[Worker] = []

    def make(storage: BaseStorage | None = None, **options: Any) -> Worker:
        made.append(Worker(storage or make_storage(), registry=registry, **options))
        made[-1].start()
        return made[-1]

    yield make
    for worker in made:
        worker.stop()


def in_itself() -> list[Any]:
    inner: list[Any] = []
    inner.append(inner)
    return inner


@pytest.mark.parametrize("value", [3, 0, False, "", [], {"a": [1.5, None]}, (1, 2)])
def test_value_is_kept(queue: JobQueue, registry: Registry, start: Start, value: Any) -> None:
    @job(registry=registry)
    def sync() -> Any:
        return value

    @job(registry=registry)
    async def waits() -> Any:
        return value

    start()
    for kind in (sync, waits):
        assert finished(queue, queue.enqueue(kind)).result == (list(value) if isinstance(value, tuple) else value)


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "nan": (lambda: {"x": float("nan")}, "result.x: nan is not a JSON number"),
    "nul": (lambda: ["a\0b"], r"result[0]: contains a NUL character"),
    "set": (lambda: {1}, "result: set cannot be stored as JSON"),
    "itself": (in_itself, "nested too deeply, or contains itself"),
    "key": (lambda: {1: 2}, "result: key 1 is not a string"),
    "large": (lambda: "x" * 1_000_000, "result: has 1000002 bytes, more than pgjobq.max_result_bytes = 1000000"),
}


@pytest.mark.parametrize("kind", BAD)
def test_value_that_cannot_be_kept_fails_the_job_at_once(
    queue: JobQueue, registry: Registry, start: Start, kind: str
) -> None:
    make, says = BAD[kind]

    @job(registry=registry, max_retries=3)
    def bad() -> Any:
        return make()

    @job(registry=registry)
    def good() -> str:
        return "kept"

    queue.enqueue_many([queue.new_job(bad, job_id="bad"), *(queue.new_job(good, job_id=f"g{n}") for n in range(5))])
    start()
    found = finished(queue, "bad")
    assert (found.status, found.attempts, found.result) == (JobStatus.FAILED, 1, None)
    assert says in str(found.error)
    assert "Traceback" not in str(found.error)
    assert [finished(queue, f"g{n}").result for n in range(5)] == ["kept"] * 5


def test_value_that_is_not_wanted_may_be_anything(queue: JobQueue, registry: Registry, start: Start) -> None:
    @job(registry=registry, keep_result=False)
    def dropped() -> Any:
        return {1}

    start()
    found = finished(queue, queue.enqueue(dropped))
    assert (found.status, found.result) == (JobStatus.COMPLETED, None)
    with pytest.raises(ConfigurationError, match="keep_result: 1 is not allowed"):
        job(registry=registry, keep_result=1)(in_itself)  # type: ignore[call-overload]


@pytest.mark.parametrize("where", ["postgres", "sqlite"])
def test_result_of_a_transaction(
    make_storage: Callable[..., PostgresStorage], registry: Registry, start: Start, where: str, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    storage = make_storage() if where == "postgres" else open_storage(f"sqlite:///{tmp_path}/jobs.db")
    queue = JobQueue(storage, registry=registry)

    @job(registry=registry)
    def told(job: Any) -> str:
        transaction = job.transaction()
        with transaction:
            transaction.result = {"rows": [1, 2]}
        assert transaction.result == {"rows": [1, 2]}
        return "dropped"

    @job(registry=registry)
    def untold(job: Any) -> str:
        with job.transaction():
            pass
        return "dropped"

    @job(registry=registry)
    def wrong(job: Any) -> None:
        transaction = job.transaction()
        with transaction:
            transaction.result = {1}

    start(storage)
    assert finished(queue, queue.enqueue(told)).result == {"rows": [1, 2]}
    assert "job.result_dropped" not in caplog.text
    assert finished(queue, queue.enqueue(untold)).result is None
    assert "job.result_dropped" in caplog.text
    found = finished(queue, queue.enqueue(wrong))
    assert (found.status, found.attempts) == (JobStatus.FAILED, 1)
    assert "result: set cannot be stored as JSON" in str(found.error)


def test_result_of_a_transaction_that_is_too_large_rolls_it_back(
    queue: JobQueue, registry: Registry, start: Start, conn: Connection
) -> None:
    conn.execute("create table public.effects (n integer)")

    @job(registry=registry)
    def large(job: Any) -> None:
        transaction = job.transaction()
        with transaction as inside:
            inside.execute("insert into public.effects values (1)")
            transaction.result = "x" * 1_000_000

    start()
    found = finished(queue, queue.enqueue(large))
    assert (found.status, found.attempts) == (JobStatus.FAILED, 1)
    assert "result: has 1000002 bytes" in str(found.error)
    assert conn.execute("select count(*) from public.effects").fetchone() == (0,)


def test_worker_that_keeps_no_jobs_keeps_no_results(
    queue: JobQueue, registry: Registry, start: Start, conn: Connection
) -> None:
    @job(registry=registry)
    def gone() -> int:
        return 1

    queue.storage.keep_completed = False
    start(queue.storage)
    with pytest.raises(JobNotFound, match="keep=0"):
        queue.call_and_wait(gone, timeout=20)
    assert conn.execute("select count(*) from results").fetchone() == (0,)


@pytest.mark.parametrize("name", ["sqlite"])
def test_other_storages_limit_results(registry: Registry, start: Start, tmp_path: Path, name: str) -> None:
    storage = open_storage(f"{name}:///{tmp_path}/jobs.db")

    @job(registry=registry)
    def large() -> str:
        return "x" * 1_000_000

    start(storage)
    found = finished(JobQueue(storage, registry=registry), JobQueue(storage, registry=registry).enqueue(large))
    assert (found.status, found.attempts) == (JobStatus.FAILED, 1)
    assert "result: it has 1000002 bytes, more than max_result_bytes = 1000000" in str(found.error)


@job(registry=(ISOLATED := Registry()), isolate="process")
def in_a_process(bad: bool = False) -> Any:
    return {1} if bad else {"é": [1, None]}


def test_result_of_an_isolated_handler(make_storage: Callable[..., PostgresStorage]) -> None:
    queue = JobQueue(make_storage(), registry=ISOLATED)
    worker = Worker(make_storage(), registry=ISOLATED)
    worker.start()
    try:
        assert queue.call_and_wait(in_a_process, timeout=60) == {"é": [1, None]}
        found = queue.wait_for(queue.enqueue(in_a_process, {"bad": True}), 60)
        assert (found.status, found.attempts) == (JobStatus.FAILED, 1)
        assert "result: set cannot be stored as JSON" in str(found.error)
    finally:
        worker.stop()
