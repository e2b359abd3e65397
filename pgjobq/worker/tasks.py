"""The event loop that runs async handlers."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from contextvars import Context

from pgjobq.errors import Cancelled
from pgjobq.events import running_job
from pgjobq.handlers import Handler
from pgjobq.models import Job
from pgjobq.storage.base import BaseStorage, Completed, Released
from pgjobq.worker.deadlines import Deadlines
from pgjobq.worker.event_loop import LoopThread, WatchedLoop
from pgjobq.worker.in_flight import InFlight
from pgjobq.worker.runner import Runner, log
from pgjobq.worker.running import Run, log_fields

LOOK_AFTER = 1.0  # seconds between two checks that the loop answers
BLOCKED_AFTER = 5.0  # seconds without an answer after which this is logged
REPLACED_AFTER = 3.0  # seconds for which a timed-out or lost job may block the loop before it is replaced


class TaskRunner(Runner):
    """Runs at most `concurrency` async handlers at once, each in a task, on one event loop.

    loop: the application's, which is never replaced; by default a loop in its own thread.

    The runner cancels a handler that is past its timeout or whose job was lost. It does not wait for the handler, which
    may continue to run. Another thread checks the deadlines, because a handler may block the loop. If a timed-out or
    lost job blocks the loop, the runner abandons that loop and starts another.
    """

    def __init__(
        self, in_flight: InFlight, storage: BaseStorage, concurrency: int, loop: WatchedLoop | None = None
    ) -> None:
        super().__init__(in_flight, storage, concurrency)
        self._loop = loop
        self._backlog: deque[tuple[Job, Handler]] = deque()
        self._deadlines = Deadlines(self.check_deadlines)
        self._next_look_at = 0.0  # when to check again that the loop answers
        self._told_blocked = False  # whether the current block was logged
        self._overdue_since: float | None = None  # since when a timed-out or lost job has blocked the loop

    def submit_many(self, jobs: Sequence[tuple[Job, Handler]]) -> None:
        """Queue jobs, which start when there is room on the loop."""
        self._backlog.extend(jobs)
        if self._loop is None:
            self._loop = LoopThread(self._blame)
        self._loop.call(self._start_tasks)

    def running(self) -> list[Run]:
        """Return the active runs. First settle those whose task another handler cancelled before it began."""
        for run in super().running():
            if run.handle is not None and run.handle.done():
                self._end(run, None, asyncio.CancelledError("its task was cancelled before it began"))
                self._detach(run, replace=True)
        return super().running()

    def release(self) -> None:
        """Release the jobs that no task has started."""
        while self._backlog:
            try:
                job, _ = self._backlog.popleft()
            except IndexError:
                return
            self._in_flight.add_outcome(Released(job))

    def stop(self) -> None:
        """Cancel the tasks, end the loop, and wait for it for at most two seconds."""
        self._deadlines.stop()
        if self._loop is not None:
            self._loop.stop()
            self._loop = None

    def watch(self) -> None:
        """Check that the loop answers; if not, log what blocks it or replace it. Call this several times a second."""
        loop, now = self._loop, time.monotonic()
        if loop is None or now < self._next_look_at:
            return
        self._next_look_at = now + LOOK_AFTER
        blocked = loop.blocked()
        if blocked is None:
            self._told_blocked, self._overdue_since = False, None
            return
        told = {} if blocked.culprit is None else log_fields(blocked.culprit)
        told |= {"at": blocked.at, "seconds": round(blocked.seconds, 1)}
        # A block that is not known to come from a job may end soon.
        if (
            not loop.replaceable
            or blocked.culprit is None
            or any(run.job is blocked.culprit for run in list(self._runs))
        ):
            self._overdue_since = None
        elif self._overdue_since is None:
            self._overdue_since = now
        elif now - self._overdue_since >= REPLACED_AFTER:
            log.error("loop.replaced", extra=told)
            self._replace(loop)
            return
        if blocked.seconds >= BLOCKED_AFTER and self._overdue_since is None and not self._told_blocked:
            self._told_blocked = True
            log.warning("loop.blocked", extra=told)

    def _replace(self, old: WatchedLoop) -> None:
        """Replace a blocked loop, which ends when it can, and release the other runs on it."""
        stranded = super().running()
        self._loop = LoopThread(self._blame)
        self._told_blocked, self._overdue_since = False, None
        old.end()
        for run in stranded:
            self.abandon(run, release=True)
        self._loop.call(self._start_tasks)

    def _detach(self, run: Run, *, replace: bool) -> None:
        if (loop := self._loop) is not None:
            loop.call(self._cancel, run, loop)
            if replace:
                loop.call(self._start_tasks)

    @staticmethod
    def _cancel(run: Run, loop: WatchedLoop | None = None) -> None:
        """Cancel the task of a run. With loop, only if the task is on it and not on a loop that was replaced."""
        if run.handle is not None and (loop is None or loop.has(run.handle)):
            run.handle.cancel()

    def _start_tasks(self) -> None:
        if self._loop is None or not self._loop.is_current():
            return  # this loop was replaced
        create_task = asyncio.get_running_loop().create_task
        while self._backlog and len(self._runs) < self._concurrency:
            try:
                run = Run(*self._backlog.popleft(), self._in_flight.notes)
            except IndexError:  # released meanwhile
                return
            self._runs[run] = run
            work = self._run_handler(run)
            try:
                if run.deadline is not None:
                    self._deadlines.expect(run.deadline)
                # In a new context, because the next job must not see the variables that a handler sets.
                run.handle = create_task(work, context=Context())
            except BaseException as error:  # no thread could start, or a task factory set by a handler failed
                work.close()
                self._end(run, None, error)

    async def _run_handler(self, run: Run) -> None:
        running_job.set(run.job)
        if run.handler.capture_logs:
            run.capture_logs()
        if self._logs_each:
            log.debug("job.started", extra=log_fields(run.job))
        result: object = None
        error: BaseException | None = None
        try:
            handler = run.handler
            # The same as run.arguments, but it saves a call for most handlers.
            given = run.arguments(self._storage) if handler.wants_job else handler.arguments(run.job)
            result = await handler.function(**given)
        except BaseException as raised:  # anything that a handler raises, even SystemExit, fails only its job
            error = raised
        self._end(run, result, error)
        if self._backlog:
            self._start_tasks()

    def _end(self, run: Run, result: object, error: BaseException | None) -> None:
        if self._runs.pop(run, None) is None:
            if not isinstance(error, asyncio.CancelledError | Cancelled):
                log.info("job.ended_late", extra=log_fields(run.job))
        elif error is None and result is None and run.running_job is None and not self._logs_each:
            self._in_flight.add_outcome(Completed(run.job))
        else:
            self._in_flight.add_outcome(run.ended(result, error, logs_each=self._logs_each), run.job)

    def _blame(self, error: BaseException, culprit: Job | None) -> None:
        """Log an error that escaped from the loop, and fail the run whose task or callback raised it."""
        told = {} if culprit is None else log_fields(culprit)
        log.error("loop.error", extra=told | {"error": error}, exc_info=error)
        for run in self.running():
            if run.job is culprit:
                self._end(run, None, error)
                self._cancel(run)
