"""Threads that run sync handlers."""

from __future__ import annotations

import threading
from contextvars import Context
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from pgjobq.errors import Cancelled
from pgjobq.events import running_job
from pgjobq.handlers import Handler
from pgjobq.models import Job
from pgjobq.storage.base import BaseStorage, Completed, Released
from pgjobq.worker.in_flight import InFlight
from pgjobq.worker.isolated import Child
from pgjobq.worker.runner import Runner, log
from pgjobq.worker.running import Run, log_fields

STOP_TIME = 1.0  # seconds from SIGTERM to SIGKILL, at most, when the worker has to end


class ThreadRunner(Runner):
    """Runs at most `concurrency` sync handlers at once, each in a thread.

    Python cannot stop a running thread. When a handler is past its timeout, the runner settles the job without waiting,
    and starts another thread in its place. The old thread ends when its handler returns.
    A thread that has an isolated handler waits for its process, which can be stopped.
    """

    def __init__(self, in_flight: InFlight, storage: BaseStorage, concurrency: int) -> None:
        super().__init__(in_flight, storage, concurrency)
        self._queue: SimpleQueue[tuple[Job, Handler] | None] = SimpleQueue()
        self._threads, self._count_lock = 0, threading.Lock()

    def submit(self, job: Job, handler: Handler) -> None:
        """Queue a job, which starts when a thread is free."""
        if self._threads < self._concurrency:
            self._add_thread()
        self._queue.put((job, handler))

    def release(self) -> None:
        """Release the jobs that no thread has started."""
        while True:
            try:
                item = self._queue.get_nowait()
            except Empty:
                return
            if item is not None:
                self._in_flight.add_outcome(Released(item[0]))

    def stop(self) -> None:
        """Let each thread end when it becomes idle."""
        for _ in range(self._threads):
            self._queue.put(None)

    def abandon(self, run: Run, *, release: bool) -> None:
        """End a run. The job of an isolated handler is released when its process has ended."""
        if run.handle is None:
            super().abandon(run, release=release)
        elif self._runs.pop(run, None) is not None:
            run.mark_lost()
            log.warning("job.released" if release else "job.lost", extra=log_fields(run.job))
            outcome = Released(run.job, ran=True) if release else None
            then = partial(self._in_flight.add_outcome, outcome, run.job)
            run.handle.stop(STOP_TIME if release else None, then)
            self._detach(run, replace=not release)

    def _detach(self, run: Run, *, replace: bool) -> None:
        if replace:
            self._add_thread()

    def _add_thread(self) -> None:
        with self._count_lock:
            self._threads += 1
        try:
            threading.Thread(target=self._run_jobs, name=f"pgjobq-run-{self._threads}", daemon=True).start()
        except RuntimeError as error:  # the system has no more threads; a later job tries again
            with self._count_lock:
                self._threads -= 1
            log.error("thread.not_started", extra={"error": error})

    def _run_jobs(self) -> None:
        get, runs, add_outcome = self._queue.get, self._runs, self._in_flight.add_outcome
        storage, logs_each, notes = self._storage, self._logs_each, self._in_flight.notes
        while (item := get()) is not None:
            job, handler = item
            run = Run(job, handler, notes)
            if handler.isolate is not None:
                run.handle = Child(run)
            runs[run] = run
            result: object = None
            error: BaseException | None = None
            try:
                # In a new context, because the next job must not see the variables that a handler sets.
                result = Context().run(_call_handler, run, storage, logs_each)
            except BaseException as raised:  # anything that a handler raises, even SystemExit, fails only its job
                error = raised
            if runs.pop(run, None) is None:
                # The job timed out, was released or was lost meanwhile, and another thread may have replaced this one.
                if not isinstance(error, Cancelled) and run.handle is None:
                    log.info("job.ended_late", extra=log_fields(job))
                with self._count_lock:
                    self._threads -= 1
                return
            if error is None and result is None and run.running_job is None and not logs_each:
                add_outcome(Completed(job))
            else:
                add_outcome(run.ended(result, error, logs_each=logs_each), job)
                del error, result  # do not keep them alive until the next job


def _call_handler(run: Run, storage: BaseStorage, logs_each: bool) -> Any:
    job, handler = run.job, run.handler
    running_job.set(job)
    if handler.capture_logs:
        run.capture_logs()
    if logs_each:
        log.debug("job.started", extra=log_fields(job))
    if run.handle is not None:
        return run.handle.call(storage)
    # The same as run.arguments, but it saves a call for most handlers.
    return handler.function(**(run.arguments(storage) if handler.wants_job else handler.arguments(job)))
