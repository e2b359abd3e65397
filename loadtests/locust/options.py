"""The load test's options, beside locust's own. Each can be given as an environment variable too."""

from __future__ import annotations

from typing import Any

DEFAULTS: dict[str, Any] = {
    "--queue": "loadtest",
    "--ramp-seconds": 15.0,
    "--burst-seconds": 15.0,
    "--soak-seconds": 30.0,
    "--steady-users": 20,
    "--burst-users": 60,
    "--max-jobs": 1_000_000,
    "--drain-seconds": 30.0,
    "--max-failed-percent": 0.1,
    "--max-p99-ms": 1000.0,
    "--max-end-to-end-p99-ms": 1000.0,
}

_HELP = {
    "--queue": "the queue that the jobs go to; its name begins with loadtest",
    "--ramp-seconds": "length of the first stage, in which the users come one after the other",
    "--burst-seconds": "length of the second stage, in which there are more users",
    "--soak-seconds": "length of the last stage",
    "--steady-users": "users at the end of the ramp, and in the soak",
    "--burst-users": "users in the burst",
    "--max-jobs": "the load ends when so many jobs have been enqueued",
    "--drain-seconds": "how long the workers may take for what is left when the load ends",
    "--max-failed-percent": "pass only if at most so many percent of the calls fail",
    "--max-p99-ms": "pass only if the 99th percentile of each SQL call is at most so many ms",
    "--max-end-to-end-p99-ms": "pass only if that from enqueue to completed is at most so many ms",
}


def variable(name: str) -> str:
    """The environment variable of an option: LOADTEST_SOAK_SECONDS is --soak-seconds."""
    return "LOADTEST_" + name.strip("-").replace("-", "_").upper()


def described(name: str) -> str:
    """The help of an option, with its default."""
    default = DEFAULTS[name]
    return f"{_HELP[name]} ({default:g})" if isinstance(default, float) else f"{_HELP[name]} ({default})"


def add_options(parser: Any, **_: Any) -> None:
    """Add them to locust's parser, and so to its page; the queue stays as the workers serve it."""
    for name, default in DEFAULTS.items():
        parser.add_argument(
            name,
            type=type(default),
            default=default,
            env_var=variable(name),
            include_in_web_ui=name != "--queue",
            help=described(name),
        )
