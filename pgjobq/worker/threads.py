"""Threads that run sync handlers."""

from __future__ import annotations

import inspect
import logging
import threading
import time
from queue import Empty, SimpleQueue

from pgjobq.errors import BadArguments, JobTimeout
from pgjobq.handlers import Handler
from pgjobq.models import Job
from pgjobq.storage.base import BaseStorage, Released
from pgjobq.worker.hand import Hand
from pgjobq.worker.running import Run, described, verdict

log = logging.getLogger("pgjobq.worker")


class ThreadRunner:
    """Runs at most `concurrency` sync handlers at once, a thread each.

    A handler cannot be stopped from outside: after its timeout its job is settled without it, its thread is
    left to end by itself, and another takes its place.
    """

    def __init__(self, hand: Hand, storage: BaseStorage, concurrency: int) -> None:
        self._hand, self._storage, self._concurrency = hand, storage, concurrency
        self._queue: SimpleQueue[tuple[Job, Handler] | None] = SimpleQueue()
        # By id(): whoever takes a run out decides its outcome, and nobody takes out another of the same thread.
        self._runs: dict[int, Run] = {}
        self._threads, self._count_lock = 0, threading.Lock()

    def submit(self, job: Job, handler: Handler) -> None:
        """Run a job when a thread is free."""
        if self._threads < self._concurrency:
            self._add_thread()
        self._queue.put((job, handler))

    def running(self) -> list[Run]:
        """The runs under way."""
        return list(self._runs.values())

    def release(self) -> None:
        """Give back the jobs that no thread has started."""
        while True:
            try:
                item = self._queue.get_nowait()
            except Empty:
                return
            if item is not None:
                self._hand.finish(Released(item[0]))

    def check_deadlines(self) -> float | None:
        """Settle the runs that are past their timeout; seconds until the next deadline, None: there is none."""
        nearest: float | None = None
        now = time.monotonic()
        for key, run in list(self._runs.items()):
            if run.deadline is None:
                continue
            if run.deadline > now:
                nearest = min(nearest or run.deadline, run.deadline)
            elif self._runs.pop(key, None) is not None:
                self._add_thread()
                error = JobTimeout(f"ran longer than {run.handler.timeout} seconds")
                self._hand.finish(verdict(run.job, run.handler, error))
        return None if nearest is None else nearest - now

    def abandon(self, run: Run, *, release: bool) -> None:
        """Let a run go on without us: its job is released, or lost already."""
        if self._runs.pop(id(run), None) is not None:
            if run.running_job is not None:
                object.__setattr__(run.running_job, "lost", True)
            self._hand.finish(Released(run.job) if release else None)
            if not release:
                self._add_thread()

    def stop(self) -> None:
        """End the threads as they fall idle."""
        for _ in range(self._threads):
            self._queue.put(None)

    def _add_thread(self) -> None:
        with self._count_lock:
            self._threads += 1
        threading.Thread(target=self._work, name=f"pgjobq-run-{self._threads}", daemon=True).start()

    def _work(self) -> None:
        get, runs, finish, storage = self._queue.get, self._runs, self._hand.finish, self._storage
        while (item := get()) is not None:
            job, handler = item
            run = Run(job, handler)
            runs[id(run)] = run
            error: BaseException | None = None
            try:
                result = handler.function(**run.arguments(storage))
                if result is not None and inspect.isawaitable(result):
                    error = _not_run(result)
            except BaseException as raised:  # whatever a handler raises, SystemExit too, is its job's failure
                error = raised
            if runs.pop(id(run), None) is None:
                # Timed out, released or lost meanwhile; a new thread has our place.
                log.info("job.ended_late", extra=described(job))
                with self._count_lock:
                    self._threads -= 1
                return
            finish(run.ended(error))


def _not_run(result: object) -> BaseException:
    """The error of a sync wrapper around an async handler: its coroutine was made, and never ran."""
    if inspect.iscoroutine(result):
        result.close()
    return BadArguments(
        "the handler is not async, but returned an awaitable, which nobody runs; make its wrapper async"
    )
