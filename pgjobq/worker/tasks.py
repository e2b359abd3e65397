"""The event loop that runs async handlers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextvars import Context

from pgjobq.events import running_job
from pgjobq.handlers import Handler
from pgjobq.models import Job
from pgjobq.storage.base import BaseStorage, Completed, Released
from pgjobq.worker.deadlines import Deadlines
from pgjobq.worker.hand import Hand
from pgjobq.worker.looping import LoopThread
from pgjobq.worker.runner import Runner, log
from pgjobq.worker.running import Run, described


class TaskRunner(Runner):
    """Runs at most `concurrency` async handlers at once, a task each, on one loop in a thread of its own.

    A handler past its timeout is cancelled, and so is one whose job was lost. Neither waits for the handler, which may
    go on all the same: another thread looks at the deadlines, because a handler may block the loop.
    """

    def __init__(self, hand: Hand, storage: BaseStorage, concurrency: int) -> None:
        super().__init__(hand, storage, concurrency)
        self._loop: LoopThread | None = None
        self._backlog: deque[tuple[Job, Handler]] = deque()
        self._deadlines = Deadlines(self.check_deadlines)

    def submit_many(self, jobs: Sequence[tuple[Job, Handler]]) -> None:
        """Run jobs when there is room on the loop."""
        self._backlog.extend(jobs)
        if self._loop is None:
            self._loop = LoopThread(self._blame)
        self._loop.call(self._start_tasks)

    def running(self) -> list[Run]:
        """The runs under way. One whose task was cancelled before it began, by another handler, is found and fails."""
        for run in super().running():
            if run.handle is not None and run.handle.done():
                self._end(run, None, asyncio.CancelledError("its task was cancelled before it began"))
                self._let_go(run, replace=True)
        return super().running()

    def release(self) -> None:
        """Give back the jobs that no task has started."""
        while self._backlog:
            try:
                job, _ = self._backlog.popleft()
            except IndexError:
                return
            self._hand.finish(Released(job))

    def stop(self) -> None:
        """End the loop, once the tasks that were cancelled have ended, or after two seconds."""
        self._deadlines.stop()
        if self._loop is not None:
            self._loop.stop()
            self._loop = None

    def _let_go(self, run: Run, *, replace: bool) -> None:
        if self._loop is not None:
            self._loop.call(self._cancel, run)
            if replace:
                self._loop.call(self._start_tasks)

    def _cancel(self, run: Run) -> None:
        if run.handle is not None:
            run.handle.cancel()

    def _start_tasks(self) -> None:
        create_task = asyncio.get_running_loop().create_task
        while self._backlog and len(self._runs) < self._concurrency:
            try:
                run = Run(*self._backlog.popleft())
            except IndexError:  # released meanwhile
                return
            self._runs[run] = run
            work = self._work(run)
            try:
                if run.deadline is not None:
                    self._deadlines.expect(run.deadline)
                # In a context of its own: what a handler sets there is not the next job's.
                run.handle = create_task(work, context=Context())
            except BaseException as error:  # no thread, or a task factory that a handler has set
                work.close()
                self._end(run, None, error)

    async def _work(self, run: Run) -> None:
        running_job.set(run.job)
        if self._tells:
            log.debug("job.started", extra=described(run.job))
        result: object = None
        error: BaseException | None = None
        try:
            handler = run.handler
            # As run.arguments does, a call less for most.
            given = run.arguments(self._storage) if handler.wants_job else handler.arguments(run.job)
            result = await handler.function(**given)
        except BaseException as raised:  # whatever a handler raises, SystemExit too, is its job's failure
            error = raised
        self._end(run, result, error)
        if self._backlog:
            self._start_tasks()

    def _end(self, run: Run, result: object, error: BaseException | None) -> None:
        if self._runs.pop(run, None) is None:
            if not isinstance(error, asyncio.CancelledError):
                log.info("job.ended_late", extra=described(run.job))
        elif error is None and result is None and run.running_job is None and not self._tells:
            self._hand.finish(Completed(run.job))
        else:
            self._hand.finish(run.ended(result, error, tells=self._tells))

    def _blame(self, error: BaseException, culprit: Job | None) -> None:
        """An error has left the loop: a handler's task or callback raised it, and its run fails."""
        told = {} if culprit is None else described(culprit)
        log.error("loop.error", extra=told | {"error": error}, exc_info=error)
        for run in self.running():
            if run.job is culprit:
                self._end(run, None, error)
                self._cancel(run)
