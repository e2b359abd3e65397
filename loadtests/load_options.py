"""The load test's options, beside locust's own. Each can be given as an environment variable too."""

from __future__ import annotations

import argparse
from typing import Any

VARIABLE = "LOADTEST_"  # --soak-seconds is LOADTEST_SOAK_SECONDS

OPTIONS: tuple[tuple[str, Any, str], ...] = (
    ("--queue", "loadtest", "the queue that the jobs go to; its name begins with loadtest"),
    ("--ramp-seconds", 15.0, "length of the first stage, in which the users come one after the other"),
    ("--burst-seconds", 15.0, "length of the second stage, in which there are --burst-users"),
    ("--soak-seconds", 30.0, "length of the last stage"),
    ("--steady-users", 20, "users at the end of the ramp, and in the soak"),
    ("--burst-users", 60, "users in the burst"),
    ("--max-jobs", 1_000_000, "the load ends when so many jobs have been enqueued"),
    ("--drain-seconds", 30.0, "how long the workers may take for what is left when the load ends"),
    ("--max-failed-percent", 0.1, "pass only if at most so many percent of the calls fail"),
    ("--max-p99-ms", 1000.0, "pass only if the 99th percentile of every SQL call is at most so many ms"),
    ("--max-end-to-end-p99-ms", 1000.0, "pass only if that from enqueue to completed is at most so many ms"),
)


def add_options(parser: Any, **_: Any) -> None:
    """Add them to locust's parser."""
    group = parser.add_argument_group("Load test of a job queue")
    for name, default, text in OPTIONS:
        variable = VARIABLE + name.strip("-").replace("-", "_").upper()
        group.add_argument(name, type=type(default), default=default, env_var=variable, help=f"{text} ({default})")


def names() -> set[str]:
    """The options' names."""
    return {name for name, _, _ in OPTIONS}


def defaults() -> argparse.Namespace:
    """The options as they are when none is given."""
    return argparse.Namespace(**{name.strip("-").replace("-", "_"): default for name, default, _ in OPTIONS})
