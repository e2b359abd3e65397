"""Evaluate cron expressions and intervals in Python, for storages whose database cannot.

cronsim does it by the rules of Debian's cron. It is optional, because PostgreSQL does not need it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from pgjobq.errors import ConfigurationError, InvalidSchedule
from pgjobq.schedules import ALIASES, Schedule, check_expression

LAST = datetime(9998, 12, 31, tzinfo=UTC)
LONGEST = timedelta(days=36525)
LATE = timedelta(minutes=1)  # a tick that is later is skipped, if missed is "skip"


def check_timing(schedule: Schedule) -> None:
    """Raise InvalidSchedule unless the expression and the time zone can be evaluated, and there is a tick."""
    zone_of(schedule.time_zone)
    if schedule.schedule_type == "interval":
        step_of(schedule.schedule_expression)
    elif next(cron_ticks(schedule.schedule_expression, schedule.time_zone, datetime.now(UTC)), None) is None:
        raise InvalidSchedule(
            f"expression: {schedule.schedule_expression!r} is due on no day of the next 50 years; use a day that the"
            " months have",
            field="expression",
        )


def next_tick(schedule: Schedule, after: datetime) -> datetime | None:
    """Return the first tick of a schedule after a time; None if there is none."""
    start = schedule.starts_at
    if schedule.schedule_type == "cron":
        if start is not None:
            after = max(after, start - timedelta(microseconds=1))
        found = next(cron_ticks(schedule.schedule_expression, schedule.time_zone, after), None)
    else:
        step = step_of(schedule.schedule_expression)
        first = start or schedule.created_at or after
        found = first if after < first else first + step * ((after - first) // step + 1)
    if found is None or found >= LAST or (schedule.ends_at is not None and found > schedule.ends_at):
        return None
    return found


def ticks_until(schedule: Schedule, first: datetime, until: datetime, most: int) -> list[datetime]:
    """Return the last `most` ticks from `first`, which is one, until a time; the oldest first."""
    if schedule.schedule_type == "interval":
        step = step_of(schedule.schedule_expression)
        count = min((until - first) // step, most - 1)
        newest = first + step * ((until - first) // step)
        return [newest - step * n for n in range(count, -1, -1)]
    found = [first]
    # From a time at which the wanted ticks are still ahead, because years of minutes may have passed.
    for days in (2 + most // 1440, 40, 400, None):
        since = first if days is None else max(first, until - timedelta(days=days))
        tick, found = next_tick(schedule, since), [first] if since == first else []
        while tick is not None and tick <= until:
            found.append(tick)
            found = found[-most:]
            tick = next_tick(schedule, tick)
        if since == first or len(found) >= most:
            break
    return found[-most:]


def tick_id(schedule_id: str, tick: datetime) -> str:
    """Return the id of a schedule's job for a tick, such as nightly@2026-11-25T09:00:00Z."""
    return f"{schedule_id}@{tick:%Y-%m-%dT%H:%M:%S}{f'.{tick:%f}' if tick.microsecond else ''}Z"


def due_ticks(schedule: Schedule, now: datetime) -> tuple[list[datetime], datetime | None]:
    """Return the ticks that get a job now, by `missed`, and the next run."""
    first = schedule.next_run
    assert first is not None  # it is due
    until = max(first, now - schedule.jitter)
    ticks, following = [first], next_tick(schedule, first)
    if following is not None and following <= until:
        newest = ticks_until(schedule, following, until, schedule.catch_up if schedule.missed == "all" else 1)
        ticks = (ticks + newest)[-schedule.catch_up :] if schedule.missed == "all" else newest
        following = next_tick(schedule, until)
    if schedule.missed == "skip" and ticks[0] < until - LATE:
        ticks = []
    return ticks, following


def cron_ticks(expression: str, time_zone: str, after: datetime) -> Iterator[datetime]:
    """Yield the ticks of a cron expression after a time, in UTC. Raises InvalidSchedule."""
    check_expression(expression)
    cronsim = _cronsim()
    text = ALIASES.get(expression.strip().lower(), expression)
    try:
        found = cronsim.CronSim(text, after.astimezone(zone_of(time_zone)))
    except cronsim.CronSimError as error:
        raise InvalidSchedule(
            f"expression: {expression!r} cannot be read ({str(error).lower()}); use minute, hour, day-of-month, month"
            " and day-of-week, such as 0 9 * * 1-5",
            field="expression",
        ) from None
    except OverflowError:
        return
    for tick in found:
        yield tick.astimezone(UTC)


def words_of(schedule: Schedule) -> str:
    """Say in words when a schedule is due. Without cronsim, or for what it cannot say, the expression."""
    if schedule.schedule_type == "interval":
        return f"every {interval_words(schedule.schedule_expression)}"
    text = ALIASES.get(schedule.schedule_expression.strip().lower(), schedule.schedule_expression)
    try:
        cronsim: Any = _cronsim()
        words = str(cronsim.CronSim(text, datetime.now(UTC)).explain())
    except Exception:  # it cannot read what PostgreSQL can, or is missing
        words = schedule.schedule_expression
    return f"{words[:1].lower()}{words[1:]}, {schedule.time_zone}"


def interval_words(expression: str) -> str:
    """Say seconds as days, hours, minutes and seconds."""
    try:
        left = float(expression)
    except ValueError:
        return expression
    parts = []
    for name, size in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        count, left = divmod(left, size) if size > 1 else (left, 0)
        if count:
            parts.append(f"{count:g} {name}{'' if count == 1 else 's'}")
    return " ".join(parts)


def step_of(expression: str) -> timedelta:
    """Return the time between two ticks of an interval, given in seconds. Raises InvalidSchedule."""
    try:
        seconds = float(expression)
    except ValueError:
        seconds = math.nan
    if not 1 <= seconds <= LONGEST.total_seconds():
        raise InvalidSchedule(
            f"expression: {expression[:40]!r} is not an interval; use seconds, 1 or more, such as 90",
            field="expression",
        )
    return timedelta(seconds=seconds)


def zone_of(name: str) -> ZoneInfo:
    """Return the time zone with this name. Raises InvalidSchedule."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        raise InvalidSchedule(
            f"time_zone: {name[:60]!r} is not a time zone; use a name such as Europe/Berlin or UTC", field="time_zone"
        ) from None


def _cronsim() -> Any:
    try:
        import cronsim
    except ImportError:
        raise ConfigurationError(
            "cronsim: this storage needs it for cron expressions; run: pip install 'cronsim>=2.8'"
        ) from None
    return cronsim
