"""Every error of pgjobq: one root, a child for each thing a caller may catch.

The docstring of a class is its default message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MAX_DELAY = 3.2e9  # seconds, a hundred years: what a timestamp can take


class PgjobqError(Exception):
    """Something went wrong in pgjobq."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message if message is not None else (type(self).__doc__ or "").split("\n")[0])


class InvalidJob(PgjobqError, ValueError):
    """A value given for a job is not allowed.

    `field` names the argument, when it is known.
    """

    def __init__(self, message: str | None = None, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class DuplicateJob(PgjobqError):
    """A job with this id exists already."""


class KeyTaken(PgjobqError):
    """Another job has this unique key."""


class JobNotFound(PgjobqError, LookupError):
    """There is no job with this id."""


class LostJob(PgjobqError):
    """The caller does not hold this job any more, or it is in no state for that: nothing was changed."""


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


class StorageError(PgjobqError):
    """The storage could not do what was asked."""


class JobsHeld(StorageError):
    """Another transaction holds the rows of these jobs; try again when it has ended.

    Raised by settle, `outcomes` are those that were not settled, and `lost` those whose job was lost; all others
    are settled.
    """

    def __init__(self, message: str | None = None, *, outcomes: Sequence[Any] = (), lost: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.outcomes, self.lost = list(outcomes), list(lost)


class StorageUnavailable(StorageError):
    """The database does not answer."""


class NotMigrated(StorageError):
    """The database has no pgjobq schema of the version needed; run: pgjobq migrate."""


class SchemaTooNew(StorageError):
    """The database's pgjobq schema is newer than this package; upgrade pgjobq."""


class SchemaConflict(StorageError):
    """The schema, or something in it, is not pgjobq's own; choose another."""


class Unsupported(PgjobqError):
    """This storage cannot do that."""


class ConfigurationError(PgjobqError, ValueError):
    """A worker, queue, handler or connection is set up wrongly."""


class Retry(Exception):
    """Raised by a handler: run the job again after `delay` seconds (None: after its backoff).

    It counts as a try: when all are used up, the job fails, with `reason` as its error. A delay that is no number of
    seconds raises InvalidJob there and then, which is the job's error like any other.
    """

    def __init__(self, delay: float | None = None, reason: str = "") -> None:
        if delay is not None and (
            isinstance(delay, bool) or not isinstance(delay, int | float) or not 0 <= delay <= MAX_DELAY
        ):
            raise InvalidJob(f"delay: {delay!r} is not allowed; give seconds from 0 to {MAX_DELAY:.0f}", field="delay")
        super().__init__(reason or "the handler asked for another try")
        self.delay = delay
        self.reason = reason

    def __reduce__(self) -> tuple[type[Retry], tuple[float | None, str]]:
        # By default an exception is unpickled from its message alone.
        return type(self), (self.delay, self.reason)


class Fail(Exception):
    """Raised by a handler: fail the job now, without another try. `reason` is its error."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason or "the handler gave no reason")
        self.reason = reason
