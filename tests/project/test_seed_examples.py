"""Runs our Worker on the Redis storage of DBJobQ's page, which has only the seven abstract methods.

As it is on the page, the storage never returns a job: it looks the job up under the text of a Python bytes object, and
it parses as JSON the status that its script wrote as plain text. With fixes for these two errors it works. It still
does not count attempts, so a job that raises is retried for ever.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.until import until
from services import Valkey

from pgjobq import Fail, Job, JobQueue, JobStatus, Registry, Retry, Unsupported, Worker, job
from pgjobq.storage.base import BaseStorage

PAGE = Path(__file__).parent / "seed" / "redis_storage.py.txt"  # an exact copy
FIXES = {
    "        # Fetch job data\n": "        job_id = job_id.decode()\n",
    "json.loads(v.decode())": "read(v)",
}
Make = Callable[[dict[str, str]], BaseStorage]


def read(value: bytes) -> Any:
    """Parse a value as JSON, or return its text if it is not JSON."""
    try:
        return json.loads(value)
    except ValueError:
        return value.decode()


@pytest.fixture
def make(own_server: Callable[..., Valkey]) -> Iterator[Make]:
    """Return a function that creates the page's storage with these fixes, on one server."""
    server = own_server(Valkey)
    made: list[Any] = []

    def make(fixes: dict[str, str]) -> BaseStorage:
        text = PAGE.read_text().replace("dbjobq", "pgjobq")
        for old, new in fixes.items():
            assert old in text
            text = text.replace(old, new)
        namespace: dict[str, Any] = {"read": read}
        exec(compile(text, str(PAGE), "exec"), namespace)  # noqa: S102  # our own text
        made.append(namespace["RedisStorage"](server.url))
        storage: BaseStorage = made[-1]
        return storage

    yield make
    for storage in made:
        storage.redis.close()


@pytest.mark.parametrize(("missing", "error"), [(0, TypeError), (1, ValueError)])
def test_example_returns_no_job_without_each_of_the_fixes(make: Make, missing: int, error: type[Exception]) -> None:
    storage = make(dict([*FIXES.items()][:missing]))
    storage.enqueue("a", "t", {})
    with pytest.raises(error):
        storage.dequeue()


def test_worker_runs_jobs_on_the_example(make: Make, registry: Registry) -> None:
    storage = make(FIXES)
    queue = JobQueue(storage, registry=registry)
    seen: list[tuple[str, Any]] = []
    tried = threading.Event()

    @job(registry=registry)
    def greet(name: str) -> None:
        seen.append(("greet", name))

    @job(registry=registry)
    async def greet_async(job: Job) -> None:
        seen.append(("async", job.id))

    @job(registry=registry)
    def again() -> None:
        if not tried.is_set():
            tried.set()
            raise Retry(0.05)
        seen.append(("again", None))

    @job(registry=registry)
    def broken() -> None:
        raise Fail("no good")

    queue.enqueue(greet, {"name": "Ada"})
    ids = [queue.enqueue(greet_async), queue.enqueue(again), queue.enqueue(broken), queue.enqueue(greet, {"name": "é"})]
    worker = Worker(storage, registry=registry)
    worker.start()
    try:
        until(lambda: len(queue.get_completed_jobs()) == 4 and len(queue.get_failed_jobs()) == 1)
    finally:
        worker.stop()
    assert sorted(seen, key=str) == [("again", None), ("async", ids[0]), ("greet", "Ada"), ("greet", "é")]
    failed = queue.get_job(ids[2])
    assert failed is not None
    assert "no good" in (failed.error or "")
    assert queue.counts() == dict.fromkeys(JobStatus, 0) | {JobStatus.COMPLETED: 4, JobStatus.FAILED: 1}
    with pytest.raises(Unsupported, match="RedisStorage cannot cancel jobs"):
        queue.cancel(ids[0])
