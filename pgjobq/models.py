"""Job is a job that a storage returns. NewJob is a job to enqueue. Schedule is in pgjobq.schedules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pgjobq.checks import check_delay, check_execute_at, check_moment, check_name, check_whole_number, in_utc
from pgjobq.encoding import encode_new_data
from pgjobq.errors import InvalidJob
from pgjobq.ids import new_job_id
from pgjobq.plain import seconds_of
from pgjobq.schedules import Schedule
from pgjobq.unique import MAX_KEY, OPTIONS, check_unique

__all__ = ["Job", "JobStatus", "NewJob", "Schedule", "UnreadableData", "Which", "trusted_job", "utc_now"]

MAX_NAME = 255  # characters of an id, a type or a queue


class JobStatus(StrEnum):
    """The status of a job."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @classmethod
    def _missing_(cls, value: object) -> JobStatus:
        *but_last, last = cls
        raise InvalidJob(f"status: {value!r} is not a status; use {', '.join(but_last)} or {last}", field="status")


def utc_now() -> datetime:
    """Return the current time as an aware datetime in UTC."""
    return datetime.now(UTC)


class UnreadableData(dict[str, Any]):
    """An empty dict that replaces stored data that Python cannot read. `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """The state of a job when it was read. Times are aware and in UTC.

    attempts counts the starts. A job is tried at most 1 + max_retries times. crashes counts the starts since the last
    clean end that ended because the worker died; they do not use up tries. error is the type, message and traceback of
    the last failure. The constructor accepts times as ISO strings or naive datetimes, which it reads as UTC. claim_id,
    if the storage has it, identifies the start; no other start ever has the same. result is what the handler of a
    completed job returned, if that was kept. unique_key and expires_at are None on a job that was dequeued.
    """

    id: str
    type: str
    data: dict[str, Any] = field(default_factory=dict, hash=False)
    status: JobStatus = JobStatus.PENDING
    queue: str = "default"
    priority: int = 5
    attempts: int = 0
    max_retries: int = 3
    execute_at: datetime | None = None
    error: str | None = None
    created_at: datetime = field(default_factory=utc_now)
    updated_at: datetime = field(default_factory=utc_now)
    started_at: datetime | None = None
    finished_at: datetime | None = None
    failed_at: datetime | None = None
    worker_id: int | None = None
    claim_id: int | None = None
    crashes: int = 0
    unique_key: str | None = None
    expires_at: datetime | None = None
    result: Any = field(default=None, hash=False)

    def __post_init__(self) -> None:
        if self.status.__class__ is not JobStatus:
            object.__setattr__(self, "status", JobStatus(self.status))
        for name in _TIMES:
            value = getattr(self, name)
            if value is not None and (value.__class__ is not datetime or value.tzinfo is not UTC):
                object.__setattr__(self, name, in_utc(name, value))

    @property
    def tries(self) -> int:
        """The number of starts that did not end with a crash, including the current one."""
        return max(self.attempts - self.crashes, 0)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Job:
        """Create a job from the result of to_dict, or from any mapping with its keys.

        Times may be datetimes or ISO strings. Ignores keys that are not fields of Job.
        """
        return cls(**{name: values[name] for name in _FIELDS if name in values})

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as values that JSON can hold: times as ISO strings, the status as a plain string."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else str(value) if name == "status" else value
            for name in _FIELDS
            for value in (getattr(self, name),)
        }


_FIELDS = tuple(f.name for f in fields(Job))


class _Draft:
    # The same slots as Job, so that __class__ can be set to Job.
    __slots__ = _FIELDS

    def __init__(self, *values: Any, claim_id: int | None = None, crashes: int = 0, result: Any = None) -> None:
        self.claim_id, self.crashes, self.result = claim_id, crashes, result
        self.unique_key = self.expires_at = None
        (
            self.id,
            self.type,
            self.data,
            self.status,
            self.queue,
            self.priority,
            self.attempts,
            self.max_retries,
            self.execute_at,
            self.error,
            self.created_at,
            self.updated_at,
            self.started_at,
            self.finished_at,
            self.failed_at,
            self.worker_id,
        ) = values


def trusted_job(*values: Any, claim_id: int | None = None, crashes: int = 0, result: Any = None) -> Job:
    """Create a Job from its fields up to worker_id, in their order, without checks. Times must be in UTC.

    The constructor of a frozen dataclass calls object.__setattr__ for each field, which takes 4 µs, a third of the time
    that a worker spends on a job. This takes 0.6 µs.
    """
    draft: Any = _Draft(*values, claim_id=claim_id, crashes=crashes, result=result)
    draft.__class__ = Job
    job: Job = draft
    return job


_TIMES = ("created_at", "updated_at", "execute_at", "started_at", "finished_at", "failed_at", "expires_at")


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job to enqueue. The constructor checks the fields; InvalidJob names the field and says what to use instead.

    type, queue and id have 1 to 255 characters. data is a dict that JSON can store, without NaN and NUL characters; a
    UUID, Decimal, datetime, date or time in it becomes a string, and an Enum its value. execute_at is an aware
    datetime. delay, which excludes execute_at, is in seconds from the storage's current time. It and the other
    durations may be timedeltas, which become seconds. JobQueue.enqueue explains unique_key and the fields after it.
    `json` is the encoded data.
    """

    type: str
    data: dict[str, Any] = field(default_factory=dict, hash=False)
    id: str = field(default_factory=new_job_id)
    queue: str = "default"
    priority: int = 5
    max_retries: int = 3
    execute_at: datetime | None = None
    delay: float | None = None
    unique_key: str | None = None
    unique_while: str | None = None
    unique_for: float | None = None
    on_conflict: str | None = None
    debounce_ceiling: float | None = None
    expires_at: datetime | None = None
    json: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_name("type", self.type, "the name of a handler", MAX_NAME)
        check_name("queue", self.queue, "the name of a queue", MAX_NAME)
        check_name("job_id", self.id, "a name for the job, or leave it out", MAX_NAME)
        check_whole_number("priority", self.priority, -(2**31), 2**31 - 1)
        check_whole_number("max_retries", self.max_retries, 0, 2**31 - 2)
        check_execute_at(self.execute_at)
        if self.delay is not None:
            object.__setattr__(self, "delay", seconds_of(self.delay))
        check_delay(self.delay, "execute_at" if self.execute_at is not None else None)
        # Jobs without a key are many, and this is quicker than to build the dict.
        if (
            self.unique_key is not None
            or self.unique_while is not None
            or self.unique_for is not None
            or self.on_conflict is not None
            or self.debounce_ceiling is not None
        ):
            for name in ("unique_for", "debounce_ceiling"):
                object.__setattr__(self, name, seconds_of(getattr(self, name)))
            options = {name: getattr(self, name) for name in OPTIONS}
            delayed = self.execute_at is not None or self.delay is not None
            check_unique(self.unique_key, options, delayed=delayed, delay=self.delay)
        check_execute_at(self.expires_at, "expires_at")
        if self.expires_at is not None and self.execute_at is not None and self.expires_at <= self.execute_at:
            raise InvalidJob(
                f"expires_at: {self.expires_at} is not after execute_at; use a later time", field="expires_at"
            )
        text, data = encode_new_data(self.data)
        object.__setattr__(self, "json", text)
        if data is not self.data:
            object.__setattr__(self, "data", data)

    @classmethod
    def from_enqueue(
        cls,
        job_id: str,
        job_type: str,
        data: dict[str, Any],
        max_retries: int,
        priority: int,
        execute_at: datetime | None,
        queue: str,
    ) -> NewJob:
        """Create the job for a call of BaseStorage.enqueue, which requires a job_id."""
        check_name("job_id", job_id, "a name for the job", MAX_NAME)
        options: dict[str, Any] = {"priority": priority, "max_retries": max_retries, "execute_at": execute_at}
        return cls(type=job_type, data=data, id=job_id, queue=queue, **options)


@dataclass(frozen=True, kw_only=True)
class Which:
    """Which jobs a change of many is for: those that match all that is given, which must be something.

    Checked when it is made; InvalidJob names the field.
    """

    queue: str | None = None
    type: str | None = None
    unique_key: str | None = None
    created_before: datetime | None = None

    def __post_init__(self) -> None:
        if (self.queue, self.type, self.unique_key, self.created_before) == (None, None, None, None):
            raise InvalidJob(
                "queue: say which jobs; give a queue, a type, a unique_key or created_before", field="queue"
            )
        if self.queue is not None:
            check_name("queue", self.queue, "the name of a queue", MAX_NAME)
        if self.type is not None:
            check_name("type", self.type, "the name of a handler", MAX_NAME)
        if self.unique_key is not None:
            check_name("unique_key", self.unique_key, "a key", MAX_KEY)
        check_moment("created_before", self.created_before)

    def matches(self, job: Job) -> bool:
        """Whether the job is one of them."""
        return (
            self.queue in {None, job.queue}
            and self.type in {None, job.type}
            and self.unique_key in {None, job.unique_key}
            and (self.created_before is None or job.created_at < self.created_before)
        )
