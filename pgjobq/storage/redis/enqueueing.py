"""Adding jobs, each call by one script: all or none."""

from __future__ import annotations

from collections.abc import Sequence

from pgjobq.arrival import arriving
from pgjobq.errors import DuplicateJob, InvalidJob
from pgjobq.models import Job, NewJob
from pgjobq.storage.redis.connection import Server
from pgjobq.storage.redis.rows import arriving_row, new_row, text_of

MAX_JOBS = 100_000  # of one enqueue_many; the server does nothing else meanwhile, some two seconds for so many
MAX_DATA = 256 * 2**20  # bytes of one call; Redis closes the connection at 512 MB a value, and at 1 GB a command


def add(server: Server, jobs: Sequence[NewJob]) -> None:
    """Add new jobs, in order. Raises DuplicateJob, and InvalidJob for more than one call can take."""
    if len(jobs) > MAX_JOBS:
        raise InvalidJob(f"jobs: {len(jobs)} are too many for one call; give at most {MAX_JOBS}", field="jobs")
    known = server.call("enqueue", *_check_size([new_row(job) for job in jobs]))
    if known is not None:
        raise DuplicateJob(f"job_id: {text_of(known)!r} exists already; give another id")


def take_in(server: Server, jobs: Sequence[Job]) -> int:
    """Add jobs with their state, unless their id is there already; how many were added. Raises InvalidJob."""
    rows = _check_size([arriving_row(*arriving(job)) for job in jobs])
    return int(server.call("import", *rows)) if rows else 0


def _check_size(rows: list[bytes]) -> list[bytes]:
    """The rows, when they are not too large for one call. Raises InvalidJob."""
    if (size := sum(map(len, rows))) > MAX_DATA:
        raise InvalidJob(
            f"data: {size} bytes in one call are more than the {MAX_DATA} that Redis can be given;"
            " enqueue fewer jobs at once, or store the bulk elsewhere and enqueue a reference",
            field="data",
        )
    return rows
