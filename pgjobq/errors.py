"""The exceptions of pgjobq. They have one root, and a class for each error that a caller may want to catch.

The first line of a class's docstring is its default message.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from pgjobq.plain import seconds_of

MAX_DELAY = 3.2e9  # seconds, a hundred years; a timestamp can hold the result


class PgjobqError(Exception):
    """Something went wrong in pgjobq."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message if message is not None else (type(self).__doc__ or "").split("\n")[0])


class InvalidJob(PgjobqError, ValueError):
    """A value given for a job is not allowed.

    `field` names the argument, if it is known.
    """

    def __init__(self, message: str | None = None, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class InvalidSchedule(InvalidJob):
    """A value given for a schedule is not allowed."""


class DuplicateJob(PgjobqError):
    """A job with this id exists already."""


class KeyTaken(PgjobqError):
    """Another job has this unique key."""


class JobNotFound(PgjobqError, LookupError):
    """There is no job with this id."""


class ScheduleNotFound(PgjobqError, LookupError):
    """There is no schedule with this id."""


class LostJob(PgjobqError):
    """The caller does not hold this job any more, or its status does not allow this; nothing was changed."""


class Cancelled(LostJob):
    """The job was cancelled or lost while its handler ran, or its time is over.

    Raised in the handler by `job.check()` and `job.transaction()`. The outcome of the run is decided by then: what the
    handler returns or raises is ignored.
    """


class UnknownJobType(PgjobqError):
    """No handler is registered for this type of job."""


class BadArguments(PgjobqError):
    """The job's data does not fit its handler's parameters."""


class JobTimeout(PgjobqError):
    """The handler ran longer than its timeout."""


class ProcessDied(PgjobqError):
    """The process of an isolated handler ended before the handler did."""


class JobFailed(PgjobqError):
    """The job failed or was cancelled, so there is no result.

    `job` is the job, with its status and error.
    """

    def __init__(self, message: str | None = None, *, job: Any = None) -> None:
        super().__init__(message)
        self.job = job


class WaitTimeout(PgjobqError, TimeoutError):
    """The jobs have not ended in time. They are not cancelled.

    `ended` are the jobs that have ended, and `waiting` the ids of the others.
    """

    def __init__(self, message: str | None = None, *, ended: Sequence[Any] = (), waiting: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.ended, self.waiting = list(ended), list(waiting)


class StorageError(PgjobqError):
    """The storage could not do this."""


class JobsHeld(StorageError):
    """Another transaction has locked the rows of these jobs; try again when it has ended.

    When settle raises this, `outcomes` are the outcomes that were not settled, and `lost` are the outcomes whose job
    was lost. All other outcomes are settled.
    """

    def __init__(self, message: str | None = None, *, outcomes: Sequence[Any] = (), lost: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.outcomes, self.lost = list(outcomes), list(lost)


class StorageUnavailable(StorageError):
    """The database does not answer."""


class NotMigrated(StorageError):
    """The database does not have the pgjobq schema of this version; run: pgjobq migrate."""


class SchemaTooNew(StorageError):
    """The database's pgjobq schema is newer than this package; upgrade pgjobq."""


class SchemaConflict(StorageError):
    """The schema, or something in it, is not pgjobq's own; choose another."""


class Unsupported(PgjobqError):
    """This storage does not support this."""


class ConfigurationError(PgjobqError, ValueError):
    """A worker, queue, handler or connection is configured wrongly."""


class Retry(Exception):
    """A handler raises this to run its job again after `delay` seconds, or a timedelta. None means after its backoff.

    The run counts as a try. When the tries are used up, the job fails with `reason` as its error. Creating a Retry with
    an invalid delay raises InvalidJob in the handler, which counts like any other error of the job.
    """

    def __init__(self, delay: float | timedelta | None = None, reason: str = "") -> None:
        delay = seconds_of(delay)
        if delay is not None and (
            isinstance(delay, bool) or not isinstance(delay, int | float) or not 0 <= delay <= MAX_DELAY
        ):
            raise InvalidJob(f"delay: {delay!r} is not allowed; use seconds from 0 to {MAX_DELAY:.0f}", field="delay")
        super().__init__(reason or "the handler asked for another try")
        self.delay = delay
        self.reason = reason

    def __reduce__(self) -> tuple[type[Retry], tuple[float | None, str]]:
        # Without this, unpickling would pass the message as the delay.
        return type(self), (self.delay, self.reason)


class Snooze(Exception):
    """A handler raises this to run its job again after `delay` seconds, or a timedelta, at no cost of a try.

    Use it to wait for something. Nothing else bounds how often a job may do this, so a handler that waits for what may
    never come has to look at `job.created_at` and raise Fail. The job's error stays as it was. A storage with only the
    seven methods of BaseStorage counts the try. Creating a Snooze with an invalid delay raises InvalidJob.
    """

    def __init__(self, delay: float | timedelta, reason: str = "") -> None:
        delay = seconds_of(delay)
        if isinstance(delay, bool) or not isinstance(delay, int | float) or not 0 < delay <= MAX_DELAY:
            raise InvalidJob(
                f"delay: {delay!r} is not allowed; use seconds above 0, up to {MAX_DELAY:.0f}", field="delay"
            )
        super().__init__(reason or "the handler asked to run later")
        self.delay = delay
        self.reason = reason

    def __reduce__(self) -> tuple[type[Snooze], tuple[float, str]]:
        # Without this, unpickling would pass the message as the delay.
        return type(self), (self.delay, self.reason)


class Fail(Exception):
    """A handler raises this to fail its job without another try. `reason` becomes the job's error."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason or "the handler gave no reason")
        self.reason = reason
