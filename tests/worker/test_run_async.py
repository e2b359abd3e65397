"""A worker on the application's own event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from pgjobq import ConfigurationError, JobQueue, JobStatus, Registry, Worker, job


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110  # what it waits for is set in other threads
            await asyncio.sleep(0.01)


def test_async_handlers_run_on_the_callers_loop(queue: JobQueue, registry: Registry) -> None:
    """They used a pool of the application's, which belongs to its loop."""
    seen: dict[str, Any] = {}

    async def application() -> None:
        own = asyncio.Queue[str]()  # of this loop alone

        @job(registry=registry)
        async def use(name: str) -> None:
            seen["loop"] = asyncio.get_running_loop()
            await own.put(name)

        @job(registry=registry)
        def sync() -> None:
            seen["thread"] = threading.current_thread()

        worker = Worker(queue, registry=registry)
        serving = asyncio.create_task(worker.run_async())
        first = await queue.enqueue_async(use, {"name": "ada"})
        await queue.enqueue_async(sync)
        assert await asyncio.wait_for(own.get(), 30) == "ada"
        await until(lambda: "thread" in seen)
        assert seen["loop"] is asyncio.get_running_loop()
        assert seen["thread"] is not threading.main_thread()
        worker.ask_to_stop()
        await serving
        assert not worker.is_running()
        done = await queue.get_job_async(first)
        assert done is not None
        assert done.status is JobStatus.COMPLETED

    asyncio.run(application())


def test_cancel_lets_running_jobs_end(queue: JobQueue, registry: Registry) -> None:
    async def application() -> None:
        started, go = asyncio.Event(), asyncio.Event()

        @job(registry=registry)
        async def slow() -> None:
            started.set()
            await go.wait()

        worker = Worker(queue, registry=registry)
        serving = asyncio.create_task(worker.run_async())
        job_id = await queue.enqueue_async(slow)
        await started.wait()
        serving.cancel()
        await asyncio.sleep(0.1)
        assert not serving.done()  # it waits for the job, and the loop goes on
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await serving
        done = await queue.get_job_async(job_id)
        assert done is not None
        assert done.status is JobStatus.COMPLETED

    asyncio.run(application())


def test_second_cancel_releases_the_running_jobs(queue: JobQueue, registry: Registry) -> None:
    async def application() -> None:
        started, ended = asyncio.Event(), asyncio.Event()

        @job(registry=registry)
        async def endless() -> None:
            started.set()
            try:
                await asyncio.sleep(3600)
            finally:
                ended.set()

        worker = Worker(queue, registry=registry, grace=3600)
        serving = asyncio.create_task(worker.run_async())
        job_id = await queue.enqueue_async(endless)
        await started.wait()
        serving.cancel()
        await asyncio.sleep(0.1)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(serving, 30)
        await asyncio.wait_for(ended.wait(), 30)  # its task was cancelled
        back = await queue.get_job_async(job_id)
        assert back is not None
        assert (back.status, back.attempts) == (JobStatus.PENDING, 0)

    asyncio.run(application())


def test_worker_runs_once_and_again_later(queue: JobQueue, registry: Registry) -> None:
    async def application() -> None:
        worker = Worker(queue, registry=registry)
        for _ in range(2):
            serving = asyncio.create_task(worker.run_async())
            await until(worker.is_running)
            with pytest.raises(ConfigurationError, match=r"^worker: it runs already"):
                await worker.run_async()
            worker.ask_to_stop()
            await serving

    asyncio.run(application())


def test_loop_of_the_application_is_never_replaced(queue: JobQueue, registry: Registry) -> None:
    """A timed-out handler blocks it; it goes on with the same loop when that ends."""
    loops: set[asyncio.AbstractEventLoop] = set()

    async def application() -> None:
        @job(registry=registry, timeout=0.2, max_retries=0)
        async def blocks() -> None:
            time.sleep(6)  # noqa: ASYNC251  # that is the fault

        @job(registry=registry)
        async def quick() -> None:
            loops.add(asyncio.get_running_loop())

        worker = Worker(queue, registry=registry)
        serving = asyncio.create_task(worker.run_async())
        blocked = await queue.enqueue_async(blocks)
        await until(lambda: queue.get_job(blocked).status is JobStatus.FAILED)  # type: ignore[union-attr]  # it is there
        await queue.enqueue_async(quick)
        await until(lambda: loops)
        assert loops == {asyncio.get_running_loop()}
        worker.ask_to_stop()
        await serving

    asyncio.run(application())
