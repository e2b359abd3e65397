"""The stages of a load test: how many users there are at which time."""

from __future__ import annotations

from dataclasses import dataclass

MAX_SECONDS = 24 * 3600
MAX_USERS = 1000  # each has a connection of its own
MAX_SPAWN_RATE = 20.0  # users a second


@dataclass(frozen=True, kw_only=True)
class Stage:
    """So many users, reached at `rate` users a second, until `end` seconds after the start."""

    name: str
    users: int
    rate: float
    end: float


def stages(*, ramp: float, burst: float, soak: float, users: int, burst_users: int) -> list[Stage]:
    """Ramp up to users, burst to burst_users, soak at users; lengths in seconds, of which 0 leaves a stage out.

    ValueError, which names the option and the mend, for a load test that is not bounded.
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
    """The stage so many seconds after the start; None when all are over."""
    return next((stage for stage in plan if seconds < stage.end), None)
