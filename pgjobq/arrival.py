"""What becomes of a job that arrives in a storage with its state: the same for every storage."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from pgjobq.checks import check_name, check_whole_number, encode_data
from pgjobq.errors import InvalidJob
from pgjobq.models import MAX_NAME, Job, JobStatus, UnreadableData, utc_now

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

FINISHED = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)


def arriving(job: Job) -> tuple[Job, str]:
    """The job as another storage keeps it, and its data as JSON.

    No worker holds it here, so a running job is pending with its attempts kept, or failed when all its tries are
    used up: what its worker did is not known. A finished job without finished_at or failed_at finished when it was last
    updated. Raises InvalidJob for what no storage takes.
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
        raise InvalidJob("error: holds a NUL character, which PostgreSQL cannot store", field="error")
    json = encode_data(job.data)
    if job.status is JobStatus.RUNNING:
        job = _left_running(job)
    finished_at = (job.finished_at or job.failed_at or job.updated_at) if job.status in FINISHED else None
    failed_at = (job.failed_at or finished_at) if job.status is JobStatus.FAILED else None
    return replace(job, worker_id=None, finished_at=finished_at, failed_at=failed_at), json


def _left_running(job: Job) -> Job:
    tries = f"try {job.tries} of {job.max_retries + 1}"
    error = f"the job was running when it was copied ({tries}); what its worker did is not known"
    if job.tries > job.max_retries:
        return replace(job, status=JobStatus.FAILED, error=error, updated_at=utc_now(), finished_at=None)
    return replace(job, status=JobStatus.PENDING, error=error, updated_at=utc_now())


class ArrivalOrder:
    """Numbers that order arriving jobs as they were enqueued: microseconds, for storages that have such a number.

    Jobs of one created_at keep the order in which they arrive.
    """

    def __init__(self) -> None:
        self._moment, self._jobs = _EPOCH, 0

    def next(self, created_at: datetime) -> int:
        """The number of the next job."""
        self._moment, self._jobs = created_at, self._jobs + 1 if created_at == self._moment else 0
        return place_of(created_at) + self._jobs


def place_of(moment: datetime) -> int:
    """The number of a job that was enqueued then."""
    return (moment - _EPOCH) // timedelta(microseconds=1)
