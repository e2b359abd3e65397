"""pgjobq: a job queue whose engine is SQL in PostgreSQL.

The names below are the public API. Names that a module of handlers does not need are imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgjobq.backoff import Backoff
from pgjobq.declaring import schedule
from pgjobq.errors import (
    BadArguments,
    Cancelled,
    ConfigurationError,
    DuplicateJob,
    Fail,
    InvalidJob,
    InvalidSchedule,
    JobFailed,
    JobNotFound,
    JobsHeld,
    JobTimeout,
    KeyTaken,
    LostJob,
    NotMigrated,
    PgjobqError,
    ProcessDied,
    Retry,
    ScheduleNotFound,
    SchemaConflict,
    SchemaTooNew,
    Snooze,
    StorageError,
    StorageUnavailable,
    UnknownJobType,
    Unsupported,
    WaitTimeout,
)
from pgjobq.handlers import Handler, Registry, job
from pgjobq.ids import JobId
from pgjobq.models import Job, JobStatus, NewJob
from pgjobq.schedules import Schedule

if TYPE_CHECKING:
    from pgjobq.connect import open_storage
    from pgjobq.events import JobLogFilter, current_job
    from pgjobq.options import JobOptions
    from pgjobq.queue import JobQueue
    from pgjobq.scheduling import ScheduleOptions
    from pgjobq.storage.base import BaseStorage
    from pgjobq.worker import RunningJob, Worker

__version__ = "0.1.0"

__all__ = [
    "Backoff",
    "BadArguments",
    "BaseStorage",
    "Cancelled",
    "ConfigurationError",
    "DuplicateJob",
    "Fail",
    "Handler",
    "InvalidJob",
    "InvalidSchedule",
    "Job",
    "JobFailed",
    "JobId",
    "JobLogFilter",
    "JobNotFound",
    "JobOptions",
    "JobQueue",
    "JobStatus",
    "JobTimeout",
    "JobsHeld",
    "KeyTaken",
    "LostJob",
    "NewJob",
    "NotMigrated",
    "PgjobqError",
    "ProcessDied",
    "Registry",
    "Retry",
    "RunningJob",
    "Schedule",
    "ScheduleNotFound",
    "ScheduleOptions",
    "SchemaConflict",
    "SchemaTooNew",
    "Snooze",
    "StorageError",
    "StorageUnavailable",
    "UnknownJobType",
    "Unsupported",
    "WaitTimeout",
    "Worker",
    "current_job",
    "job",
    "open_storage",
    "schedule",
]

_LATE = {
    "BaseStorage": "pgjobq.storage.base",
    "JobLogFilter": "pgjobq.events",
    "JobOptions": "pgjobq.options",
    "JobQueue": "pgjobq.queue",
    "ScheduleOptions": "pgjobq.scheduling",
    "Worker": "pgjobq.worker",
    "RunningJob": "pgjobq.worker",
    "current_job": "pgjobq.events",
    "open_storage": "pgjobq.connect",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module 'pgjobq' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LATE[name]), name)
