"""Limits of single queues within one worker: no queue exceeds its limit, and a full queue delays no other."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from helpers.memory_storages import DictStorage, Memory
from helpers.until import until

from pgjobq import ConfigurationError, JobQueue, Registry, Unsupported, Worker, job, open_storage
from pgjobq.storage.base import BaseStorage
from pgjobq.storage.postgres_storage import PostgresStorage
from pgjobq.worker.queue_limits import parse_queues

StartWorker = Callable[..., Worker]


class Hall:
    """Handlers that wait until the test releases them. Counts the running jobs of each queue, now and at most."""

    def __init__(self, registry: Registry) -> None:
        self.inside: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self._leave = threading.Semaphore(0)
        self._lock = threading.Lock()

        @job(registry=registry, type="stay")
        def stay(queue: str) -> None:
            self._note(queue, 1)
            self._leave.acquire(timeout=30)
            self._note(queue, -1)

        @job(registry=registry, type="stay_async")
        async def stay_async(queue: str) -> None:
            self._note(queue, 1)
            await asyncio.to_thread(self._leave.acquire, timeout=30)
            self._note(queue, -1)

        @job(registry=registry, type="pass")
        def pass_by(queue: str) -> None:
            self._note(queue, 1)
            self._note(queue, -1)

    def _note(self, queue: str, change: int) -> None:
        with self._lock:
            self.inside[queue] += change
            self.most[queue] = max(self.most[queue], self.inside[queue])
            self.done[queue] += change < 0

    def has_done(self, queue: str, jobs: int) -> bool:
        return self.done[queue] == jobs

    def release_handlers(self, jobs: int) -> None:
        self._leave.release(jobs)


@pytest.fixture
def hall(registry: Registry) -> Hall:
    return Hall(registry)


@pytest.fixture(params=["postgresql", "sqlite"])
def queue(request: pytest.FixtureRequest, dsn: str, registry: Registry, tmp_path: Any) -> Iterator[JobQueue]:
    url = dsn if request.param == "postgresql" else f"sqlite:///{tmp_path}/jobs.db"
    with JobQueue(url, registry=registry) as made:
        yield made


@pytest.fixture
def start(queue: JobQueue, registry: Registry, hall: Hall) -> Iterator[StartWorker]:
    workers: list[Worker] = []

    def make(storage: BaseStorage | None = None, **options: Any) -> Worker:
        workers.append(Worker(storage or queue, registry=registry, **options))
        workers[-1].start()
        return workers[-1]

    yield make
    hall.release_handlers(1000)
    for worker in workers:
        worker.stop(grace=5)
        worker.storage.close()


def enqueue(queue: JobQueue, name: str, jobs: int, kind: str = "stay") -> None:
    queue.enqueue_many([queue.new_job(kind, {"queue": name}, queue=name) for _ in range(jobs)])


@pytest.mark.parametrize("kind", ["stay", "stay_async"])
def test_queue_at_its_limit_does_not_delay_others(queue: JobQueue, hall: Hall, start: StartWorker, kind: str) -> None:
    enqueue(queue, "mail", 5, kind)
    enqueue(queue, "default", 9, kind)
    start(concurrency=8, queues={"mail": 2, "default": None})
    until(lambda: hall.inside == {"mail": 2, "default": 6})
    assert len(queue.get_running_jobs()) == 8  # the other jobs were not claimed
    hall.release_handlers(14)
    until(lambda: hall.done == {"mail": 5, "default": 9})
    assert hall.most["mail"] == 2


def test_queue_with_room_again_is_claimed_at_once(queue: JobQueue, hall: Hall, start: StartWorker) -> None:
    enqueue(queue, "mail", 3)
    start(concurrency=8, queues={"mail": 1, "default": 8})
    for done in range(3):
        until(lambda: hall.inside["mail"] == 1, seconds=5)
        assert len(queue.get_running_jobs()) == 1
        hall.release_handlers(1)
        until(partial(hall.has_done, "mail", done + 1))
    enqueue(queue, "mail", 1)  # the worker is asleep
    until(lambda: hall.inside["mail"] == 1, seconds=5)


def test_many_quick_jobs_stay_within_the_limits(queue: JobQueue, hall: Hall, start: StartWorker) -> None:
    for name in ("mail", "default"):
        enqueue(queue, name, 300, "pass")
    start(concurrency=8, queues={"mail": 2, "default": 4})
    until(lambda: hall.done == {"mail": 300, "default": 300}, seconds=60)
    assert hall.most["mail"] <= 2
    assert hall.most["default"] <= 4


def test_lost_and_failed_jobs_no_longer_count(
    queue: JobQueue, hall: Hall, start: StartWorker, registry: Registry
) -> None:
    raised: list[int] = []

    @job(registry=registry, type="breaks", max_retries=0)
    def breaks() -> None:
        raised.append(1)
        raise ValueError

    start(concurrency=4, queues={"mail": 1, "default": None})
    first = queue.enqueue("stay", {"queue": "mail"}, queue="mail")
    until(lambda: hall.inside["mail"] == 1)
    queue.enqueue("breaks", queue="mail", max_retries=0)
    queue.enqueue("breaks", queue="mail", max_retries=0)
    assert queue.cancel(first)
    until(lambda: len(raised) == 2)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_other_workers_take_what_a_worker_at_its_limit_leaves(
    dsn: str, registry: Registry, hall: Hall, start: StartWorker, concurrency: int
) -> None:
    """They take the jobs at once, even if the only notification woke the worker that is at its limit."""
    queue = JobQueue(dsn, registry=registry)
    storages = [PostgresStorage(dsn) for _ in range(2)]
    for storage in storages:
        start(storage, concurrency=concurrency, queues={"mail": 1, "default": None})
    until(lambda: [worker["asleep"] for worker in queue.storage.workers()] == [True, True])
    enqueue(queue, "mail", 3)
    until(lambda: hall.inside["mail"] == 2, seconds=5)
    hall.release_handlers(3)
    until(lambda: hall.done["mail"] == 3, seconds=5)
    queue.close()


@pytest.mark.parametrize(
    "limits", [{"mail": 0}, {"mail": -1}, {"mail": True}, {"mail": "2"}, {"mail": 1.5}, {"a": 1, "mail": 9}, {}]
)
def test_invalid_limits_are_refused(limits: Any, queue: JobQueue, registry: Registry) -> None:
    with pytest.raises(ConfigurationError, match=r"^queues: .*(mail|not a list)"):
        Worker(queue, registry=registry, concurrency=8, queues=limits)


def test_storage_without_queues_cannot_limit_them(registry: Registry) -> None:
    with pytest.raises(Unsupported, match=r"^queues: DictStorage has no queues"):
        Worker(DictStorage(Memory()), registry=registry, queues={"mail": 2})


@pytest.mark.parametrize(
    ("text", "queues"),
    [
        ("mail", ["mail"]),
        (" mail, default,", ["mail", "default"]),
        ("mail:2,default:8", {"mail": 2, "default": 8}),
        ("mail:2,default", {"mail": 2, "default": None}),
        ("tenant:42:8,tenant:43:", {"tenant:42": 8, "tenant:43": None}),
        ("mail:0", {"mail": 0}),  # Worker refuses this
    ],
)
def test_queues_option_is_parsed(text: str, queues: Any) -> None:
    assert parse_queues(text) == queues


@pytest.mark.parametrize("text", ["mail:x", "mail:-1", "mail:1.5", "mail:²", ":2", ":", "mail:2,mail:3", "mail: x"])
def test_invalid_queues_option_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^queues: "):
        parse_queues(text)


def test_worker_is_not_notified_of_a_queue_at_its_limit(
    dsn: str, registry: Registry, hall: Hall, start: StartWorker
) -> None:
    """The worker's row in the doorbell names only the other queues."""
    storage = open_storage(dsn)
    start(storage, concurrency=4, queues={"mail": 1, "default": None})
    queue = JobQueue(dsn, registry=registry)
    enqueue(queue, "mail", 1)
    until(lambda: hall.inside["mail"] == 1)
    rung = "select queues from pgjobq.doorbell"
    rows: Any = storage

    def queues() -> Any:
        with rows._database.connection() as conn:
            return [row[0] for row in conn.execute(rung).fetchall()]

    until(lambda: queues() == [["default"]])
    hall.release_handlers(1)
    until(lambda: queues() == [["mail", "default"]])
    queue.close()
