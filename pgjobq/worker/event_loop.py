"""The event loop for async handlers: a thread's own loop, or that of the application."""

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
    """Describes a blocked loop: for how long, the job that blocks it (None if unknown), and the line that runs."""

    seconds: float
    culprit: Job | None
    at: str


class WatchedLoop:
    """An event loop that other threads call, and whose answers they watch."""

    replaceable = False  # whether another loop can take its place

    def __init__(self, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
        self._loop, self._thread = loop, thread
        self._asked_at: float | None = None  # when blocked() asked the loop to answer; None after the answer

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Schedule a call of the function on the loop. Does nothing if the loop has ended."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    def is_current(self) -> bool:
        """Return whether the caller runs on this loop."""
        return asyncio.get_running_loop() is self._loop

    def has(self, task: asyncio.Future[Any]) -> bool:
        """Return whether the task belongs to this loop."""
        return task.get_loop() is self._loop

    def blocked(self) -> Blocked | None:
        """Return what blocks the loop, if it has not answered since an earlier call; otherwise ask it to answer."""
        now, asked_at = time.monotonic(), self._asked_at
        if asked_at is None:
            self._asked_at = now
            self.call(self._answer)
            return None
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001  # Python has no public way to see it
        frames = [] if frame is None else [frame for frame, _ in traceback.walk_stack(frame)]
        return Blocked(now - asked_at, _job_of(iter(frames)), _place(frames))

    def _answer(self) -> None:
        self._asked_at = None

    def end(self) -> None:
        """Ask the loop to cancel the tasks of jobs and end. Does not wait."""

    def stop(self) -> None:
        """End the loop, and wait for it for a short time."""


class LoopThread(WatchedLoop):
    """An event loop in its own thread. It keeps running whatever its tasks and callbacks do.

    A SystemExit or KeyboardInterrupt in a task or callback ends asyncio's run_forever(), and any handler can stop the
    loop. The thread then runs the loop again. After an error it first calls blame, with the error and the job in whose
    context the error was raised, or None if that is not known.
    """

    replaceable = True

    def __init__(self, blame: Callable[[BaseException, Job | None], None]) -> None:
        self._blame = blame
        self._ending = False
        thread = threading.Thread(target=self._main, name="pgjobq-loop", daemon=True)
        super().__init__(asyncio.new_event_loop(), thread)
        thread.start()

    def end(self) -> None:
        """Ask the loop to cancel its tasks and end. Does not wait."""
        self._ending = True
        self.call(self._loop.stop)

    def stop(self) -> None:
        """End the loop, and wait for its thread for at most two seconds."""
        self.end()
        self._thread.join(2.0)

    def _main(self) -> None:
        while not self._ending and not self._loop.is_closed():
            try:
                self._loop.run_forever()
                if not self._ending:
                    log.warning("loop.stopped", extra={"error": "a handler stopped the event loop; it was restarted"})
            except BaseException as error:
                self._blame(error, _culprit(error))
        self._loop.set_task_factory(None)  # a handler may have set one that fails
        with suppress(BaseException):
            if left := asyncio.all_tasks(self._loop):
                for task in left:
                    task.cancel()
                self._loop.run_until_complete(asyncio.wait(left, timeout=1.0))
        with suppress(BaseException):
            self._loop.run_until_complete(asyncio.wait_for(self._loop.shutdown_asyncgens(), 0.5))
        self._loop.close()


class CallersLoop(WatchedLoop):
    """The loop on which it is created, such as that of a web application. It is the application's: nothing ends it."""

    def __init__(self) -> None:
        super().__init__(asyncio.get_running_loop(), threading.current_thread())
        self._asked_to_stop = asyncio.Event()

    def ask_to_stop(self) -> None:
        """Make serve() stop. Any thread and a signal handler may call it."""
        self.call(self._asked_to_stop.set)

    async def serve(self, stop: Callable[[], None], hurry: Callable[[], None]) -> None:
        """Wait until ask_to_stop() or a cancel, call stop in a thread, and wait for it.

        hurry: called at a cancel while stop runs, to make it return soon.
        """
        try:
            await self._asked_to_stop.wait()
        finally:
            stopping = asyncio.ensure_future(asyncio.to_thread(stop))
            cancelled: asyncio.CancelledError | None = None
            while not stopping.done():
                try:
                    await asyncio.shield(stopping)  # the loop must go on, because running handlers need it to end
                except asyncio.CancelledError as again:
                    cancelled = again
                    hurry()
            stopping.result()
            if cancelled is not None:
                raise cancelled


def _place(frames: list[FrameType]) -> str:
    """Return the innermost line that is not in Python's standard library."""
    lines = [f"{frame.f_code.co_filename}:{frame.f_lineno}" for frame in frames]
    return next((line for line in lines if not line.startswith(_LIBRARY) or "site-packages" in line), "unknown")


def _culprit(error: BaseException) -> Job | None:
    return _job_of(frame for frame, _ in traceback.walk_tb(error.__traceback__))


def _job_of(frames: Iterator[FrameType]) -> Job | None:
    """Return the job whose task or callback runs. asyncio runs each in the context in which it was created."""
    for frame in frames:
        handle = frame.f_locals.get("self")
        if isinstance(handle, asyncio.Handle):
            context = getattr(handle, "_context", None)
            return None if context is None else context.get(running_job)
    return None
