"""The event loop that runs async handlers."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence

from pgjobq.errors import JobTimeout
from pgjobq.handlers import Handler
from pgjobq.models import Job
from pgjobq.storage.base import BaseStorage, Released
from pgjobq.worker.hand import Hand
from pgjobq.worker.running import Run, verdict


class TaskRunner:
    """Runs at most `concurrency` async handlers at once, a task each, on one loop in a thread of its own.

    A handler past its timeout is cancelled, and so is one whose job was lost.
    """

    def __init__(self, hand: Hand, storage: BaseStorage, concurrency: int) -> None:
        self._hand, self._storage, self._concurrency = hand, storage, concurrency
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._backlog: deque[tuple[Job, Handler]] = deque()
        self._runs: set[Run] = set()  # whoever takes a run out decides its outcome

    def submit_many(self, jobs: Sequence[tuple[Job, Handler]]) -> None:
        """Run jobs when there is room on the loop."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._run, args=(self._loop,), name="pgjobq-loop", daemon=True)
            self._thread.start()
        self._backlog.extend(jobs)
        self._loop.call_soon_threadsafe(self._start_tasks)

    def running(self) -> list[Run]:
        """The runs under way."""
        return list(self._runs)

    def release(self) -> None:
        """Give back the jobs that no task has started."""
        while self._backlog:
            try:
                job, _ = self._backlog.popleft()
            except IndexError:
                return
            self._hand.finish(Released(job))

    def abandon(self, run: Run, *, release: bool) -> None:
        """Cancel a run: its job is released, or lost already."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._cancel, run, release)

    def stop(self) -> None:
        """End the loop, once the tasks that were cancelled have ended, or after two seconds."""
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(2.0)
            self._loop = None

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.run_forever()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=1.0))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    def _cancel(self, run: Run, release: bool) -> None:
        if run in self._runs:
            self._runs.remove(run)
            run.handle.cancel()
            self._hand.finish(Released(run.job) if release else None)

    def _start_tasks(self) -> None:
        assert self._loop is not None  # this runs on it
        while self._backlog and len(self._runs) < self._concurrency:
            try:
                job, handler = self._backlog.popleft()
            except IndexError:  # released meanwhile
                return
            run = Run(job, handler)
            self._runs.add(run)
            run.handle = self._loop.create_task(self._work(run))

    async def _work(self, run: Run) -> None:
        handler = run.handler
        error: BaseException | None = None
        try:
            if handler.timeout is None:
                await handler.function(**run.arguments(self._storage))
            else:
                async with asyncio.timeout(handler.timeout) as limit:
                    await handler.function(**run.arguments(self._storage))
        except TimeoutError as raised:
            expired = handler.timeout is not None and limit.expired()
            error = JobTimeout(f"ran longer than {handler.timeout} seconds") if expired else raised
        except BaseException as raised:  # whatever a handler raises, SystemExit too, is its job's failure
            error = raised
        if run in self._runs:
            self._runs.remove(run)
            ended = verdict(run.job, handler, error) if isinstance(error, JobTimeout) else run.ended(error)
            self._hand.finish(ended)
        if self._backlog:
            self._start_tasks()
