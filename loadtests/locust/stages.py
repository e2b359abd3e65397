"""The stages of a load test, which set the number of users over time."""

from __future__ import annotations

from dataclasses import dataclass

MAX_SECONDS = 24 * 3600
MAX_USERS = 1000  # each has its own connection
MAX_SPAWN_RATE = 20.0  # users a second


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A number of users, which is reached at `rate` users a second and lasts until `end` seconds after the start."""

    name: str
    users: int
    rate: float
    end: float


def stages(*, ramp: float, burst: float, soak: float, users: int, burst_users: int) -> list[Stage]:
    """Return the stages: ramp up to users, burst to burst_users, soak at users.

    ramp, burst and soak are lengths in seconds; 0 leaves the stage out. Raise ValueError if a value exceeds its limit.
    The message names the option and the remedy.
    """
    for option, value in (("--ramp-seconds", ramp), ("--burst-seconds", burst), ("--soak-seconds", soak)):
        if not 0 <= value <= MAX_SECONDS:
            raise ValueError(f"{option}: {value:g} is not allowed; give seconds from 0 to {MAX_SECONDS}")
    for option, count in (("--steady-users", users), ("--burst-users", burst_users)):
        if not 1 <= count <= MAX_USERS:
            raise ValueError(f"{option}: {count} is not allowed; give a number of users from 1 to {MAX_USERS}")
    if not 0 < ramp + burst + soak <= MAX_SECONDS:
        raise ValueError(f"--soak-seconds: the stages together must last from 1 to {MAX_SECONDS} seconds")
    made, end = [], 0.0
    for name, seconds, count in (("ramp", ramp, users), ("burst", burst, burst_users), ("soak", soak, users)):
        if seconds:
            end += seconds
            rate = count / seconds if name == "ramp" else count
            made.append(Stage(name=name, users=count, rate=min(rate, MAX_SPAWN_RATE), end=end))
    return made


def stage_at(plan: list[Stage], seconds: float) -> Stage | None:
    """Return the stage at this number of seconds after the start, or None after the last one."""
    return next((stage for stage in plan if seconds < stage.end), None)
