"""The part of Worker that runs on the application's own event loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from queue import SimpleQueue

from pgjobq.errors import ConfigurationError
from pgjobq.worker.event_loop import CallersLoop


class RunsOnLoop(ABC):
    """The methods of a Worker that an async application calls. Worker inherits them."""

    _callers_loop: CallersLoop | None = None
    _hurry = False
    _stop_requests: SimpleQueue[None]

    @abstractmethod
    def is_running(self) -> bool:
        """Return whether the worker was started and not stopped."""

    @abstractmethod
    def start(self) -> None:
        """Start the worker's threads."""

    @abstractmethod
    def stop(self, grace: float | None = None) -> None:
        """Stop the worker."""

    async def run_async(self) -> None:
        """Run on the application's event loop until ask_to_stop() or a cancel, then stop within the grace.

        Async handlers run on this loop, so they may use the application's engine and clients; sync handlers run in
        threads. A second cancel releases the running jobs at once. The application handles signals.
        """
        if self.is_running():
            raise ConfigurationError("worker: it runs already; stop it first")
        self._callers_loop = CallersLoop()
        try:
            self.start()
            await self._callers_loop.serve(self.stop, lambda: self.ask_to_stop(hurry=True))
        finally:
            self._callers_loop, self._stop_requests = None, SimpleQueue()

    def ask_to_stop(self, *, hurry: bool = False) -> None:
        """Make run() or run_async() stop as after a signal. hurry: stop at once, as after a second signal."""
        self._hurry = self._hurry or hurry
        self._stop_requests.put(None)
        if self._callers_loop is not None:
            self._callers_loop.ask_to_stop()
