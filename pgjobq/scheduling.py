"""The part of JobQueue for schedules."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypedDict, Unpack

from pgjobq.errors import InvalidSchedule
from pgjobq.handlers import Registry
from pgjobq.schedules import Schedule, check_expression, plain_data, seconds_text
from pgjobq.storage.base import BaseStorage


class ScheduleOptions(TypedDict, total=False):
    """The options of a schedule, by keyword. Schedule explains them. None is the same as leaving an option out."""

    data: dict[str, Any] | None
    time_zone: str | None
    queue: str | None
    priority: int | None
    max_retries: int | None
    missed: str | None
    catch_up: int | None
    overlap: str | None
    jitter: timedelta | float | None
    starts_at: datetime | None
    ends_at: datetime | None
    enabled: bool | None


_OPTIONS = ScheduleOptions.__annotations__.keys()


class QueueSchedules:
    """The schedules of a JobQueue."""

    storage: BaseStorage
    _registry: Registry

    def create_schedule(
        self,
        schedule: str | Schedule,
        job: str | Callable[..., Any] | None = None,
        expression: str | timedelta | float | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> datetime | None:
        """Create a schedule, or change the one with this id, and return its next run.

        schedule: its id, or a whole Schedule, without other arguments. job: a handler, whose settings are the defaults,
        or the name of a type. expression: a cron expression such as "0 9 * * *", evaluated in time_zone; or seconds or
        a timedelta, counted from starts_at or from now. Schedule explains the options.
        The next run is None if the schedule is not enabled, or has no tick before ends_at. A change of the timing
        begins from now. Raises InvalidSchedule, and Unsupported if the storage has no schedules.
        """
        if isinstance(schedule, Schedule):
            if job is not None or expression is not None or options:
                raise InvalidSchedule("schedule: it has all values already; use dataclasses.replace to change one")
            return self.storage.create_schedule(schedule)
        return self.storage.create_schedule(self.new_schedule(schedule, job, expression, **options))

    def new_schedule(
        self,
        schedule_id: str,
        job: str | Callable[..., Any] | None,
        expression: str | timedelta | float | None,
        **options: Unpack[ScheduleOptions],
    ) -> Schedule:
        """Return the Schedule that create_schedule creates, without creating it. Raises InvalidSchedule."""
        if job is None or expression is None:
            missing = "job" if job is None else "expression"
            raise InvalidSchedule(f"{missing}: it is missing; use an id, a handler and an expression", field=missing)
        if unknown := options.keys() - _OPTIONS:
            raise TypeError(f"{min(unknown)!r} is not an option of a schedule; they are {', '.join(_OPTIONS)}")
        values: dict[str, Any] = {}
        if not isinstance(job, str):
            handler = self._registry.for_function(job)
            values = {name: getattr(handler, name) for name in ("queue", "priority", "max_retries")}
            handler.check_data(options.get("data"))
            job = handler.type
        values |= {name: value for name, value in options.items() if value is not None}
        values["job_data"] = plain_data(values.pop("data", {}))
        if isinstance(expression, str):
            check_expression(expression)
        else:
            values["schedule_type"], expression = "interval", seconds_text(expression)
        made = Schedule(id=schedule_id, job_type=job, schedule_expression=expression, **values)
        made.check()
        return made

    def get_schedule(self, schedule_id: str) -> Schedule | None:
        """Return the schedule with this id, or None."""
        return self.storage.get_schedule(schedule_id)

    def list_schedules(self, enabled_only: bool = False) -> list[Schedule]:
        """Return all schedules in the order of their ids, or only those that are enabled."""
        return self.storage.list_schedules(enabled_only)

    def get_due_schedules(self) -> list[Schedule]:
        """Return the schedules whose next run has come, and that no worker has served yet."""
        return self.storage.get_due_schedules()

    def update_schedule_next_run(
        self, schedule_id: str, next_run: datetime | float | None, last_run: datetime | float | None = None
    ) -> bool:
        """Set the next run of a schedule; False if there is none with this id.

        The runs after it are those of its expression. None: the next tick from now. Numbers are seconds since 1970.
        Workers do this themselves at each run.
        """
        return self.storage.update_schedule_next_run(schedule_id, next_run, last_run)

    def enable_schedule(self, schedule_id: str, enabled: bool = True) -> bool:
        """Pause a schedule, or let it go on from the next tick; False if there is none with this id."""
        return self.storage.enable_schedule(schedule_id, enabled)

    def delete_schedule(self, schedule_id: str) -> bool:
        """Delete a schedule; False if there is none with this id. Its jobs stay.

        A worker that declares it creates it again when it starts; pause such a schedule instead.
        """
        return self.storage.delete_schedule(schedule_id)

    def run_schedule(self, schedule_id: str) -> str:
        """Add a job of the schedule now, even if it is paused, and return its id. The next run stays as it is.

        Raises ScheduleNotFound.
        """
        return self.storage.run_schedule(schedule_id)

    def backfill_schedule(self, schedule_id: str, since: datetime, until: datetime | None = None) -> int:
        """Add the jobs of the ticks from since to until (None: now) that have none, and return how many.

        Raises InvalidSchedule for more than 10,000 ticks, and ScheduleNotFound.
        """
        return self.storage.backfill_schedule(schedule_id, since, until)

    def next_ticks(
        self, expression: str, time_zone: str = "UTC", after: datetime | None = None, n: int = 5
    ) -> list[datetime]:
        """Return the first n ticks of a cron expression after a time (None: now), to preview it."""
        return self.storage.next_ticks(expression, time_zone, after, n)
