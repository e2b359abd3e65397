"""The process of an isolated handler. It runs one job and tells the worker what the handler returned or raised.

The worker starts it with two pipes. The job comes through the first, which stays open as long as the worker lives. Log
records and the answer go through the second. The process has none of the worker's connections.
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import importlib
import json
import os
import pickle
import runpy
import select
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import reduce
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pgjobq.definitions import place_of
from pgjobq.errors import ConfigurationError, InvalidJob, Unsupported
from pgjobq.events import running_job
from pgjobq.handlers import Handler
from pgjobq.isolation import become_child
from pgjobq.models import Job
from pgjobq.outcomes import JobTransaction
from pgjobq.reports import Report
from pgjobq.worker.raised import raised_by
from pgjobq.worker.relay import CHUNK, Answers, relay_logs
from pgjobq.worker.running import RunningJob, kept_result, problem_with_result

if TYPE_CHECKING:
    from pgjobq.storage.base import BaseStorage


def main(parcel_fd: int, answers_fd: int) -> None:
    """Run the job that comes through the first pipe, and answer through the second."""
    for fd in (parcel_fd, answers_fd):
        os.set_inheritable(fd, False)
    text = b""
    while not text.endswith(b"\n"):
        if not (chunk := os.read(parcel_fd, CHUNK)):
            return  # the worker is gone
        text += chunk
    _end_with_worker(parcel_fd)
    become_child()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the worker may have been started with the signal ignored
    parcel = json.loads(text)
    answers = Answers(answers_fd)
    relay_logs(answers, parcel["levels"])
    storage = _Storage(parcel["reopen"], parcel["storage"])
    try:
        answers.send(_run(parcel, storage, lambda report: answers.send({"progress": report})))
    finally:
        storage.close()


def _run(parcel: dict[str, Any], storage: _Storage, report: Callable[[Report], None]) -> dict[str, Any]:
    job: RunningJob | None = None
    answer: dict[str, Any]
    try:
        if parcel["memory_limit"] is not None:
            _limit_memory(parcel["memory_limit"])
        if parcel["in_django"]:
            importlib.import_module("pgjobq.django.working").set_up()  # by its name, because it builds on the worker
        function = _imported(parcel["function"])
        job = RunningJob.from_job(Job.from_dict(parcel["job"]), storage, report)
        running_job.set(job)
        handler = Handler(type=job.type, function=function)
        result = function(**handler.arguments(job, job))
        if handler.is_async:
            result = asyncio.run(result)
        answer = _returned(function, result, keep=parcel["keep_result"])
    except BaseException as error:  # anything that a handler raises, even SystemExit, fails only its job
        answer = {"raised": asdict(raised_by(error))}
    return {**answer, "settled": job is not None and any(t.settled for t in job.transactions)}


def _returned(function: Callable[..., Any], result: object, *, keep: bool) -> dict[str, Any]:
    if result is not None and (wrong := problem_with_result(result)):
        raised = raised_by(ConfigurationError(f"handler {place_of(function)}: {wrong}"))
        return {"raised": asdict(replace(raised, final=True))}
    text, problem = kept_result(result, keep=keep)
    if problem:
        return {"raised": asdict(raised_by(InvalidJob(problem, field="result")))}
    return {"returned": None if text is None else result}


def _imported(named: dict[str, str]) -> Callable[..., Any]:
    """Import the handler's function. An error says what was imported."""
    place = f"{named['name']}.{named['qualname']}"
    try:
        if named["kind"] == "path":  # the main module of the worker's program
            found: Any = ModuleType("__mp_main__")  # the name that multiprocessing uses
            sys.modules["__main__"] = sys.modules["__mp_main__"] = found
            vars(found).update(runpy.run_path(named["name"], run_name="__mp_main__"))
        else:
            found = importlib.import_module(named["name"])
        function: Callable[..., Any] = reduce(getattr, named["qualname"].split("."), found)
    except BaseException as error:
        error.add_note(f"The process of the isolated handler {place} failed to import it.")
        raise
    return function


def _limit_memory(limit: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _end_with_worker(fd: int) -> None:
    """Kill this process and its children as soon as the worker's end of the pipe is closed, whatever they do.

    On Linux the kernel sends the signal, so that not even a C function that never returns prevents it. On other
    systems a thread waits, which such a function may block.
    """
    if sys.platform == "linux":
        fcntl.fcntl(fd, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
        waiting = select.poll()
        waiting.register(fd, select.POLLIN)
        if waiting.poll(0):  # it was closed before the line above
            os.killpg(0, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(fd,), name="pgjobq-watch", daemon=True).start()


def _watch(fd: int) -> None:
    os.read(fd, 1)  # returns at the end of the stream
    os.killpg(0, signal.SIGKILL)


class _Storage:
    """The worker's storage, opened in this process when a handler first asks for a transaction."""

    def __init__(self, reopen: str | None, name: str) -> None:
        self._reopen, self._name = reopen, name
        self._storage: BaseStorage | None = None
        self._lock = threading.Lock()

    def transaction(self, job: Job) -> JobTransaction:
        if self._reopen is None:
            raise Unsupported(
                f"{self._name} cannot be opened in the process of an isolated job; do not use transaction()"
            )
        with self._lock:
            if self._storage is None:
                # The worker sent this, and it was not read from anywhere else.
                opened: BaseStorage = pickle.loads(base64.b64decode(self._reopen))()  # noqa: S301
                self._storage = opened
        return self._storage.transaction(job)

    def close(self) -> None:
        if self._storage is not None:
            self._storage.close()
