"""Limits of single queues within one worker: never more of a queue's jobs, and no job late because of it."""

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
    """Handlers that stay until they are let go, by queue; how many are in, and were at most."""

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

    def let_go(self, jobs: int) -> None:
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
    hall.let_go(1000)
    for worker in workers:
        worker.stop(grace=5)
        worker.storage.close()


def enqueue(queue: JobQueue, name: str, jobs: int, kind: str = "stay") -> None:
    queue.enqueue_many([queue.new_job(kind, {"queue": name}, queue=name) for _ in range(jobs)])


@pytest.mark.parametrize("kind", ["stay", "stay_async"])
def test_queue_at_its_limit_holds_up_no_other(queue: JobQueue, hall: Hall, start: StartWorker, kind: str) -> None:
    enqueue(queue, "mail", 5, kind)
    enqueue(queue, "default", 9, kind)
    start(concurrency=8, queues={"mail": 2, "default": None})
    until(lambda: hall.inside == {"mail": 2, "default": 6})
    assert len(queue.get_running_jobs()) == 8  # the others are in line, and were not claimed
    hall.let_go(14)
    until(lambda: hall.done == {"mail": 5, "default": 9})
    assert hall.most["mail"] == 2


def test_queue_with_room_again_is_claimed_from_at_once(queue: JobQueue, hall: Hall, start: StartWorker) -> None:
    enqueue(queue, "mail", 3)
    start(concurrency=8, queues={"mail": 1, "default": 8})
    for done in range(3):
        until(lambda: hall.inside["mail"] == 1, seconds=5)
        assert len(queue.get_running_jobs()) == 1
        hall.let_go(1)
        until(partial(hall.has_done, "mail", done + 1))
    enqueue(queue, "mail", 1)  # the worker sleeps
    until(lambda: hall.inside["mail"] == 1, seconds=5)


def test_many_quick_jobs_exceed_no_limit(queue: JobQueue, hall: Hall, start: StartWorker) -> None:
    for name in ("mail", "default"):
        enqueue(queue, name, 300, "pass")
    start(concurrency=8, queues={"mail": 2, "default": 4})
    until(lambda: hall.done == {"mail": 300, "default": 300}, seconds=60)
    assert hall.most["mail"] <= 2
    assert hall.most["default"] <= 4


def test_lost_and_failed_jobs_make_room(queue: JobQueue, hall: Hall, start: StartWorker, registry: Registry) -> None:
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
def test_what_a_worker_leaves_others_take(
    dsn: str, registry: Registry, hall: Hall, start: StartWorker, concurrency: int
) -> None:
    """At once, also when the one notification for all of them woke the worker that is at its limit."""
    queue = JobQueue(dsn, registry=registry)
    storages = [PostgresStorage(dsn) for _ in range(2)]
    for storage in storages:
        start(storage, concurrency=concurrency, queues={"mail": 1, "default": None})
    until(lambda: [worker["asleep"] for worker in queue.storage.workers()] == [True, True])
    enqueue(queue, "mail", 3)
    until(lambda: hall.inside["mail"] == 2, seconds=5)
    hall.let_go(3)
    until(lambda: hall.done["mail"] == 3, seconds=5)
    queue.close()


@pytest.mark.parametrize(
    "limits", [{"mail": 0}, {"mail": -1}, {"mail": True}, {"mail": "2"}, {"mail": 1.5}, {"a": 1, "mail": 9}, {}]
)
def test_bad_limits_are_refused(limits: Any, queue: JobQueue, registry: Registry) -> None:
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
        ("mail:0", {"mail": 0}),  # which Worker refuses
    ],
)
def test_queues_of_the_command_line(text: str, queues: Any) -> None:
    assert parse_queues(text) == queues


@pytest.mark.parametrize("text", ["mail:x", "mail:-1", "mail:1.5", "mail:²", ":2", ":", "mail:2,mail:3", "mail: x"])
def test_bad_queues_of_the_command_line_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^queues: "):
        parse_queues(text)


def test_storages_are_told_of_no_queue_that_is_full(
    dsn: str, registry: Registry, hall: Hall, start: StartWorker
) -> None:
    """A worker at the limit of a queue is notified of no more jobs of it: its doorbell names the others."""
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
    hall.let_go(1)
    until(lambda: queues() == [["mail", "default"]])
    queue.close()
