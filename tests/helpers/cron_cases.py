"""Random cron expressions, and what cronsim says of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from random import Random
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

# Zones with clocks that are set by 30 minutes, by two hours, at midnight, over a whole day, and never.
ZONES = (
    "UTC", "Europe/Paris", "Europe/Dublin", "Australia/Lord_Howe", "Antarctica/Troll", "America/Santiago",
    "America/New_York", "America/Sao_Paulo", "Asia/Kolkata", "Asia/Tehran", "Pacific/Apia", "Pacific/Chatham",
)  # fmt: skip
YEARS = (1996, 2022)  # of these, every edition of the time zone database says the same
MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
DAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
FIELDS = ((0, 59, ()), (0, 23, ()), (1, 31, ()), (1, 12, MONTHS), (0, 7, DAYS))

Case = tuple[str, str, datetime]


@cache
def shifts(zone: str, year: int) -> list[datetime]:
    """The days of a year on which the clock is set, in UTC."""
    days = [datetime(year, 1, 1, tzinfo=UTC) + timedelta(days=n) for n in range(366)]
    offsets = [day.astimezone(ZoneInfo(zone)).utcoffset() for day in days]
    return [day for day, offset, after in zip(days, offsets, offsets[1:], strict=False) if offset != after]


class Cases:
    """Makes cases: an expression, a time zone and a moment. Half of the moments are near a change of the clock."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)  # noqa: S311  # a seeded generator repeats its cases

    def __iter__(self) -> Iterator[Case]:
        while True:
            zone, year = self._random.choice(ZONES), self._random.randint(*YEARS)
            after = datetime(year, 1, 1, tzinfo=UTC) + timedelta(seconds=self._random.randrange(365 * 86400))
            if self._random.random() < 0.5 and shifts(zone, year):
                after = self._random.choice(shifts(zone, year)) + timedelta(
                    seconds=self._random.randrange(-86400, 172800)
                )
            yield self._expression(), zone, after

    def _expression(self) -> str:
        chance = self._random.random
        fields = ["*" if chance() < 0.35 else self._field(nth) for nth in range(5)]
        if chance() < 0.3:
            fields[0] = self._value(0)
        return " ".join(fields)

    def _field(self, nth: int) -> str:
        return ",".join(self._item(nth) for _ in range(self._random.choice((1, 1, 1, 1, 2, 3))))

    def _item(self, nth: int) -> str:
        low, high, _ = FIELDS[nth]
        start, end = sorted((self._random.randint(low, high), self._random.randint(low, high)))
        step = self._random.choice((1, 2, 3, 5, 7, 10, 15, 20, 30, 99))
        special = {
            2: ["L", "LW", "L/2"],
            4: [f"{self._random.randint(0, 7)}L", f"{self._value(4)}#{self._random.randint(1, 5)}"],
        }
        kinds = ["*", f"*/{step}", self._value(nth), self._value(nth), f"{start}-{end}", f"{start}-{end}/{step}"]
        return self._random.choice([*kinds, f"{start}/{step}", *special.get(nth, [])])

    def _value(self, nth: int) -> str:
        low, high, names = FIELDS[nth]
        if names and self._random.random() < 0.3:
            return self._random.choice(names)
        return str(self._random.randint(low, high))


def follows_clock(expression: str) -> bool:
    """Whether the minute or the hour starts with *."""
    minute, hour = expression.split()[:2]
    return minute.startswith("*") or hour.startswith("*")


def by_cronsim(case: Case) -> datetime | None:
    """The next tick as cronsim has it, in UTC; None if there is none, or never will be."""
    expression, zone, after = case
    try:
        ticks = CronSim(expression, after.astimezone(ZoneInfo(zone)))
        tick = next(ticks).astimezone(UTC)
        # After a moment in the second pass of an hour, cronsim answers with the first pass, which is over.
        while not follows_clock(expression) and tick <= after:
            tick = next(ticks).astimezone(UTC)
    except (CronSimError, StopIteration):
        return None
    return tick


def is_next_minute(case: Case, tick: datetime, other: datetime) -> bool:
    """Whether, minute by minute on the clock of the zone, tick is the first to match of those near tick and other."""
    expression, zone, after = case
    minute = max(after, min(tick, other) - timedelta(days=1)).replace(second=0, microsecond=0)
    while minute < tick:
        minute += timedelta(minutes=1)
        local = minute.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        if next(CronSim(expression, local - timedelta(seconds=1))) == local:
            return minute == tick
    return False
