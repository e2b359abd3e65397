"""Schedule is a job that a storage adds again and again. @schedule declares one beside its handler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from json import loads
from typing import Any, NamedTuple

from pgjobq.checks import check_execute_at, check_name, check_whole_number, in_utc
from pgjobq.encoding import encode_data, encode_new_data
from pgjobq.errors import InvalidJob, InvalidSchedule

MAX_ID = 200  # characters; the ids of the jobs are longer by an @ and the tick
MAX_CATCH_UP = 1000
ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


@dataclass(frozen=True)
class Schedule:
    """A schedule, to create it or as it was read. InvalidSchedule names the field and says what to use instead.

    At each tick the storage adds a job of job_type with job_data, whose id is the schedule's id, an @ and the tick.

    schedule_type is "cron" or "interval". schedule_expression is a cron expression, or the seconds between two ticks,
    counted from starts_at; PostgreSQL also takes an interval such as "15 minutes".
    next_run, last_run, last_job, last_error, created_at and updated_at are what the storage returns; create_schedule
    ignores them. next_run is None if the schedule is paused, has ended, or has stopped because of last_error.
    missed: which ticks get a job if several passed before a worker noticed: "once", the last one; "skip", the last one
    if it is at most a minute late; "all", the last catch_up of them. overlap: "skip" leaves out a tick while the last
    job is unfinished; "allow" does not. By default it is "allow" if missed is "all". jitter: a job is added up to this
    much after its tick, at random.
    declared: the declaration by @schedule that was applied last; None if there was none.
    Times are aware; the constructor also takes seconds since 1970 and ISO strings, and jitter in seconds.
    """

    id: str
    job_type: str
    job_data: dict[str, Any] = field(default_factory=dict, hash=False)
    schedule_type: str = "cron"
    schedule_expression: str = ""
    next_run: datetime | None = None
    last_run: datetime | None = None
    enabled: bool = True
    max_retries: int = 3
    priority: int = 5
    created_at: datetime | None = None
    updated_at: datetime | None = None
    queue: str = "default"
    time_zone: str = "UTC"
    missed: str = "once"
    catch_up: int = MAX_CATCH_UP
    overlap: str | None = None
    jitter: timedelta = timedelta(0)
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    last_job: str | None = None
    last_error: str | None = None
    declared: dict[str, Any] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        for name in _TIMES:
            object.__setattr__(self, name, moment(name, getattr(self, name)))
        if isinstance(self.jitter, int | float) and not isinstance(self.jitter, bool):
            object.__setattr__(self, "jitter", timedelta(seconds=self.jitter))
        if isinstance(self.schedule_expression, timedelta | int | float):
            object.__setattr__(self, "schedule_expression", seconds_text(self.schedule_expression))
        if self.overlap is None:
            object.__setattr__(self, "overlap", "allow" if self.missed == "all" else "skip")

    def check(self) -> None:
        """Raise InvalidSchedule for a value that no storage takes. The storage checks the expression and the zone."""
        try:
            self._check()
        except InvalidSchedule:
            raise
        except InvalidJob as error:
            raise InvalidSchedule(str(error), field=error.field) from None

    def _check(self) -> None:
        check_name("id", self.id, "a name for the schedule", MAX_ID)
        if "@" in self.id or not self.id.isprintable():
            raise _invalid("id", self.id, "a name without @ and without control characters")
        check_name("job_type", self.job_type, "the name of a handler", 255)
        check_name("queue", self.queue, "the name of a queue", 255)
        encode_data(self.job_data)
        check_whole_number("priority", self.priority, -(2**31), 2**31 - 1)
        check_whole_number("max_retries", self.max_retries, 0, 2**31 - 2)
        check_whole_number("catch_up", self.catch_up, 1, MAX_CATCH_UP)
        _choice("schedule_type", self.schedule_type, "cron", "interval")
        _choice("missed", self.missed, "once", "skip", "all")
        _choice("overlap", self.overlap, "skip", "allow")
        if (self.missed, self.overlap) == ("all", "skip"):
            raise InvalidSchedule(
                'overlap: "skip" would leave out the missed ticks; use "allow" with missed="all"', field="overlap"
            )
        check_name("schedule_expression", self.schedule_expression, 'such as "0 9 * * *", or seconds', 255)
        check_name("time_zone", self.time_zone, "a name such as Europe/Berlin", 255)
        if not isinstance(self.enabled, bool):
            raise _invalid("enabled", self.enabled, "True or False")
        if not isinstance(self.jitter, timedelta) or not timedelta(0) <= self.jitter <= timedelta(days=1):
            raise _invalid("jitter", self.jitter, "seconds from 0 to a day, 86400")
        if self.starts_at is not None and self.ends_at is not None and self.ends_at < self.starts_at:
            raise InvalidSchedule(f"ends_at: {self.ends_at} is before starts_at; use a later time", field="ends_at")

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the SQL function create_schedule without the id, as values that JSON can hold."""
        values = {name: _plain(getattr(self, name)) for name in _ARGUMENTS if getattr(self, name) is not None}
        return {_RENAMED.get(name, name): value for name, value in values.items()}

    @classmethod
    def from_arguments(cls, schedule_id: str, arguments: Mapping[str, Any]) -> Schedule:
        """Create the schedule whose arguments() these are."""
        names = {argument: name for name, argument in _RENAMED.items()}
        return cls(id=schedule_id, **{names.get(name, name): value for name, value in arguments.items()})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Schedule:
        """Create a schedule from the result of to_dict, or from any mapping with its keys.

        job_data may be JSON text. Ignores keys that are not fields of Schedule.
        """
        given = {name: values[name] for name in _FIELDS if name in values}
        for name in ("job_data", "declared"):
            if isinstance(given.get(name), str | bytes):
                given[name] = loads(given[name])
        if "enabled" in given:
            given["enabled"] = bool(given["enabled"])  # databases without booleans return 0 and 1
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as values that JSON can hold: times as ISO strings, jitter in seconds."""
        return {name: _plain(getattr(self, name)) for name in _FIELDS}


_FIELDS = tuple(one.name for one in fields(Schedule))
_RENAMED = {
    "job_type": "type",
    "job_data": "data",
    "schedule_type": "kind",
    "schedule_expression": "expression",
}
_ARGUMENTS = (
    *_RENAMED,
    *("time_zone", "queue", "priority", "max_retries", "missed", "catch_up", "overlap", "jitter"),
    *("starts_at", "ends_at", "enabled"),
)
_TIMES = ("next_run", "last_run", "created_at", "updated_at", "starts_at", "ends_at")


def plain_data(data: object) -> Any:
    """Return the data of a schedule as JSON can hold it; see encode_new_data. Raises InvalidSchedule."""
    try:
        return encode_new_data(data)[1]
    except InvalidJob as error:
        raise InvalidSchedule(str(error), field=error.field) from None


def seconds_text(step: timedelta | float) -> str:
    """Return the seconds of an interval as text, for a schedule_expression."""
    seconds = step.total_seconds() if isinstance(step, timedelta) else float(step)
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


def check_expression(expression: object) -> None:
    """Raise InvalidSchedule unless this may be a cron expression: five fields, or a name that begins with @."""
    if not isinstance(expression, str):
        raise _invalid("expression", expression, 'a cron expression such as "0 9 * * *"')
    if expression.strip().lower() not in ALIASES and len(expression.split()) != 5:
        raise _invalid("expression", expression, f'five fields such as "0 9 * * *", or {", ".join(ALIASES)}')


def _choice(name: str, value: object, first: str, *rest: str) -> None:
    if value not in (first, *rest):
        *middle, last = rest
        raise _invalid(name, value, f"{', '.join([first, *middle])} or {last}")


def _invalid(name: str, value: object, use: str) -> InvalidSchedule:
    return InvalidSchedule(f"{name}: {str(value)[:60]!r} is not allowed; use {use}", field=name)


def moment(name: str, value: Any) -> datetime | None:
    """Return a datetime, an ISO string or the seconds since 1970 as a datetime in UTC, and None as None."""
    if value is None:
        return None
    try:
        if isinstance(value, int | float):  # seconds, as DBJobQ has them
            return datetime.fromtimestamp(value, UTC)
        if name in {"starts_at", "ends_at"} and not isinstance(value, str):
            check_execute_at(value, name)
        return in_utc(name, value)
    except InvalidJob as error:
        raise InvalidSchedule(str(error), field=name) from None
    except (ValueError, OverflowError, OSError):
        raise _invalid(name, value, "a time in the years 1 to 9999") from None


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return value.total_seconds() if isinstance(value, timedelta) else value


class Declared(NamedTuple):
    """What became of a declared schedule: created, changed, kept, refused (error says why), or held by another."""

    id: str
    outcome: str
    error: str | None = None
