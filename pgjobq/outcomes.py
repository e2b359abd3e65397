"""What passes between a worker and a storage beside jobs: what became of a start, and what maintenance found."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Any

from pgjobq.models import Job, JobStatus


@dataclass(frozen=True, slots=True)
class Completed:
    """The job ran to its end."""

    job: Job


@dataclass(frozen=True, slots=True)
class Failed:
    """The job failed for good."""

    job: Job
    error: str


@dataclass(frozen=True, slots=True)
class Retried:
    """The job failed and gets another try after delay seconds."""

    job: Job
    delay: float
    error: str | None  # None: the job keeps the error it has


@dataclass(frozen=True, slots=True)
class Released:
    """The job was claimed but not run: it goes back, due after delay seconds, and the start is not counted."""

    job: Job
    delay: float = 0.0


Outcome = Completed | Failed | Retried | Released


def status_after(outcome: Outcome) -> JobStatus:
    """The status of a job that was settled so."""
    match outcome:
        case Completed():
            return JobStatus.COMPLETED
        case Failed():
            return JobStatus.FAILED
        case Retried() | Released():
            return JobStatus.PENDING


@dataclass(frozen=True, kw_only=True)
class Maintenance:
    """What one round of maintain found: starts that this worker lost, and when to come again (seconds)."""

    lost: Sequence[Job] = ()
    rescued: int = 0
    again_in: float = 5.0


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What prune_some did: jobs deleted, and when to come again (seconds)."""

    jobs: int = 0
    again_in: float = 60.0


class JobTransaction(AbstractContextManager[Any], AbstractAsyncContextManager[Any], ABC):
    """The database transaction of a handler, which completes its job as its last act.

    `with` yields a connection for sync handlers, `async with` one for async ones. When the body ends, the
    job is completed in the same transaction: both happen, or neither. LostJob rolls it back.
    """

    settled = False  # whether it has committed

    def interrupt(self) -> bool:
        """End the statement that runs in it, where the storage can; False if it is not open. For another thread."""
        return False
