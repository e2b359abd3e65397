"""The outcomes of jobs and the results of maintenance, which a worker and a storage exchange."""

from __future__ import annotations

import json
from abc import ABC
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Any

from pgjobq.encoding import encode_json
from pgjobq.models import Job, JobStatus


@dataclass(frozen=True, slots=True)
class Completed:
    """The job's handler returned. result: what it returned, as JSON; None: nothing, or nothing that is kept."""

    job: Job
    result: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The job failed for good. ended: how the try ended, "raised", "timed out" or "worker died"."""

    job: Job
    error: str
    ended: str = "raised"


@dataclass(frozen=True, slots=True)
class Retried:
    """The job failed and gets another try after delay seconds. ended: as in Failed."""

    job: Job
    delay: float
    error: str | None  # None: the job keeps the error it has
    ended: str = "raised"


@dataclass(frozen=True, slots=True)
class Released:
    """The worker gives the job back. It is due again after delay seconds, and the start is not counted.

    ran: the handler has begun.
    """

    job: Job
    delay: float = 0.0
    ran: bool = False


@dataclass(frozen=True, slots=True)
class Snoozed(Released):
    """The handler ran and asked to run again after delay seconds. Storages settle it as Released."""


Outcome = Completed | Failed | Retried | Released


def status_after(outcome: Outcome) -> JobStatus:
    """Return the status of a job that was settled with this outcome."""
    match outcome:
        case Completed():
            return JobStatus.COMPLETED
        case Failed():
            return JobStatus.FAILED
        case Retried() | Released():
            return JobStatus.PENDING


@dataclass(frozen=True, kw_only=True)
class Maintenance:
    """The result of a call of maintain. lost: jobs that this worker lost. again_in: seconds until the next call."""

    lost: Sequence[Job] = ()
    rescued: int = 0
    again_in: float = 5.0


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """The result of a call of prune_some. jobs: how many it deleted. again_in: seconds until the next call."""

    jobs: int = 0
    again_in: float = 60.0


class JobTransaction(AbstractContextManager[Any], AbstractAsyncContextManager[Any], ABC):
    """The database transaction of a handler, which completes the job just before it commits.

    `with` yields a connection for sync handlers, and `async with` yields one for async handlers. When the body ends,
    the job is completed in the same transaction. Both happen, or neither. If the job was lost, the transaction is
    rolled back and LostJob is raised.
    """

    settled = False  # True after the commit
    _result: str | None = None

    @property
    def result(self) -> Any:
        """The job's result, which is kept when the transaction commits. Set it within the block.

        The handler's return value is not known yet when the block ends, so it is not kept. Raises InvalidJob, with the
        path of the culprit, for a value that JSON cannot hold.
        """
        return None if self._result is None else json.loads(self._result)

    @result.setter
    def result(self, value: Any) -> None:
        self._result = None if value is None else encode_json(value, "result")

    def interrupt(self) -> bool:
        """End the statement that runs in it, if the storage can. Called by another thread. False if it is not open."""
        return False
