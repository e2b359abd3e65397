"""TaskResults from jobs."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.conf import settings
from django.utils import timezone

import pgjobq.errors
from pgjobq.django.tasks_api import api
from pgjobq.explaining import explain
from pgjobq.ids import new_job_id
from pgjobq.models import Job, JobStatus

_STATUS = {
    JobStatus.PENDING: "READY",
    JobStatus.RUNNING: "RUNNING",
    JobStatus.COMPLETED: "SUCCESSFUL",
    JobStatus.FAILED: "FAILED",
    JobStatus.CANCELLED: "FAILED",
}
_OWN = {"timed out": "JobTimeout", "worker died": "ProcessDied", "cancelled": "Cancelled"}


def new_result(task: Any, args: Any, kwargs: Any, backend: str) -> Any:
    """Return the result of a task that is being enqueued. Raises TypeError for arguments that JSON cannot hold."""
    return api.TaskResult(
        task=task, id=new_job_id(), status=api.TaskResultStatus.READY, enqueued_at=None, started_at=None,
        finished_at=None, last_attempted_at=None, args=list(args), kwargs=kwargs, backend=backend, errors=[],
        worker_ids=[],
    )  # fmt: skip


def result_of(job: Job, task: Any, attempts: Sequence[dict[str, Any]], backend: str) -> Any:
    """Return the result for a job and its tries that did not succeed."""
    tries = [attempt for attempt in attempts if attempt["outcome"] != "released"]
    started = [attempt["started_at"] for attempt in tries if attempt["started_at"] is not None]
    workers = [str(attempt["worker_id"]) for attempt in tries if attempt["worker_id"] is not None]
    if job.status in {JobStatus.RUNNING, JobStatus.COMPLETED}:
        workers.append(str(job.worker_id))
    errors = [_error(attempt["error_class"], attempt["error"], attempt["outcome"]) for attempt in tries]
    if job.status in {JobStatus.FAILED, JobStatus.CANCELLED} and not errors:
        errors = [_error(None, job.error, str(job.status))]  # cancelled before it started, or failed by hand
    result = api.TaskResult(
        task=task, id=job.id, status=api.TaskResultStatus[_STATUS[job.status]], enqueued_at=_shown(job.created_at),
        started_at=_shown(min(started, default=job.started_at)),
        finished_at=_shown(job.finished_at or job.failed_at), last_attempted_at=_shown(job.started_at),
        args=list(job.data.get("args", [])), kwargs=job.data.get("kwargs", {}), backend=backend, errors=errors,
        worker_ids=workers,
    )  # fmt: skip
    object.__setattr__(result, "_return_value", job.result)
    return result


def error_of(error: Exception) -> Any:
    """Return the TaskError for an exception."""
    kind = type(error)
    return api.TaskError(exception_class_path=f"{kind.__module__}.{kind.__qualname__}", traceback=explain(error))


def _error(name: str | None, text: str | None, outcome: str) -> Any:
    """Return the TaskError for a try. A job keeps the path of an error's class, or the name of a class of Python's."""
    name = _OWN.get(outcome) or name or "Exception"
    if hasattr(pgjobq.errors, name):
        name = f"pgjobq.errors.{name}"
    elif "." not in name:
        name = f"builtins.{name if hasattr(builtins, name) else 'Exception'}"
    return api.TaskError(exception_class_path=name, traceback=text or "")


def _shown(moment: datetime | None) -> datetime | None:
    """Return a moment as Django's models do, which is naive if USE_TZ is False."""
    if moment is None or settings.USE_TZ:
        return moment
    naive: datetime = timezone.make_naive(moment)
    return naive
