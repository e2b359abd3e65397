"""One run of a job: the arguments of its handler, and its outcome."""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import fields
from types import AsyncGeneratorType, GeneratorType
from typing import Any

from pgjobq.definitions import place_of
from pgjobq.errors import (
    MAX_DELAY,
    BadArguments,
    Cancelled,
    ConfigurationError,
    Fail,
    JobTimeout,
    Retry,
    Snooze,
    UnknownJobType,
)
from pgjobq.events import EventLog
from pgjobq.explaining import VERDICTS, class_name, explain, headline, safe_text
from pgjobq.handlers import Handler
from pgjobq.models import Job
from pgjobq.outcomes import Snoozed
from pgjobq.storage.base import BaseStorage, Completed, Failed, JobTransaction, Outcome, Retried
from pgjobq.worker.interrupting import interrupt

log = EventLog("pgjobq.worker")


class RunningJob(Job):
    """The Job that a handler receives as `job`. It can be completed inside the handler's own transaction."""

    __slots__ = ("_storage", "lost", "transactions")

    _storage: BaseStorage
    lost: bool  # True once the job was lost or timed out; a long handler may check it and stop
    transactions: list[JobTransaction]

    @classmethod
    def from_job(cls, job: Job, storage: BaseStorage) -> RunningJob:
        """Return a RunningJob with the fields of a job."""
        running = cls(**{f.name: getattr(job, f.name) for f in fields(Job)})
        for name, value in (("_storage", storage), ("lost", False), ("transactions", [])):
            object.__setattr__(running, name, value)
        return running

    def check(self) -> None:
        """Raise Cancelled if the job was cancelled or lost, or its time is over. For the loops of long sync handlers.

        Costs no call of the database: the worker is told. Any thread may call it.
        """
        if self.lost:
            raise Cancelled(f"job {self.id} was cancelled or lost, or its time is over: its outcome is decided")

    def transaction(self) -> JobTransaction:
        """Open a database transaction that completes this job when it commits. Both happen, or neither.

        Use `with job.transaction() as conn:` in a sync handler and `async with` in an async one. If the job was given
        to another worker meanwhile, the transaction is rolled back and LostJob is raised. Do the handler's work in
        the transaction, and do nothing after it.
        If the worker knows already that the job was cancelled or lost, this raises Cancelled.
        """
        self.check()
        transaction = self._storage.transaction(self)
        self.transactions.append(transaction)
        return transaction


class Run:
    """A job that is being run, with its handler and its deadline."""

    __slots__ = ("deadline", "handle", "handler", "job", "running_job")

    def __init__(self, job: Job, handler: Handler) -> None:
        self.job, self.handler = job, handler
        self.handle: Any = None  # the asyncio task of an async handler
        self.running_job: RunningJob | None = None
        self.deadline = None if handler.timeout is None else time.monotonic() + handler.timeout

    def arguments(self, storage: BaseStorage) -> dict[str, Any]:
        """Return the handler's keyword arguments. Raises BadArguments if the job's data does not fit them."""
        if not self.handler.wants_job:
            return self.handler.arguments(self.job)
        self.running_job = RunningJob.from_job(self.job, storage)
        return self.handler.arguments(self.job, self.running_job)

    def ended(self, result: object, error: BaseException | None, *, logs_each: bool) -> Outcome | None:
        """Return the outcome of a run that returned or raised, or None if the job is settled already. Never raises.

        logs_each: log the completion too.
        """
        try:
            wrong = problem_with_result(result) if error is None and result is not None else ""
            if self._is_settled():
                if error is not None:
                    log.error("job.error_after_settling", extra=log_fields(self.job) | {"error": error}, exc_info=error)
                return None
            if wrong:
                misused = ConfigurationError(f"handler {place_of(self.handler.function)}: {wrong}")
                return verdict(self.job, None, misused)
            if error is None:
                if logs_each:
                    log.debug("job.completed", extra=log_fields(self.job))
                return Completed(self.job)
        except BaseException as broken:
            error = error or broken
        return verdict(self.job, self.handler, error)

    def timed_out(self) -> Outcome:
        """Return the outcome of a run that is past its deadline."""
        self.mark_lost()
        error = JobTimeout(f"ran longer than {self.handler.timeout} seconds")
        return verdict(self.job, self.handler, error)

    def mark_lost(self) -> None:
        """Set `lost` on the handler's job, because its result no longer counts; end what job.transaction() runs."""
        if self.running_job is not None:
            object.__setattr__(self.running_job, "lost", True)
            if self.running_job.transactions:
                interrupt(self.running_job.transactions)

    def _is_settled(self) -> bool:
        return self.running_job is not None and any(t.settled for t in self.running_job.transactions)


def verdict(job: Job, handler: Handler | None, error: BaseException) -> Outcome:
    """Return Retried if tries are left and the error is not final, else Failed. Never raises, whatever it is."""
    try:
        text = explain(error)
        final = isinstance(error, Fail | BadArguments | UnknownJobType) or handler is None
        fields = log_fields(job) | {"error": headline(error)}
        if handler is not None and isinstance(error, Snooze) and (later := _seconds_asked(error)) is not None:
            log.info("job.snoozed", extra=fields | {"delay": round(later, 3)})
            return Snoozed(job, later)
        trace = None if isinstance(error, VERDICTS) else text
        if final or handler is None or job.tries > job.max_retries:
            log.warning("job.failed", extra=fields, trace=trace)
            return Failed(job, text)
        delay, text = _delay(job, handler, error, text)
        log.info("job.retried", extra=fields | {"delay": round(delay, 3)}, trace=trace)
        return Retried(job, delay, text)
    except BaseException as broken:
        log.error("job.failed", extra=log_fields(job) | {"error": class_name(error)}, exc_info=broken)
        return Failed(job, class_name(error))


def _delay(job: Job, handler: Handler, error: BaseException, text: str) -> tuple[float, str]:
    """Return the seconds until the next try, and the error's text, with a note if the delay of a Retry is invalid."""
    if not isinstance(error, Retry):
        return handler.delay(max(job.tries, 1)), text
    try:
        asked: Any = getattr(error, "delay", None)  # a subclass may not have called __init__
        if asked is None:
            return handler.delay(max(job.tries, 1)), text
        if isinstance(asked, int | float) and not isinstance(asked, bool) and 0 <= asked <= MAX_DELAY:
            return float(asked), text
        wrong = safe_text(repr(asked), 100)
    except BaseException as broken:
        wrong = class_name(broken)
    problem = f"delay: {wrong} is not a number of seconds from 0 to {MAX_DELAY:.0f}; the backoff was used instead"
    log.warning("retry.bad_delay", extra=log_fields(job) | {"delay": wrong})
    return handler.delay(max(job.tries, 1)), f"{text}\n({problem})"


def _seconds_asked(error: Snooze) -> float | None:
    """Return the delay of a Snooze, or None if it has no valid one. The error then counts as any other."""
    asked: Any = getattr(error, "delay", None)  # a subclass may not have called __init__
    number = isinstance(asked, int | float) and not isinstance(asked, bool)
    return float(asked) if number and 0 < asked <= MAX_DELAY else None


def problem_with_result(result: object) -> str:
    """Return what is wrong with a result that still has to be awaited or iterated over; empty if nothing is wrong."""
    if inspect.isawaitable(result):
        wrong = "it returned an awaitable, which nothing awaits; await it in the handler, or make the wrapper async"
    elif isinstance(result, GeneratorType | AsyncGeneratorType):
        wrong = "it returned a generator, which nothing iterates over; iterate over it in the handler"
    elif isinstance(result, _CONTEXT_MANAGERS):
        wrong = "it returned a context manager, which nothing enters; enter it in the handler"
    elif hasattr(type(result), "add_done_callback"):
        wrong = "it returned a future, which nothing waits for; wait for its result in the handler"
    else:
        return ""
    if inspect.iscoroutine(result):
        result.close()  # otherwise Python warns that it was never awaited
    return wrong


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@asynccontextmanager
async def _nothing_async() -> AsyncIterator[None]:
    yield


_CONTEXT_MANAGERS = (type(_nothing()), type(_nothing_async()))


def log_fields(job: Job) -> dict[str, Any]:
    """Return the fields of log lines about a job."""
    return {"job_id": job.id, "job_type": job.type, "queue": job.queue, "attempts": job.attempts}
