"""The options that the load test adds to locust's. Each can also be set by an environment variable."""

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
    "--queue": "the queue of the jobs; its name must begin with loadtest",
    "--ramp-seconds": "length of the first stage, in which the number of users grows",
    "--burst-seconds": "length of the second stage, in which there are more users",
    "--soak-seconds": "length of the last stage",
    "--steady-users": "number of users at the end of the ramp and in the soak",
    "--burst-users": "number of users in the burst",
    "--max-jobs": "the load ends when this number of jobs has been enqueued",
    "--drain-seconds": "how long the workers may take to finish the jobs after the load",
    "--max-failed-percent": "highest percentage of failed calls",
    "--max-p99-ms": "highest 99th percentile of each SQL call, in ms",
    "--max-end-to-end-p99-ms": "highest 99th percentile of the time from enqueue to completion, in ms",
}


def variable(name: str) -> str:
    """Return the environment variable of an option, such as LOADTEST_SOAK_SECONDS for --soak-seconds."""
    return "LOADTEST_" + name.strip("-").replace("-", "_").upper()


def described(name: str) -> str:
    """Return the help text of an option, with its default."""
    default = DEFAULTS[name]
    return f"{_HELP[name]} ({default:g})" if isinstance(default, float) else f"{_HELP[name]} ({default})"


def add_options(parser: Any, **_: Any) -> None:
    """Add the options to locust's parser and page. The page cannot change the queue, because the workers serve it."""
    for name, default in DEFAULTS.items():
        parser.add_argument(
            name,
            type=type(default),
            default=default,
            env_var=variable(name),
            include_in_web_ui=name != "--queue",
            help=described(name),
        )
