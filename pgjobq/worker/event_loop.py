"""The thread of the event loop."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from pgjobq.events import EventLog, running_job
from pgjobq.models import Job

log = EventLog("pgjobq.worker")

_LIBRARY = str(Path(asyncio.__file__).parents[1])


class Blocked(NamedTuple):
    """A loop that has not answered for so many seconds: because of which job, if one, and where its code is."""

    seconds: float
    culprit: Job | None
    at: str


class LoopThread:
    """An event loop in a thread of its own, which goes on whatever the tasks and callbacks on it do.

    SystemExit and KeyboardInterrupt leave asyncio's loop wherever they are raised, and any handler can stop it. blame
    is called then, on the thread, with the error and the job in whose context it was raised, when that is known.
    """

    def __init__(self, blame: Callable[[BaseException, Job | None], None]) -> None:
        self._blame = blame
        self._ending = False
        self._asked_at: float | None = None  # when the loop was asked to answer, until it does
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._main, name="pgjobq-loop", daemon=True)
        self._thread.start()

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function on the loop, soon; not at all when the loop has ended."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    def is_current(self) -> bool:
        """Whether the caller runs on this loop."""
        return asyncio.get_running_loop() is self._loop

    def has(self, task: asyncio.Future[Any]) -> bool:
        """Whether the task is on this loop."""
        return task.get_loop() is self._loop

    def blocked(self) -> Blocked | None:
        """What blocks the loop, when it has not answered since an earlier call."""
        now, asked_at = time.monotonic(), self._asked_at
        if asked_at is None:
            self._asked_at = now
            self.call(self._answer)
            return None
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001  # there is no other way to see it
        frames = [] if frame is None else [frame for frame, _ in traceback.walk_stack(frame)]
        return Blocked(now - asked_at, _job_of(iter(frames)), _place(frames))

    def _answer(self) -> None:
        self._asked_at = None

    def end(self) -> None:
        """Have it end, once the tasks on it have ended, which are cancelled; without waiting."""
        self._ending = True
        self.call(self._loop.stop)

    def stop(self) -> None:
        """End it, and wait until it has, or for two seconds."""
        self.end()
        self._thread.join(2.0)

    def _main(self) -> None:
        while not self._ending and not self._loop.is_closed():
            try:
                self._loop.run_forever()
                if not self._ending:
                    log.warning("loop.stopped", extra={"error": "a handler stopped the event loop; it goes on"})
            except BaseException as error:
                self._blame(error, _culprit(error))
        self._loop.set_task_factory(None)  # a handler's must not keep us from ending
        with suppress(BaseException):
            if left := asyncio.all_tasks(self._loop):
                for task in left:
                    task.cancel()
                self._loop.run_until_complete(asyncio.wait(left, timeout=1.0))
        with suppress(BaseException):
            self._loop.run_until_complete(asyncio.wait_for(self._loop.shutdown_asyncgens(), 0.5))
        self._loop.close()


def _place(frames: list[FrameType]) -> str:
    """The innermost line that is not of Python's own library."""
    lines = [f"{frame.f_code.co_filename}:{frame.f_lineno}" for frame in frames]
    return next((line for line in lines if not line.startswith(_LIBRARY) or "site-packages" in line), "unknown")


def _culprit(error: BaseException) -> Job | None:
    return _job_of(frame for frame, _ in traceback.walk_tb(error.__traceback__))


def _job_of(frames: Iterator[FrameType]) -> Job | None:
    """The job whose task or callback it is: asyncio runs each in the context that it was made in."""
    for frame in frames:
        handle = frame.f_locals.get("self")
        if isinstance(handle, asyncio.Handle):
            context = getattr(handle, "_context", None)
            return None if context is None else context.get(running_job)
    return None
