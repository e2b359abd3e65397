"""A handler that blocks the event loop is named in the log, and the loop is replaced at the handler's deadline."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers.until import until
from helpers.working import finished, logged

from pgjobq import JobQueue, JobStatus, Registry, Worker, job
from pgjobq.worker import tasks

StartWorker = Callable[..., Worker]


@pytest.fixture
def go(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let the blocking handlers end. The worker checks its loop often, and counts it as blocked early."""
    monkeypatch.setattr(tasks, "LOOK_AFTER", 0.05)
    monkeypatch.setattr(tasks, "REPLACED_AFTER", 0.2)
    monkeypatch.setattr(tasks, "BLOCKED_AFTER", 0.3)
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def start(queue: JobQueue, registry: Registry, go: threading.Event) -> Iterator[StartWorker]:
    """Return a function that starts workers on the queue. They are stopped at the end, which must not raise."""
    workers: list[Worker] = []

    def make(**options: Any) -> Worker:
        workers.append(Worker(queue, registry=registry, **options))
        workers[-1].start()
        return workers[-1]

    yield make
    for worker in workers:
        worker.stop(grace=1)


def loops() -> int:
    return sum(thread.name == "pgjobq-loop" for thread in threading.enumerate())


def test_loop_is_replaced_when_a_job_blocks_it_past_its_deadline(
    queue: JobQueue, registry: Registry, start: StartWorker, go: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    began, starts = threading.Event(), []
    before = loops()

    @job(registry=registry, timeout=0.1, max_retries=0)
    async def blocks() -> None:
        await asyncio.sleep(0)
        go.wait(30)

    @job(registry=registry, max_retries=0)
    async def companion() -> None:
        starts.append(asyncio.get_running_loop())
        began.set()
        if len(starts) == 1:
            await asyncio.sleep(60)

    @job(registry=registry)
    async def quick() -> None: ...

    caplog.set_level(logging.INFO)
    beside = queue.enqueue(companion)
    start(concurrency=2)
    assert began.wait(5)
    culprit = queue.enqueue(blocks)
    assert str(finished(queue, culprit).error).startswith("JobTimeout")
    for _ in range(3):
        assert finished(queue, queue.enqueue(quick)).status == JobStatus.COMPLETED
    found = finished(queue, beside)
    assert (found.status, found.attempts) == (JobStatus.COMPLETED, 1)  # its first start was released
    assert starts[0] is not starts[1]
    (line,) = logged(caplog, "loop.replaced")
    assert line.job_id == culprit
    assert line.levelno == logging.ERROR
    assert [record.job_id for record in logged(caplog, "job.released")] == [beside]
    assert loops() == before + 2
    go.set()
    until(lambda: loops() == before + 1)  # the old loop ends when it can run again
    assert finished(queue, queue.enqueue(quick)).status == JobStatus.COMPLETED
    assert len(starts) == 2


def test_loop_is_replaced_for_each_job_that_blocks_it(
    queue: JobQueue, registry: Registry, start: StartWorker, go: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    @job(registry=registry, timeout=0.1, max_retries=0)
    async def blocks() -> None:
        go.wait(30)

    start(concurrency=1)
    jobs = [queue.enqueue(blocks) for _ in range(3)]
    assert {finished(queue, job_id).status for job_id in jobs} == {JobStatus.FAILED}
    until(lambda: len(logged(caplog, "loop.replaced")) == 3)
    assert {record.job_id for record in logged(caplog, "loop.replaced")} == set(jobs)


def test_job_without_a_timeout_that_blocks_the_loop_is_logged_once(
    queue: JobQueue, registry: Registry, start: StartWorker, go: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    looked = threading.Event()

    @job(registry=registry)
    async def blocks() -> None:
        go.wait(30)

    @job(registry=registry)
    async def quick() -> None: ...

    culprit = queue.enqueue(blocks)
    worker = start()
    (line,) = until(lambda: logged(caplog, "loop.blocked"))
    assert line.job_id == culprit
    assert line.levelno == logging.WARNING
    assert line.at.startswith(f"{__file__}:")
    looks, watch = [0], worker._tasks.watch

    def counted() -> None:
        watch()
        looks[0] += 1
        if looks[0] == 5:
            looked.set()

    worker._tasks.watch = counted  # type: ignore[method-assign]  # the test counts the calls
    assert looked.wait(10)
    assert len(logged(caplog, "loop.blocked")) == 1
    assert not logged(caplog, "loop.replaced")
    go.set()
    assert finished(queue, culprit).status == JobStatus.COMPLETED
    assert finished(queue, queue.enqueue(quick)).status == JobStatus.COMPLETED


def test_loop_is_replaced_when_a_callback_of_a_completed_job_blocks_it(
    queue: JobQueue, registry: Registry, start: StartWorker, go: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    @job(registry=registry)
    async def leaves_a_callback() -> None:
        asyncio.get_running_loop().call_later(0.05, go.wait, 30)

    @job(registry=registry)
    async def quick() -> None: ...

    start()
    culprit = queue.enqueue(leaves_a_callback)
    assert finished(queue, culprit).status == JobStatus.COMPLETED
    waiting = [queue.enqueue(quick) for _ in range(3)]
    assert {finished(queue, job_id).status for job_id in waiting} == {JobStatus.COMPLETED}
    until(lambda: [finished(queue, queue.enqueue(quick)), logged(caplog, "loop.replaced")][1])
    assert [record.job_id for record in logged(caplog, "loop.replaced")] == [culprit]


def test_run_once_continues_after_a_job_that_blocks_the_loop(
    queue: JobQueue, registry: Registry, go: threading.Event
) -> None:
    @job(registry=registry, timeout=0.1, max_retries=0)
    async def blocks() -> None:
        go.wait(30)

    @job(registry=registry)
    async def quick() -> None: ...

    jobs = [queue.enqueue(blocks), queue.enqueue(quick)]
    assert Worker(queue, registry=registry).run_once() == 2
    assert [finished(queue, job_id).status for job_id in jobs] == [JobStatus.FAILED, JobStatus.COMPLETED]
