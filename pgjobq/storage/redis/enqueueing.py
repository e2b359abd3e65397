"""Adding jobs, each call by one script: all or none."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Any

from pgjobq.arrival import arriving
from pgjobq.errors import DuplicateJob, InvalidJob
from pgjobq.models import Job, NewJob
from pgjobq.storage.redis.connection import Server
from pgjobq.storage.redis.rows import delay_of, microseconds, text_of

MAX_JOBS = 100_000  # of one enqueue_many; the server does nothing else meanwhile, some two seconds for so many
MAX_DATA = 256 * 2**20  # bytes of one call; Redis closes the connection at 512 MB a value, and at 1 GB a command


def add(server: Server, jobs: Sequence[NewJob]) -> None:
    """Add new jobs, in order. Raises DuplicateJob, and InvalidJob for more than one call can take."""
    if len(jobs) > MAX_JOBS:
        raise InvalidJob(f"jobs: {len(jobs)} are too many for one call; give at most {MAX_JOBS}", field="jobs")
    known = server.call("enqueue", *_check_size([_new_row(job) for job in jobs]))
    if known is not None:
        raise DuplicateJob(f"job_id: {text_of(known)!r} exists already; give another id")


def take_in(server: Server, jobs: Sequence[Job]) -> int:
    """Add jobs with their state, unless their id is there already; how many were added. Raises InvalidJob."""
    rows = _check_size([_arriving_row(*arriving(job)) for job in jobs])
    return int(server.call("import", *rows)) if rows else 0


def _new_row(job: NewJob) -> bytes:
    """A job for enqueue.lua."""
    when = ""
    if job.delay is not None:
        when = f"d{delay_of(job.delay)}"
    elif job.execute_at is not None:
        try:
            when = str(microseconds(job.execute_at.astimezone(UTC)))
        except OverflowError:
            raise InvalidJob("execute_at: is not within the years 1 to 9999, in UTC", field="execute_at") from None
    row = (job.id, job.type, job.queue, str(job.priority), str(job.max_retries), when, job.json)
    return "\0".join(row).encode()


def _check_size(rows: list[bytes]) -> list[bytes]:
    """The rows, when they are not too large for one call. Raises InvalidJob."""
    if (size := sum(map(len, rows))) > MAX_DATA:
        raise InvalidJob(
            f"data: {size} bytes in one call are more than the {MAX_DATA} that Redis can be given;"
            " enqueue fewer jobs at once, or store the bulk elsewhere and enqueue a reference",
            field="data",
        )
    return rows


def _arriving_row(job: Job, encoded: str) -> bytes:
    """A job for import.lua, with its data as JSON."""
    values: dict[str, Any] = {
        "type": job.type,
        "queue": job.queue,
        "data": encoded,
        "status": job.status,
        "priority": job.priority,
        "attempts": job.attempts,
        "max_retries": job.max_retries,
        "error": job.error,
    }
    times = ("created_at", "updated_at", "execute_at", "started_at", "finished_at", "failed_at")
    for name in times:
        moment = getattr(job, name)
        values[name] = None if moment is None else microseconds(moment)
    due = values["created_at"] if job.execute_at is None else values["execute_at"]
    pairs = [str(word) for name, value in values.items() if value is not None for word in (name, value)]
    return "\0".join([job.id, str(due), str(values["created_at"]), *pairs]).encode()
