"""One run of a job: what its handler is given, and what comes of it."""

from __future__ import annotations

import logging
import time
import traceback
from dataclasses import fields
from typing import Any

from pgjobq.errors import BadArguments, Fail, JobTimeout, LostJob, Retry, UnknownJobType
from pgjobq.handlers import Handler
from pgjobq.models import Job
from pgjobq.storage.base import BaseStorage, Completed, Failed, JobTransaction, Outcome, Retried

log = logging.getLogger("pgjobq.worker")

MAX_ERROR = 20_000  # characters of an error that are kept


class RunningJob(Job):
    """The Job that a handler receives as `job`: it can settle itself inside the handler's transaction."""

    __slots__ = ("_storage", "lost", "transactions")

    _storage: BaseStorage
    lost: bool  # the worker has lost this job: a long handler may look, and stop
    transactions: list[JobTransaction]

    @classmethod
    def of(cls, job: Job, storage: BaseStorage) -> RunningJob:
        """A RunningJob with the fields of a job."""
        running = cls(**{f.name: getattr(job, f.name) for f in fields(Job)})
        for name, value in (("_storage", storage), ("lost", False), ("transactions", [])):
            object.__setattr__(running, name, value)
        return running

    def transaction(self) -> JobTransaction:
        """A database transaction that completes this job when it commits: both happen, or neither.

        `with job.transaction() as conn:` in a sync handler, `async with` in an async one. Raises LostJob, rolled
        back, when the job was given to another meanwhile. Do the handler's work in it, and nothing after it.
        """
        transaction = self._storage.transaction(self)
        self.transactions.append(transaction)
        return transaction


class Run:
    """A job being run: who may decide its outcome, and since when it runs."""

    __slots__ = ("deadline", "handle", "handler", "job", "running_job")

    def __init__(self, job: Job, handler: Handler) -> None:
        self.job, self.handler = job, handler
        self.handle: Any = None  # what stops it, where something can
        self.running_job: RunningJob | None = None
        self.deadline = None if handler.timeout is None else time.monotonic() + handler.timeout

    def arguments(self, storage: BaseStorage) -> dict[str, Any]:
        """The handler's keyword arguments; BadArguments when data does not fit."""
        if not self.handler.wants_job:
            return self.handler.arguments(self.job)
        self.running_job = RunningJob.of(self.job, storage)
        return self.handler.arguments(self.job, self.running_job)

    def ended(self, error: BaseException | None) -> Outcome | None:
        """The outcome of a run that returned or raised; None when there is nothing left to settle."""
        if self.running_job is not None and any(t.settled for t in self.running_job.transactions):
            if error is not None:
                log.error("job.error_after_settling", extra=described(self.job), exc_info=error)
            return None
        if error is None:
            return Completed(self.job)
        if isinstance(error, LostJob):
            log.warning("job.lost", extra=described(self.job))
            return None
        return verdict(self.job, self.handler, error)


def verdict(job: Job, handler: Handler | None, error: BaseException) -> Outcome:
    """Retry, while tries are left and the error is not final; fail otherwise."""
    text = explain(error)
    final = isinstance(error, Fail | BadArguments | UnknownJobType) or handler is None
    if final or job.attempts > job.max_retries:
        log.warning("job.failed", extra={**described(job), "error": str(error)})
        return Failed(job, text)
    assert handler is not None  # without one it is final
    delay = error.delay if isinstance(error, Retry) and error.delay is not None else handler.delay(job.attempts)
    log.info("job.retried", extra={**described(job), "error": str(error), "delay": round(delay, 3)})
    return Retried(job, max(0.0, delay), text)


def explain(error: BaseException) -> str:
    """Type, message and traceback, shortened in the middle when very long."""
    if isinstance(error, Retry | Fail | BadArguments | UnknownJobType | JobTimeout):
        text = f"{type(error).__name__}: {error}"
    else:
        message = traceback.format_exception_only(error)[-1].strip()
        # The first frame is the worker's own.
        frames = traceback.format_tb(error.__traceback__)[1:]
        text = message + ("\nTraceback (most recent call last):\n" + "".join(frames) + message if frames else "")
    half = MAX_ERROR // 2
    return text if len(text) <= MAX_ERROR else f"{text[:half]}\n...\n{text[-half:]}"


def described(job: Job) -> dict[str, Any]:
    """The fields that log lines about a job carry."""
    return {"job_id": job.id, "job_type": job.type, "queue": job.queue, "attempts": job.attempts}
