"""Convert jobs to and from the rows of the scripts: NUL separates the fields, and times are in microseconds."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from pgjobq.arrival import arriving_result
from pgjobq.errors import InvalidJob
from pgjobq.models import Job, JobStatus, NewJob, UnreadableData, trusted_job
from pgjobq.storage.holds import Claimant
from pgjobq.storage.results import read_result

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

_STATUSES = {str(status): status for status in JobStatus}


def microseconds(moment: datetime) -> int:
    """Return the microseconds since 1970."""
    return (moment - EPOCH) // MICROSECOND


def delay_of(seconds: float) -> int:
    """Return a delay in microseconds."""
    return round(seconds * 1e6)


def new_row(job: NewJob) -> bytes:
    """Return the row of a job for enqueue.lua."""
    when = ""
    if job.delay is not None:
        when = f"d{delay_of(job.delay)}"
    elif job.execute_at is not None:
        try:
            when = str(microseconds(job.execute_at.astimezone(UTC)))
        except OverflowError:
            raise InvalidJob(
                "execute_at: is outside the years 1 to 9999 in UTC; use a time within them", field="execute_at"
            ) from None
    row = (job.id, job.type, job.queue, str(job.priority), str(job.max_retries), when, job.json)
    return "\0".join(row).encode()


def arriving_row(job: Job, encoded: str) -> bytes:
    """Return the row of a job for import.lua, with its data as JSON."""
    values: dict[str, Any] = {
        "type": job.type,
        "queue": job.queue,
        "data": encoded,
        "status": job.status,
        "priority": job.priority,
        "attempts": job.attempts,
        "max_retries": job.max_retries,
        "crashes": job.crashes or None,
        "error": job.error,
        "result": arriving_result(job),
    }
    times = ("created_at", "updated_at", "execute_at", "started_at", "finished_at", "failed_at")
    for name in times:
        moment = getattr(job, name)
        values[name] = None if moment is None else microseconds(moment)
    due = values["created_at"] if job.execute_at is None else values["execute_at"]
    pairs = [str(word) for name, value in values.items() if value is not None for word in (name, value)]
    return "\0".join([job.id, str(due), str(values["created_at"]), *pairs]).encode()


def job_of(row: bytes | str) -> Job:
    """Convert a row that a script returned to a job."""
    (
        id_, type_, data, status, queue, priority, attempts, max_retries, execute_at, error, created_at, updated_at,
        started_at, finished_at, failed_at, worker_id, claim, crashes, result,
    ) = text_of(row).split("\0")  # fmt: skip
    return trusted_job(
        id_,
        type_,
        _read_data(data),
        _STATUSES.get(status) or JobStatus(status),
        queue,
        int(priority),
        int(attempts),
        int(max_retries),
        moment_of(execute_at),
        error[1:] if error else None,
        moment_of(created_at),
        moment_of(updated_at),
        moment_of(started_at),
        moment_of(finished_at),
        moment_of(failed_at),
        Claimant.stored(int(worker_id) if worker_id else None, int(claim) if claim else None),
        crashes=int(crashes or 0),
        result=read_result(result or None),
    )


def text_of(answer: bytes | str) -> str:
    """Decode a text that a script returned, unless the client has decoded it."""
    return answer if isinstance(answer, str) else answer.decode(errors="replace")


def moment_of(text: str) -> datetime | None:
    """Convert a time that a script returned. Return None for an empty text."""
    return EPOCH + timedelta(microseconds=int(text)) if text else None


def _read_data(text: str) -> dict[str, Any]:
    # A job with bad data must not stop its queue.
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        return UnreadableData(f"{type(error).__name__}: {error}")
    return data if isinstance(data, dict) else UnreadableData(f"it is JSON but not an object: {text[:80]}")
