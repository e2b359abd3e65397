"""What the log says of a worker that died: its jobs by their ids, and which of them may have killed it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pgjobq.events import EventLog

log = EventLog("pgjobq.storage")

MAX_CRASHES = 3  # crashes of a job, one after the other, at which it fails
NAMED = 40  # jobs that one line names


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
    fields = {"worker_id": worker_id, "worker_name": name, "stood": stood, "rescued": rescued, "failed": failed}
    listed = {"job_ids": " ".join(job_ids[:NAMED])}
    if failed_ids:
        listed["failed_ids"] = " ".join(failed_ids[:NAMED])
    if crashes:
        listed["crashes"] = " ".join(f"{job_id}:{count}" for job_id, count in list(crashes.items())[:NAMED])
    log.warning("jobs.rescued", extra=fields | listed)
