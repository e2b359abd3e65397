"""Log the jobs of dead workers, and run each such job alone until it has ended once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from pgjobq.events import EventLog
from pgjobq.models import Job
from pgjobq.outcomes import Released

log = EventLog("pgjobq.storage")

MAX_CRASHES = 3  # consecutive crashes of a job after which it fails
NAMED = 40  # the most jobs that a log line names
DRAIN_FOR = 5.0  # seconds for which a worker claims nothing, so that a suspect can run alone
DRAIN_AGAIN = 60.0  # seconds until the worker tries this again, if its jobs did not end in time
LEFT_FOR = 1.0  # seconds for which a released suspect is hidden


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
    """Log that the jobs of a dead worker were rescued, or failed because they have crashed too often.

    rescued, failed: the numbers of jobs. stood: seconds since the worker's last sign of life. job_ids: all jobs.
    crashes: the jobs that have crashed more than once. A line names at most 40 jobs.
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
    """Log the same for a storage that knows how often each of the jobs has crashed, this crash included."""
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
    """Runs suspects apart from other jobs, for a storage whose claims do not do this. Not thread-safe."""

    def __init__(self) -> None:
        self._drain_until = self._drain_again = 0.0

    def must_wait(self, held: Sequence[Job]) -> bool:
        """Return whether to claim nothing more, because a held job is a suspect, or a suspect waits for held jobs."""
        if not held:
            self._drain_until = 0.0
            return False
        return time.monotonic() < self._drain_until or any(job.crashes for job in held)

    def apart(self, jobs: Sequence[Job], held: Sequence[Job]) -> tuple[list[Job], list[Released]]:
        """Split claimed jobs into the jobs to run and the jobs to release. A suspect runs only if no other job does."""
        if not held and jobs[0].crashes:
            return [*jobs[:1]], [Released(job) for job in jobs[1:]]
        now = time.monotonic()
        if now >= self._drain_again:
            self._drain_until, self._drain_again = now + DRAIN_FOR, now + DRAIN_AGAIN
        return [job for job in jobs if not job.crashes], [Released(job, LEFT_FOR) for job in jobs if job.crashes]
