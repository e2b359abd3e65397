"""Names the tests that run when none has ended for a while, so that a long test does not look like one that hangs."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

SILENCE = 15.0  # seconds


class Progress:
    """A plugin of the process that prints. With pytest-xdist that is the controller, which hears of every test."""

    def __init__(self, config: pytest.Config, silence: float = SILENCE) -> None:
        self._config, self._silence = config, silence
        self._running: dict[str, float] = {}
        self._heard_at = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)

    def pytest_sessionstart(self) -> None:
        """Watch."""
        self._thread.start()

    def pytest_sessionfinish(self) -> None:
        """Stop."""
        self._ended.set()
        self._thread.join()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Note a test that starts."""
        self._running[nodeid] = time.monotonic()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Note a test that ends."""
        self._running.pop(nodeid, None)
        self._heard_at = time.monotonic()

    def _watch(self) -> None:
        while not self._ended.wait(self._silence / 10):
            now = time.monotonic()
            if now - self._heard_at >= self._silence:
                self._heard_at = now
                self._tell(now)

    def _tell(self, now: float) -> None:
        reporter: Any = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is None:
            return
        names = [f"{nodeid} ({now - since:.0f} s)" for nodeid, since in list(self._running.items())]
        reporter.ensure_newline()
        reporter.write_line(f"still running: {', '.join(names) or 'collecting, or starting servers'}")
