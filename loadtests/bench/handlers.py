"""Handlers for the bench's workers: `pgjobq worker bench.handlers`. The bench's files are named by BENCH_* variables.

A worker that is told to waits here, at import, for the word to start: so the cost of starting Python counts for
nobody, and two workers start together.
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
    """Nothing."""


@job(type="noop_async")
async def noop_on_the_loop(n: int) -> None:
    """Nothing, on the event loop."""


@job
def ignore(n: int, text: str) -> None:
    """Nothing, with a large payload."""


@job
def ignore_all(data: dict[str, Any]) -> None:
    """Nothing, whatever the data."""


@job
def stamp(sent: float) -> None:
    """Write down how many milliseconds it took from `sent` to here."""
    waited = (time.time() - sent) * 1000
    if not _starts:
        _starts.append(Path(os.environ["BENCH_STARTS"]).open("a", buffering=1))  # noqa: SIM115  # for the worker's life
    _starts[0].write(f"{waited}\n")


@job
def hang() -> None:
    """Say who runs this job, and run for long."""
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
