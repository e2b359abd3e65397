"""The decorator @schedule."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar

from pgjobq.declarations import Declaration
from pgjobq.errors import ConfigurationError, InvalidJob
from pgjobq.handlers import Registry, default_registry
from pgjobq.schedules import check_expression, plain_data, seconds_text

F = TypeVar("F", bound=Callable[..., Any])


def schedule(
    expression: str | timedelta | float,
    *,
    tz: str = "UTC",
    data: dict[str, Any] | None = None,
    id: str | None = None,
    missed: Literal["once", "skip", "all"] = "once",
    catch_up: int | None = None,
    overlap: Literal["skip", "allow"] | None = None,
    jitter: timedelta | float = 0,
    starts_at: datetime | None = None,
    ends_at: datetime | None = None,
    enabled: bool = True,
    queue: str | None = None,
    priority: int | None = None,
    max_retries: int | None = None,
    registry: Registry = default_registry,
) -> Callable[[F], F]:
    """Declare a schedule beside @job, and return the function unchanged.

    expression: a cron expression such as "0 9 * * *", which follows the clock of the time zone tz; or seconds or a
    timedelta. id: by default the type of job; a second schedule of a handler needs one. data: of each job.
    queue, priority, max_retries: by default the handler's. Schedule explains the other options.

    A worker that imports the module creates the schedule when it starts. If it exists, it is changed only when the
    declaration has changed since it was applied last; until then, what an operator has paused or changed stays. A
    schedule that is not declared any more is not deleted; `pgjobq schedules` marks it.
    Raises ConfigurationError, here for what can be told without the database, or when the worker starts.
    """
    options: dict[str, Any] = {"time_zone": tz, "missed": missed, "overlap": overlap, "enabled": enabled}
    options |= {"jitter": jitter, "starts_at": starts_at, "ends_at": ends_at}
    given = {"catch_up": catch_up, "queue": queue, "priority": priority, "max_retries": max_retries}
    options |= {name: value for name, value in given.items() if value is not None}
    try:
        options["job_data"] = plain_data(data or {})
        if isinstance(expression, timedelta | int | float):
            options |= {"schedule_type": "interval", "schedule_expression": seconds_text(expression)}
        else:
            check_expression(expression)
            options["schedule_expression"] = expression
        Declaration(schedule, id, options).resolved("t", {})  # checks the values
    except InvalidJob as error:
        raise ConfigurationError(f"@schedule: {error}") from None

    def declare(function: F) -> F:
        registry.declarations.add(Declaration(function, id, options))
        return function

    return declare
