"""What became of a start."""

from __future__ import annotations

from dataclasses import dataclass

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
