"""The event loop of async handlers survives everything that they do, and deadlines hold even while it is blocked."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from helpers.until import until
from helpers.working import finished

from pgjobq import Job, JobQueue, JobStatus, Registry, Worker, job
from pgjobq.handlers import Handler
from pgjobq.storage.base import BaseStorage, Completed
from pgjobq.worker.in_flight import InFlight
from pgjobq.worker.tasks import TaskRunner

StartWorker = Callable[..., Worker]


@pytest.fixture
def start(queue: JobQueue, registry: Registry) -> Iterator[StartWorker]:
    """Return a function that starts workers on the queue. They are stopped at the end, which must not raise."""
    workers: list[Worker] = []

    def make(**options: Any) -> Worker:
        workers.append(Worker(queue, registry=registry, **options))
        workers[-1].start()
        return workers[-1]

    yield make
    for worker in workers:
        worker.stop(grace=1)


def raising(kind: type[BaseException]) -> None:
    raise kind("from inside")


async def raising_later(kind: type[BaseException]) -> None:
    await asyncio.sleep(0)
    raising(kind)


async def awaited_task(kind: type[BaseException]) -> None:
    await asyncio.create_task(raising_later(kind))


async def task_in_a_group(kind: type[BaseException]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(raising_later(kind))
        await asyncio.sleep(10)


async def task_that_nothing_awaits(kind: type[BaseException]) -> None:
    task = asyncio.create_task(raising_later(kind))
    await asyncio.sleep(10)
    await task


async def callback(kind: type[BaseException]) -> None:
    asyncio.get_running_loop().call_soon(raising, kind)
    await asyncio.sleep(10)


async def callback_from_a_thread(kind: type[BaseException]) -> None:
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(loop.call_soon_threadsafe, raising, kind)
    await asyncio.sleep(10)


WAYS = [awaited_task, task_in_a_group, task_that_nothing_awaits, callback, callback_from_a_thread]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_exception_that_ends_a_loop_fails_only_the_job_that_raised_it(
    queue: JobQueue,
    registry: Registry,
    start: StartWorker,
    way: Callable[[type[BaseException]], Awaitable[None]],
    kind: type[BaseException],
) -> None:
    began, go = threading.Event(), threading.Event()

    @job(registry=registry, max_retries=0)
    async def exits() -> None:
        await way(kind)

    @job(registry=registry, max_retries=0)
    async def companion() -> None:
        began.set()
        await asyncio.to_thread(go.wait, 20)

    beside = queue.enqueue(companion)
    start()
    assert began.wait(5)
    error = finished(queue, queue.enqueue(exits)).error
    assert f"{kind.__name__}: from inside" in str(error)
    assert "in raising" in str(error)
    go.set()
    assert finished(queue, beside).status == JobStatus.COMPLETED
    assert finished(queue, queue.enqueue(companion)).status == JobStatus.COMPLETED


def test_loop_that_a_handler_stops_is_restarted(
    queue: JobQueue, registry: Registry, start: StartWorker, caplog: pytest.LogCaptureFixture
) -> None:
    @job(registry=registry)
    async def stops() -> None:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0.01)

    worker = start()
    jobs = [finished(queue, queue.enqueue(stops)) for _ in range(2)]
    assert [job.status for job in jobs] == [JobStatus.COMPLETED] * 2
    assert "loop.stopped" in caplog.text
    worker.stop()


def test_job_whose_task_is_cancelled_before_it_begins_fails(
    queue: JobQueue, registry: Registry, start: StartWorker
) -> None:
    @job(registry=registry, max_retries=0)
    async def cancels_all() -> None:
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task():
                task.cancel()

    jobs = [queue.new_job(cancels_all) for _ in range(8)]
    queue.enqueue_many(jobs)
    start()
    ends = [finished(queue, job.id) for job in jobs]
    assert {job.status for job in ends} == {JobStatus.COMPLETED, JobStatus.FAILED}
    assert all("CancelledError" in str(job.error) for job in ends if job.status == JobStatus.FAILED)


def test_task_factory_that_raises_fails_the_job(queue: JobQueue, registry: Registry, start: StartWorker) -> None:
    @job(registry=registry)
    async def breaks_the_loop() -> None:
        asyncio.get_running_loop().set_task_factory(lambda *_, **__: raising(ValueError))  # type: ignore[arg-type]

    @job(registry=registry, max_retries=0)
    async def quick() -> None: ...

    start(concurrency=1)
    assert finished(queue, queue.enqueue(breaks_the_loop)).status == JobStatus.COMPLETED
    for _ in range(2):
        assert "from inside" in str(finished(queue, queue.enqueue(quick)).error)


@pytest.mark.parametrize("how", ["swallows the cancellation", "blocks the loop"])
def test_deadline_holds_without_the_cooperation_of_the_handler(
    queue: JobQueue, registry: Registry, start: StartWorker, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    go, ended = threading.Event(), threading.Event()

    @job(registry=registry, timeout=0.1, max_retries=0)
    async def outlasts(job: Any) -> None:
        if how == "blocks the loop":
            go.wait(20)
        while not go.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                assert job.lost
        ended.set()

    @job(registry=registry)
    async def quick() -> None: ...

    caplog.set_level(logging.INFO)
    job_id = queue.enqueue(outlasts)
    start(concurrency=1)
    failed = finished(queue, job_id)
    assert not ended.is_set()
    assert failed.error == "JobTimeout: ran longer than 0.1 seconds"
    if how == "blocks the loop":
        go.set()
    assert finished(queue, queue.enqueue(quick)).status == JobStatus.COMPLETED  # the job that timed out takes no place
    go.set()
    assert ended.wait(5)
    until(lambda: "job.ended_late" in caplog.text)
    assert finished(queue, job_id).status == JobStatus.FAILED


def test_nearer_deadline_is_met_while_the_worker_waits_for_a_later_one(
    queue: JobQueue, registry: Registry, start: StartWorker
) -> None:
    go = threading.Event()

    async def waits() -> None:
        await asyncio.to_thread(go.wait, 20)

    far = job(registry=registry, type="far", timeout=60)(waits)
    registry.register(Handler(type="near", function=waits, timeout=0.1, max_retries=0))
    first = queue.enqueue("far")
    start()
    until(lambda: (found := queue.get_job(first)) and found.status == JobStatus.RUNNING)
    assert str(finished(queue, queue.enqueue("near", max_retries=0)).error).startswith("JobTimeout")
    go.set()
    assert finished(queue, first).status == JobStatus.COMPLETED
    assert far is waits


def test_stop_releases_a_job_that_blocks_the_loop(queue: JobQueue, registry: Registry, start: StartWorker) -> None:
    began, go = threading.Event(), threading.Event()

    @job(registry=registry)
    async def blocks() -> None:
        began.set()
        go.wait(20)

    job_id = queue.enqueue(blocks)
    worker = start()
    assert began.wait(5)
    threading.Timer(0.3, go.set).start()
    worker.stop(grace=0)
    found = queue.get_job(job_id)
    assert found is not None
    assert (found.status, found.attempts) == (JobStatus.PENDING, 0)


# Context variables

leaky: contextvars.ContextVar[str] = contextvars.ContextVar("leaky", default="clean")


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_context_variables_do_not_leak_into_the_next_job(
    queue: JobQueue, registry: Registry, start: StartWorker, colour: str
) -> None:
    seen: list[str] = []

    def sets() -> None:
        seen.append(leaky.get())
        leaky.set("dirty")

    async def sets_async() -> None:
        sets()

    handler = job(registry=registry)(sets if colour == "sync" else sets_async)
    queue.enqueue_many([queue.new_job(handler) for _ in range(20)])
    leaky.set("of the program")
    start(concurrency=1)
    until(lambda: len(seen) == 20)
    assert seen == ["clean"] * 20


class NoStorage(BaseStorage):
    """A storage for runners that they do not call in these tests."""

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    enqueue = dequeue = complete = fail = retry = get_job = list_jobs = _refuse


def test_runner_can_be_stopped_twice() -> None:
    in_flight = InFlight(1)
    runner = TaskRunner(in_flight, NoStorage(), 1)

    async def quick() -> None: ...

    runner.submit_many([(Job(id="a", type="t"), Handler(type="t", function=quick))])
    (outcome,) = until(lambda: list(in_flight.outcomes))
    assert isinstance(outcome, Completed)
    runner.stop()
    runner.stop()
