"""Handlers for the bench's workers: `pgjobq worker bench.handlers`. BENCH_* variables name the files of the bench.

A gated worker waits during the import of this module until it may start. So the time to start Python is not measured,
and several workers start at the same time.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import IO, Any

from pgjobq import job

PATIENCE = 60.0  # seconds

_starts: list[IO[str]] = []


@job
def noop(n: int) -> None:
    """Do nothing."""


@job(type="noop_async")
async def noop_on_the_loop(n: int) -> None:
    """Do nothing, on the event loop."""


@job
def ignore(n: int, text: str) -> None:
    """Do nothing, with a large payload."""


@job
def ignore_all(data: dict[str, Any]) -> None:
    """Do nothing with any data."""


@job
def stamp(sent: float) -> None:
    """Record the milliseconds since `sent`."""
    waited = (time.time() - sent) * 1000
    if not _starts:
        _starts.append(Path(os.environ["BENCH_STARTS"]).open("a", buffering=1))  # noqa: SIM115  # for the worker's life
    _starts[0].write(f"{waited}\n")


@job
def hang() -> None:
    """Record the process that runs this job, and run for a long time."""
    with Path(os.environ["BENCH_STARTS"]).open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(PATIENCE)


def _wait_for_go(go: Path) -> None:
    go.with_name(f"{go.name}.{os.getpid()}").touch()
    deadline = time.monotonic() + PATIENCE
    while not go.exists():
        if time.monotonic() > deadline:
            raise SystemExit("bench: no word to start")
        time.sleep(0.002)


if go := os.environ.get("BENCH_GO"):
    _wait_for_go(Path(go))
