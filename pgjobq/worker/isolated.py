"""The worker's side of an isolated handler: the process of one job, from its start until it is gone."""

from __future__ import annotations

import base64
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pgjobq.errors import Cancelled, JobTimeout, ProcessDied
from pgjobq.isolation import KILL_GRACE, main_of
from pgjobq.reports import Report
from pgjobq.storage.base import BaseStorage
from pgjobq.worker.pipes import Pipes
from pgjobq.worker.raised import Raised, RaisedElsewhere
from pgjobq.worker.relay import encoded, levels, log_again
from pgjobq.worker.running import Run

LOOK_EVERY = 0.2  # seconds between two checks of the process, if nothing is heard of it
FIRST_LOOK = 0.001  # the same after it has closed its pipe; doubled each time


class Child:
    """Runs the handler of one job in a process of its own. The runner's thread calls call(); any thread may stop it.

    A process that is stopped, or that has run for longer than the handler's timeout, gets SIGTERM. If it has not ended
    after the kill_grace, it gets SIGKILL. Both signals go to its process group, and so to what it has started.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._deadline, run.deadline = run.deadline, None  # call() keeps it, and reports when the process has ended
        grace = run.handler.kill_grace
        self._kill_grace = KILL_GRACE if grace is None else grace
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None  # while it may be sent a signal
        self._is_stopped = self._has_ended = self._is_late = False
        self._kill_at = math.inf
        self._then: Callable[[], None] = lambda: None

    def call(self, storage: BaseStorage) -> Any:
        """Run the handler and return its result, when the process has ended.

        Raises what becomes of the job if the handler did not return: RaisedElsewhere, JobTimeout, ProcessDied or
        Cancelled.
        """
        try:
            self._run.arguments(storage)  # raises BadArguments, which needs no process
            with Pipes(encoded(_parcel(self._run, storage))) as pipes:
                with self._lock:
                    if self._is_stopped:
                        raise Cancelled
                    self._process = process = pipes.start()
                answer: dict[str, Any] | None = None
                try:
                    answer = self._attend(process, pipes)
                finally:
                    self._reap(process, answered=answer is not None)
            return self._result(answer, process.returncode)
        finally:
            with self._lock:
                self._has_ended = True
            self._then()

    def stop(self, kill_grace: float | None = None, then: Callable[[], None] = lambda: None) -> None:
        """End the process, and call `then` when it is gone. kill_grace: at most these seconds, and the handler's."""
        with self._lock:
            has_ended = self._has_ended
            if not has_ended:
                self._is_stopped, self._then = True, then
                self._terminate(self._kill_grace if kill_grace is None else min(kill_grace, self._kill_grace))
        if has_ended:
            then()

    def _attend(self, process: subprocess.Popen[bytes], pipes: Pipes) -> dict[str, Any] | None:
        """Log what the process logs, and end it if its time is over, until it has ended. Return its answer, if any."""
        answer: dict[str, Any] | None = None
        pause = FIRST_LOOK
        while True:
            has_ended = _has_ended(process)  # found out before the last read
            if pipes.is_at_end and not has_ended:
                time.sleep(pause)
                pause = min(2 * pause, LOOK_EVERY)
            for message in pipes.read(0.0 if has_ended else self._patience()):
                if "log" in message:
                    log_again(message["log"])
                elif "progress" in message:
                    self._run.report(Report(*message["progress"]))
                elif answer is None:
                    answer, self._deadline = message, None
                    self._kill_at = min(self._kill_at, time.monotonic() + self._kill_grace)
            if has_ended:
                return answer
            self._climb()

    def _patience(self) -> float:
        """Return the seconds for which nothing but the process needs attention."""
        next_at = min(self._kill_at, math.inf if self._deadline is None else self._deadline)
        return max(0.0, min(LOOK_EVERY, next_at - time.monotonic()))

    def _climb(self) -> None:
        """Send the process the signal that is due."""
        now = time.monotonic()
        with self._lock:
            if self._deadline is not None and now >= self._deadline:
                self._deadline, self._is_late = None, True
                self._terminate(self._kill_grace)
            elif now >= self._kill_at:
                self._send(signal.SIGKILL)
                self._kill_at = math.inf

    def _terminate(self, kill_grace: float) -> None:
        self._send(signal.SIGTERM)
        self._kill_at = min(self._kill_at, time.monotonic() + kill_grace)

    def _send(self, number: signal.Signals) -> None:
        """Send a signal to the process group. The process is not reaped yet, so the id cannot be another group's."""
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):  # macOS refuses if all of them have ended
                os.killpg(self._process.pid, number)

    def _reap(self, process: subprocess.Popen[bytes], *, answered: bool) -> None:
        with self._lock:
            if not answered:  # a failed try leaves nothing running
                self._send(signal.SIGKILL)
            self._process = None
            process.wait()

    def _result(self, answer: dict[str, Any] | None, status: int) -> Any:
        if answer is not None and answer.get("settled") and self._run.running_job is not None:
            object.__setattr__(self._run.running_job, "settled_elsewhere", True)
        elif self._is_stopped:
            raise Cancelled
        elif self._is_late:
            raise JobTimeout(f"ran longer than {self._run.handler.timeout} seconds")
        if answer is None:
            raise ProcessDied(_how_it_ended(status, self._run.handler.memory_limit))
        if "raised" in answer:
            raise RaisedElsewhere(Raised(**answer["raised"]))
        return answer["returned"]


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # the program ignores SIGCHLD, or has reaped it
        return True


def _how_it_ended(status: int, memory_limit: int | None) -> str:
    if status >= 0:
        how = f"the process ended with exit status {status} before the handler returned"
    else:
        known = -status in set(signal.Signals)
        how = f"the process was killed by {signal.Signals(-status).name if known else f'signal {-status}'}"
        if -status == signal.SIGKILL:
            how += ", as the kernel does when memory runs out"
    return how if memory_limit is None else f"{how}; its memory_limit is {memory_limit} bytes"


def _parcel(run: Run, storage: BaseStorage) -> dict[str, Any]:
    """Return what the process needs to run the job, in values that JSON can hold."""
    handler = run.handler
    named = main_of(sys.modules["__main__"]) if handler.function.__module__ == "__main__" else None
    kind, name = named or ("name", handler.function.__module__)
    return {
        "job": run.job.to_dict(),
        "function": {"kind": kind, "name": name, "qualname": handler.function.__qualname__},
        "memory_limit": handler.memory_limit,
        "keep_result": handler.keep_result,
        "in_django": "pgjobq.django.working" in sys.modules,
        "levels": levels(),
        "storage": type(storage).__name__,
        "reopen": _reopener(storage) if handler.wants_job else None,
    }


def _reopener(storage: BaseStorage) -> str | None:
    reopen = storage.reopener()
    try:
        return None if reopen is None else base64.b64encode(pickle.dumps(reopen)).decode()
    except Exception:  # an option of the storage cannot be pickled
        return None
