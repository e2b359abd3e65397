"""The thread of the event loop."""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pgjobq.events import EventLog, running_job
from pgjobq.models import Job

log = EventLog("pgjobq.worker")


class LoopThread:
    """An event loop in a thread of its own, which goes on whatever the tasks and callbacks on it do.

    SystemExit and KeyboardInterrupt leave asyncio's loop wherever they are raised, and any handler can stop it. blame
    is called then, on the thread, with the error and the job in whose context it was raised, when that is known.
    """

    def __init__(self, blame: Callable[[BaseException, Job | None], None]) -> None:
        self._blame = blame
        self._ending = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._main, name="pgjobq-loop", daemon=True)
        self._thread.start()

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function on the loop, soon; not at all when the loop has ended."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    def stop(self) -> None:
        """End it, once the tasks on it have ended, which are cancelled, or after two seconds."""
        self._ending = True
        self.call(self._loop.stop)
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


def _culprit(error: BaseException) -> Job | None:
    """The job whose task or callback raised it: asyncio runs each in the context that it was made in."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        handle = frame.f_locals.get("self")
        if isinstance(handle, asyncio.Handle):
            context = getattr(handle, "_context", None)
            return None if context is None else context.get(running_job)
    return None
