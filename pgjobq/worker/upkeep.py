"""The loop that keeps house: rescues, looks for lost jobs, watches deadlines."""

from __future__ import annotations

import math
import threading
import time

from pgjobq.storage.base import BaseStorage
from pgjobq.worker.contact import Contact
from pgjobq.worker.loop import Loop
from pgjobq.worker.running import Run
from pgjobq.worker.tasks import TaskRunner
from pgjobq.worker.threads import ThreadRunner

TICK = 0.25  # seconds between looks at what runs
SOON = 0.3  # seconds; most jobs are done by then


class UpkeepLoop(Loop):
    """Runs the storage's upkeep about once a second while jobs run somewhere, rarely while all is quiet."""

    name = "upkeep"

    def __init__(
        self, storage: BaseStorage, threads: ThreadRunner, tasks: TaskRunner, *, contact: Contact | None = None
    ) -> None:
        super().__init__(contact)
        self._storage, self._threads, self._tasks = storage, threads, tasks
        self._poked = threading.Event()
        self._next = self._last = 0.0
        self._asked_at = math.inf  # when to run next because of what was heard
        storage.on_watch(self.watch)

    def watch(self) -> None:
        """Run the storage's upkeep soon: another worker has a job."""
        self._asked_at = min(self._asked_at, max(time.monotonic() + SOON, self._last + 1.0))

    def run_once(self) -> None:
        """Wait for the next thing due, and do it."""
        deadline = self._threads.check_deadlines()
        self._tasks.watch()
        running = self._threads.running() + self._tasks.running()
        now = time.monotonic()
        if running and self._is_long(running):
            self._next = min(self._next, self._last + 1.0)
        self._next = min(self._next, self._asked_at)
        if now >= self._next:
            self._last, self._asked_at = now, math.inf
            # Set first: after an error the loop's own backoff decides, not a storm of calls.
            self._next = now + 1.0
            upkeep = self._storage.maintain([run.job for run in running])
            self.contact.answered(self.name)
            self._next = now + upkeep.again_in
            # By identity, because the attempts of a start may come again.
            lost = {id(job) for job in upkeep.lost}
            for run in running:
                if id(run.job) in lost:
                    self._abandon(run, release=False)
        self._poked.wait(min(TICK if deadline is None else max(0.0, min(deadline, TICK)), max(0.0, self._next - now)))
        self._poked.clear()

    def stop(self) -> None:
        """End soon."""
        super().stop()
        self._poked.set()

    def release_running(self) -> None:
        """Give back every job that is still running: the worker ends without it."""
        for run in self._threads.running() + self._tasks.running():
            self._abandon(run, release=True)

    def _abandon(self, run: Run, *, release: bool) -> None:
        runner = self._tasks if run.handler.is_async else self._threads
        runner.abandon(run, release=release)

    def _is_long(self, running: list[Run]) -> bool:
        now = time.time()
        return any(run.job.started_at is not None and now - run.job.started_at.timestamp() >= TICK for run in running)
