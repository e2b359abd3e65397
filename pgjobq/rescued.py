"""What is done about jobs whose worker died: the log names them, and each runs by itself until it has ended once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from pgjobq.events import EventLog
from pgjobq.models import Job
from pgjobq.outcomes import Released

log = EventLog("pgjobq.storage")

MAX_CRASHES = 3  # crashes of a job, one after the other, at which it fails
NAMED = 40  # jobs that one line names
DRAIN_FOR = 5.0  # seconds for which a worker claims nothing, to be alone for a job whose worker crashed
DRAIN_AGAIN = 60.0  # seconds until it tries that again, when its jobs did not end
LEFT_FOR = 1.0  # seconds for which such a job is left to others


def tell_rescued(
    *,
    worker_id: int | None,
    name: str | None,
    stood: float | None,
    rescued: int,
    failed: int,
    job_ids: Sequence[str],
    failed_ids: Sequence[str] | None = None,
    crashes: Mapping[str, int] | None = None,
) -> None:
    """Log that the jobs of a dead worker were taken from it: rescued went back in line, failed have crashed too often.

    stood: seconds since the worker gave its last sign of life. job_ids: all of them. crashes: of those jobs that have
    crashed more than once. A line names 40 jobs at most.
    """
    fields: dict[str, object] = {"worker_id": worker_id, "worker_name": name, "stood": stood}
    fields |= {"rescued": rescued, "failed": failed}
    listed = {"job_ids": " ".join(job_ids[:NAMED])}
    if failed_ids:
        listed["failed_ids"] = " ".join(failed_ids[:NAMED])
    if crashes:
        listed["crashes"] = " ".join(f"{job_id}:{count}" for job_id, count in list(crashes.items())[:NAMED])
    log.warning("jobs.rescued", extra=fields | listed)


def tell_crashes(worker_id: int | None, name: str | None, stood: float | None, crashes: Mapping[str, int]) -> None:
    """The same for a storage that knows of each job of the dead worker how often it has crashed, this time included."""
    failed = [job_id for job_id, count in crashes.items() if count >= MAX_CRASHES]
    tell_rescued(
        worker_id=worker_id,
        name=name,
        stood=None if stood is None else round(stood, 3),
        rescued=len(crashes) - len(failed),
        failed=len(failed),
        job_ids=list(crashes),
        failed_ids=failed,
        crashes={job_id: count for job_id, count in crashes.items() if count > 1},
    )


class Suspects:
    """Keeps jobs whose worker crashed apart from others, in a storage whose claims do not. Not thread-safe."""

    def __init__(self) -> None:
        self._drain_until = self._drain_again = 0.0

    def must_wait(self, held: Sequence[Job]) -> bool:
        """Whether to claim nothing beside the jobs that are held: one is a suspect, or one waits for their end."""
        if not held:
            self._drain_until = 0.0
            return False
        return time.monotonic() < self._drain_until or any(job.crashes for job in held)

    def apart(self, jobs: Sequence[Job], held: Sequence[Job]) -> tuple[list[Job], list[Released]]:
        """Of the jobs of a claim those to run, and those to give back: a suspect runs when no other does."""
        if not held and jobs[0].crashes:
            return [*jobs[:1]], [Released(job) for job in jobs[1:]]
        now = time.monotonic()
        if now >= self._drain_again:
            self._drain_until, self._drain_again = now + DRAIN_FOR, now + DRAIN_AGAIN
        return [job for job in jobs if not job.crashes], [Released(job, LEFT_FOR) for job in jobs if job.crashes]
