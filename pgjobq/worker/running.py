"""One run of a job: the arguments of its handler, and its outcome."""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import fields
from functools import partial
from types import AsyncGeneratorType, GeneratorType
from typing import Any, Protocol

from pgjobq.definitions import place_of
from pgjobq.encoding import encode_json
from pgjobq.errors import MAX_DELAY, Cancelled, ConfigurationError, InvalidJob, JobTimeout, ProcessDied
from pgjobq.events import EventLog
from pgjobq.explaining import class_name
from pgjobq.handlers import Handler
from pgjobq.models import Job
from pgjobq.outcomes import Snoozed
from pgjobq.reports import Line, Report
from pgjobq.storage.base import BaseStorage, Completed, Failed, JobTransaction, Outcome, Retried
from pgjobq.worker.capturing import start_capture
from pgjobq.worker.interrupting import interrupt
from pgjobq.worker.raised import Raised, raised_by

log = EventLog("pgjobq.worker")

_ENDS: dict[type, str] = {JobTimeout: "timed out", ProcessDied: "worker died"}  # how a try ended; see Failed


class OpensTransactions(Protocol):
    """A storage, as a RunningJob needs it."""

    def transaction(self, job: Job) -> JobTransaction:
        """Return a transaction that completes the job when it commits."""


class TakesReports(Protocol):
    """The Notes of a worker, as a Run needs them."""

    def report(self, job: Job, report: Report) -> None:
        """Take what the handler of a job reports."""

    def line(self, job: Job, line: Line) -> None:
        """Take what the handler of a job logs."""


class RunningJob(Job):
    """The Job that a handler receives as `job`. It can be completed inside the handler's own transaction."""

    __slots__ = ("_report", "_storage", "lost", "settled_elsewhere", "transactions")

    _report: Callable[[Report], None]
    _storage: OpensTransactions
    lost: bool  # True once the job was lost or timed out; a long handler may check it and stop
    settled_elsewhere: bool  # True once a transaction in the handler's own process has completed the job
    transactions: list[JobTransaction]

    @classmethod
    def from_job(
        cls, job: Job, storage: OpensTransactions, report: Callable[[Report], None] = lambda _: None
    ) -> RunningJob:
        """Return a RunningJob with the fields of a job. report: takes what the handler reports."""
        running = cls(**{f.name: getattr(job, f.name) for f in fields(Job)})
        extra = {"_storage": storage, "lost": False, "settled_elsewhere": False, "transactions": []}
        extra["_report"] = report
        for name, value in extra.items():
            object.__setattr__(running, name, value)
        return running

    def check(self) -> None:
        """Raise Cancelled if the job was cancelled or lost, or its time is over. For the loops of long sync handlers.

        Costs no call of the database: the worker is told. Any thread may call it.
        """
        if self.lost:
            raise Cancelled(f"job {self.id} was cancelled or lost, or its time is over: its outcome is decided")

    def progress(self, fraction: float, message: str | None = None, **meta: Any) -> None:
        """Report how far the handler is: the share that is done, from 0 to 1, a text, and anything that JSON can hold.

        Never waits for the database. The worker writes the first report at once, and after that the last one of each
        second; queue.progress() and `pgjobq show` read it. Storages other than PostgreSQL drop it. Any thread may call
        it. Raises InvalidJob, which names the argument that is wrong.
        """
        report = Report.checked(fraction, message, meta)
        if not self.lost:
            self._report(report)

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

    __slots__ = ("_notes", "deadline", "handle", "handler", "job", "running_job")

    def __init__(self, job: Job, handler: Handler, notes: TakesReports) -> None:
        self.job, self.handler, self._notes = job, handler, notes
        self.handle: Any = None  # the asyncio task of an async handler, or the Child of an isolated one
        self.running_job: RunningJob | None = None
        self.deadline = None if handler.timeout is None else time.monotonic() + handler.timeout

    def arguments(self, storage: BaseStorage) -> dict[str, Any]:
        """Return the handler's keyword arguments. Raises BadArguments if the job's data does not fit them."""
        if not self.handler.wants_job:
            return self.handler.arguments(self.job)
        self.running_job = RunningJob.from_job(self.job, storage, self.report)
        return self.handler.arguments(self.job, self.running_job)

    def report(self, report: Report) -> None:
        """Take what the handler reports."""
        self._notes.report(self.job, report)

    def capture_logs(self) -> None:
        """Take what is logged in this context."""
        start_capture(partial(self._notes.line, self.job))

    def ended(self, result: object, error: BaseException | None, *, logs_each: bool) -> Outcome | None:
        """Return the outcome of a run that returned or raised, or None if the job is settled already. Never raises.

        logs_each: log the completion too.
        """
        try:
            wrong = problem_with_result(result) if error is None and result is not None else ""
            if self._is_settled():
                if error is not None:
                    raised = raised_by(error)
                    told = log_fields(self.job) | {"error": raised.headline}
                    log.error("job.error_after_settling", extra=told, trace=raised.text)
                elif result is not None and self.handler.keep_result and not self._has_result():
                    log.warning("job.result_dropped", extra=log_fields(self.job))
                # The storage of this process does not know yet what happened in the handler's process.
                return Completed(self.job) if self.running_job and self.running_job.settled_elsewhere else None
            if wrong:
                misused = ConfigurationError(f"handler {place_of(self.handler.function)}: {wrong}")
                return verdict(self.job, None, misused)
            if error is None:
                outcome = completion(self.job, self.handler, result)
                if logs_each and isinstance(outcome, Completed):
                    log.debug("job.completed", extra=log_fields(self.job))
                return outcome
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
        job = self.running_job
        return job is not None and (job.settled_elsewhere or any(t.settled for t in job.transactions))

    def _has_result(self) -> bool:
        """Return whether the transaction that completed the job has a result, or may have one in another process."""
        job = self.running_job
        return job is not None and (job.settled_elsewhere or any(t.result is not None for t in job.transactions))


def completion(job: Job, handler: Handler, result: object) -> Outcome:
    """Return Completed, with what the handler returned as its result; or Failed if that cannot be kept.

    The job gets no other try then, because the handler has done its work, and would only do it again to return such a
    value again.
    """
    text, problem = kept_result(result, keep=handler.keep_result)
    return verdict(job, None, InvalidJob(problem, field="result")) if problem else Completed(job, text)


def kept_result(result: object, *, keep: bool) -> tuple[str | None, str]:
    """Return what a handler returned as JSON, None for nothing; and what is wrong with it, or ''."""
    if result is None or not keep:
        return None, ""
    try:
        return encode_json(result, "result"), ""
    except InvalidJob as error:  # not passed on, because its traceback would keep the result alive
        return None, f"{error}; or drop what the handler returns, with @job(keep_result=False)"


def verdict(job: Job, handler: Handler | None, error: BaseException) -> Outcome:
    """Return Retried if tries are left and the error is not final, else Failed. Never raises, whatever it is."""
    ended = _ENDS.get(type(error), "raised")
    try:
        raised = raised_by(error)
        fields = log_fields(job) | {"error": raised.headline}
        if raised.snoozed is not None and handler is not None:
            log.info("job.snoozed", extra=fields | {"delay": round(raised.snoozed, 3)})
            return Snoozed(job, raised.snoozed)
        trace = None if raised.on_purpose else raised.text
        if raised.final or handler is None or job.tries > job.max_retries:
            log.warning("job.failed", extra=fields, trace=trace)
            return Failed(job, raised.text, ended)
        delay, text = _delay(job, handler, raised)
        log.info("job.retried", extra=fields | {"delay": round(delay, 3)}, trace=trace)
        return Retried(job, delay, text, ended)
    except BaseException as broken:
        log.error("job.failed", extra=log_fields(job) | {"error": class_name(error)}, exc_info=broken)
        return Failed(job, class_name(error), ended)


def _delay(job: Job, handler: Handler, raised: Raised) -> tuple[float, str]:
    """Return the seconds until the next try, and the error's text, with a note if the delay of a Retry is invalid."""
    if raised.delay is not None:
        return raised.delay, raised.text
    seconds = handler.delay(max(job.tries, 1))
    if not raised.bad_delay:
        return seconds, raised.text
    problem = f"delay: {raised.bad_delay} is not a number of seconds from 0 to {MAX_DELAY:.0f}; the backoff was used"
    log.warning("retry.bad_delay", extra=log_fields(job) | {"delay": raised.bad_delay})
    return seconds, f"{raised.text}\n({problem} instead)"


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
