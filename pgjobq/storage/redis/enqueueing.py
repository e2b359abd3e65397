"""Add jobs, all or none: each call runs one script."""

from __future__ import annotations

from collections.abc import Sequence

from pgjobq.arrival import arriving
from pgjobq.errors import DuplicateJob, InvalidJob
from pgjobq.models import Job, NewJob
from pgjobq.storage.redis.connection import Server
from pgjobq.storage.redis.rows import arriving_row, new_row, text_of

MAX_JOBS = 100_000  # of one enqueue_many; the server is blocked meanwhile, about two seconds for the maximum
MAX_DATA = 256 * 2**20  # bytes of one call; Redis closes the connection at 512 MB a value, and at 1 GB a command


def add(server: Server, jobs: Sequence[NewJob]) -> None:
    """Add new jobs, in order. Raises DuplicateJob, and InvalidJob if there are too many jobs for one call."""
    if len(jobs) > MAX_JOBS:
        raise InvalidJob(f"jobs: {len(jobs)} are too many for one call; use at most {MAX_JOBS}", field="jobs")
    known = server.call("enqueue", *_check_size([new_row(job) for job in jobs]))
    if known is not None:
        raise DuplicateJob(f"job_id: {text_of(known)!r} exists already; use another id")


def take_in(server: Server, jobs: Sequence[Job]) -> int:
    """Add the jobs whose ids do not exist, with their state. Return how many were added. Raises InvalidJob."""
    rows = _check_size([arriving_row(*arriving(job)) for job in jobs])
    return int(server.call("import", *rows)) if rows else 0


def _check_size(rows: list[bytes]) -> list[bytes]:
    """Return the rows unchanged. Raises InvalidJob if they are too large for one call."""
    if (size := sum(map(len, rows))) > MAX_DATA:
        raise InvalidJob(
            f"data: {size} bytes in one call are more than the maximum of {MAX_DATA};"
            " enqueue fewer jobs at once, or store the large part elsewhere and enqueue a reference to it",
            field="data",
        )
    return rows
