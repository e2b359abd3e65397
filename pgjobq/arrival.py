"""Prepare jobs that are imported into a storage with their state. Every storage does this in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from pgjobq.checks import check_name, check_names, check_whole_number
from pgjobq.encoding import encode_data, encode_json
from pgjobq.errors import InvalidJob
from pgjobq.models import MAX_NAME, Job, JobStatus, UnreadableData, utc_now

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

FINISHED = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)


def arriving(job: Job) -> tuple[Job, str]:
    """Return the job as the destination storage keeps it, and its data as JSON.

    No worker holds the job in the destination, and the result of its start is unknown. A running job therefore becomes
    pending and keeps its attempts, or becomes failed if its tries are used up. A finished job without finished_at and
    failed_at gets updated_at as its end. Raises InvalidJob for values that no storage accepts.
    """
    check_name("job_id", job.id, "a name for the job", MAX_NAME)
    check_name("type", job.type, "the name of a handler", MAX_NAME)
    check_name("queue", job.queue, "the name of a queue", MAX_NAME)
    check_whole_number("priority", job.priority, -(2**31), 2**31 - 1)
    check_whole_number("max_retries", job.max_retries, 0, 2**31 - 2)
    check_whole_number("attempts", job.attempts, 0, 2**31 - 1)
    check_whole_number("crashes", job.crashes, 0, 2**31 - 1)
    if isinstance(job.data, UnreadableData):
        raise InvalidJob(f"cannot be read: {job.data.reason}", field="data")
    if job.error is not None and "\0" in job.error:
        raise InvalidJob("error: contains a NUL character, which PostgreSQL cannot store; remove it", field="error")
    json = encode_data(job.data)
    if job.status is JobStatus.RUNNING:
        job = _left_running(job)
    finished_at = (job.finished_at or job.failed_at or job.updated_at) if job.status in FINISHED else None
    failed_at = (job.failed_at or finished_at) if job.status is JobStatus.FAILED else None
    return replace(job, worker_id=None, finished_at=finished_at, failed_at=failed_at), json


def arriving_result(job: Job) -> str | None:
    """Return the result of a job that is imported, as JSON; None unless the job is completed and has one."""
    if job.result is None or job.status is not JobStatus.COMPLETED:
        return None
    if isinstance(job.result, UnreadableData):
        raise InvalidJob(f"result: cannot be read: {job.result.reason}", field="result")
    return encode_json(job.result, "result")


def _left_running(job: Job) -> Job:
    tries = f"try {job.tries} of {job.max_retries + 1}"
    error = f"the job was running when it was copied ({tries}); the result of that try is unknown"
    if job.tries > job.max_retries:
        return replace(job, status=JobStatus.FAILED, error=error, updated_at=utc_now(), finished_at=None)
    return replace(job, status=JobStatus.PENDING, error=error, updated_at=utc_now())


class ArrivalOrder:
    """Numbers imported jobs, in microseconds, so that they keep the order in which they were enqueued.

    For storages that order jobs by a number. Jobs with the same created_at keep the order in which they arrive.
    """

    def __init__(self) -> None:
        self._moment, self._jobs = _EPOCH, 0

    def next(self, created_at: datetime) -> int:
        """Return the number of the next job."""
        self._moment, self._jobs = created_at, self._jobs + 1 if created_at == self._moment else 0
        return place_of(created_at) + self._jobs


def place_of(moment: datetime) -> int:
    """Return the number of a job that was enqueued at this moment."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def final_statuses(statuses: Sequence[str]) -> list[str]:
    """Return the statuses without duplicates. Raises InvalidJob for a status that is not final."""
    check_names("statuses", statuses)
    found = [JobStatus(status) for status in dict.fromkeys(statuses)]
    for status in found:
        if status not in FINISHED:
            raise InvalidJob(f"statuses: {str(status)!r} is not final; use {', '.join(FINISHED)}", field="statuses")
    return [str(status) for status in found]
