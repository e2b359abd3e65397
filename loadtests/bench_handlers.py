"""Handlers for the workers of the bench."""

from __future__ import annotations

import os
import time
from pathlib import Path

from pgjobq import job


@job
def noop(n: int) -> None:
    """Nothing."""


@job
async def noop_async(n: int) -> None:
    """Nothing, on the event loop."""


@job
def stamp(path: str, sent: float) -> None:
    """Write down how long the job waited, in milliseconds."""
    waited = (time.time() - sent) * 1000
    with Path(path).open("a") as file:
        file.write(f"{waited}\n")


@job
def hang(path: str) -> None:
    """Say who runs the job, and run for long."""
    with Path(path).open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(60)
