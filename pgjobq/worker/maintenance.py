"""The maintenance loop: it rescues the jobs of dead workers, finds lost jobs and checks deadlines."""

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

LOOK_EVERY = 0.25  # seconds between two checks of the runs
LONG_RUN = 0.25  # seconds; while a run takes longer than this, maintenance runs once a second
SOON = 0.3  # seconds until an early run of maintenance; most jobs are done by then


class MaintenanceLoop(Loop):
    """Runs the storage's maintenance about once a second while any worker runs jobs, and rarely while all are idle."""

    name = "maintenance"

    def __init__(
        self, storage: BaseStorage, threads: ThreadRunner, tasks: TaskRunner, *, contact: Contact | None = None
    ) -> None:
        super().__init__(contact)
        self._storage, self._threads, self._tasks = storage, threads, tasks
        self._woken = threading.Event()
        self._next_at = self._last_at = 0.0
        self._asked_at = math.inf  # when run_soon() wants maintenance to run
        storage.on_watch(self.run_soon)

    def run_soon(self) -> None:
        """Run the storage's maintenance soon, because another worker has a job."""
        self._asked_at = min(self._asked_at, max(time.monotonic() + SOON, self._last_at + 1.0))

    def run_once(self) -> None:
        """Settle the runs that are past their deadline, run the storage's maintenance if it is due, and wait."""
        deadline = self._threads.check_deadlines()
        self._tasks.watch()
        running = self._threads.running() + self._tasks.running()
        now = time.monotonic()
        if running and self._has_long_run(running):
            self._next_at = min(self._next_at, self._last_at + 1.0)
        self._next_at = min(self._next_at, self._asked_at)
        if now >= self._next_at:
            self._last_at, self._asked_at = now, math.inf
            # Set before the call, so that only the loop's backoff decides when to retry after an error.
            self._next_at = now + 1.0
            found = self._storage.maintain([run.job for run in running])
            self.contact.answered(self.name)
            self._next_at = now + found.again_in
            # Compare by identity, because a later start of a job may have the same attempts.
            lost = {id(job) for job in found.lost}
            for run in running:
                if id(run.job) in lost:
                    self._abandon(run, release=False)
        pauses = [LOOK_EVERY, self._next_at - now, *([] if deadline is None else [deadline])]
        self._woken.wait(max(0.0, min(pauses)))
        self._woken.clear()

    def stop(self) -> None:
        """Ask the loop to end, and wake it if it waits."""
        super().stop()
        self._woken.set()

    def release_running(self) -> None:
        """Release every job that still runs, because the worker ends without waiting for it."""
        for run in self._threads.running() + self._tasks.running():
            self._abandon(run, release=True)

    def _abandon(self, run: Run, *, release: bool) -> None:
        runner = self._tasks if run.handler.is_async else self._threads
        runner.abandon(run, release=release)

    def _has_long_run(self, running: list[Run]) -> bool:
        now = time.time()
        starts = [run.job.started_at for run in running]
        return any(start is not None and now - start.timestamp() >= LONG_RUN for start in starts)
