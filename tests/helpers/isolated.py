"""Handlers that tests run in processes of their own, some of them hostile."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pgjobq import Fail, Retry, RunningJob, current_job

log = logging.getLogger("app.isolated")
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


class Odd(Exception):
    """Cannot be made again from its arguments, so pickle cannot carry it."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first}-{second}")


def note(path: str, job: RunningJob) -> None:
    found = current_job()
    assert found is not None
    Path(path).write_text(f"{os.getpid()} {os.getpgrp()} {found.id} {job.attempts} {variable.get()}")
    variable.set("set")


async def note_async(path: str) -> None:
    await asyncio.sleep(0)
    Path(path).write_text(str(os.getpid()))  # noqa: ASYNC240  # nothing else runs on this loop


def spin() -> None:
    while True:
        pass


def spin_without_gc() -> None:
    """Hold the interpreter: one call of C that never returns control to Python."""
    gc.disable()
    sum(iter(int, 1))


async def spin_async() -> None:
    while True:
        pass


def wait(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)


def be_deaf(path: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wait(path)


def clean_up(path: str) -> None:
    def end(*_: Any) -> None:
        Path(path + ".clean").touch()
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    wait(path)


def have_child(path: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(path).write_text(f"{os.getpid()} {process.pid}")
    time.sleep(600)


def leave_fork(path: str) -> None:
    """End at once; a fork keeps every descriptor open for a while."""
    if os.fork() == 0:
        log.warning("from the fork")
        time.sleep(2)
        os._exit(0)
    Path(path).touch()


def exit_silently() -> None:
    os._exit(0)


def die(number: int) -> None:
    os.kill(os.getpid(), number)


def close_all() -> None:
    os.closerange(0, 100)


def write_rubbish() -> None:
    for fd in range(3, 20):
        try:
            os.write(fd, b'rubbish\n[1]\n{"log": 3}\n{"log": {"name": 1, "levelno": "x"}}\n')
        except OSError:
            continue


def return_odd() -> object:
    return object()


def return_forever() -> object:
    async def never() -> None: ...

    return never()


def raise_odd() -> None:
    raise Odd("one", "two")


def raise_much() -> None:
    try:
        raise KeyError("cause")
    except KeyError as cause:
        group = ExceptionGroup("several", [ValueError("first"), Odd("a", "b")])
        group.add_note("a note")
        raise group from cause


def raise_retry(job: RunningJob) -> None:
    if job.attempts == 1:
        raise Retry(0, "again")
    raise Fail("enough")


def leave(status: int) -> None:
    sys.exit(status)


def print_much() -> None:
    print("x" * 10_000_000)
    log.info("y" * 10_000_000)


def say() -> None:
    log.info("hello %s", "there", extra={"order": 7})
    log.debug("not this")
    try:
        raise ValueError("told")
    except ValueError:
        log.exception("oh")


def take_memory() -> None:
    bytearray(2**31)


def complete_in_transaction(statement: str, job: RunningJob) -> None:
    with job.transaction() as conn:
        conn.execute(statement)


def raise_after_transaction(job: RunningJob) -> None:
    with job.transaction():
        pass
    raise ValueError("late")


async def complete_async(statement: str, job: RunningJob) -> None:
    async with job.transaction() as conn:
        await conn.execute(statement)


def report(job: RunningJob) -> None:
    job.progress(0.5, "half")


def log_twice() -> None:
    logging.getLogger("app.tasks").info("one of %s", 2)
    logging.getLogger("app.tasks").error("two")
