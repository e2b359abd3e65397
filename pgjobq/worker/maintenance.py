"""The maintenance loop: it rescues the jobs of dead workers, finds lost jobs and checks deadlines."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence

from pgjobq.models import Job
from pgjobq.storage.base import BaseStorage
from pgjobq.worker.contact import Contact
from pgjobq.worker.declaring import Declarer
from pgjobq.worker.loop import Loop
from pgjobq.worker.running import Run
from pgjobq.worker.tasks import TaskRunner
from pgjobq.worker.threads import ThreadRunner

LOOK_EVERY = 0.25  # seconds between two checks of the runs
LONG_RUN = 0.25  # seconds; while a run takes longer than this, maintenance runs once a second
SOON = 0.3  # seconds until an early run of maintenance; most jobs are done by then
HEAR = 1.0  # seconds for which it listens for cancels after a check of the runs
CHECK_AGAIN = 0.1  # seconds after a check for cancelled jobs until the second one


class MaintenanceLoop(Loop):
    """Runs the storage's maintenance about once a second while any worker runs jobs, and rarely while all are idle."""

    name = "maintenance"

    def __init__(
        self,
        storage: BaseStorage,
        threads: ThreadRunner,
        tasks: TaskRunner,
        *,
        declarer: Declarer | None = None,
        contact: Contact | None = None,
    ) -> None:
        super().__init__(contact)
        self._storage, self._threads, self._tasks = storage, threads, tasks
        self._declarer = Declarer(storage, {}) if declarer is None else declarer
        self._woken = threading.Event()
        self._next_at = self._last_at = 0.0
        self._asked_at = math.inf  # when run_soon() wants maintenance to run
        self._check_at = math.inf  # when to check for cancelled jobs
        self._check_again = False  # check once more after that
        self._attentive = False  # the thread that claims does not read notifications at the moment
        self._seen: set[Run] = set()  # what ran at the last check
        storage.on_watch(self.run_soon)
        storage.on_cancel(self.check_soon)

    def run_soon(self) -> None:
        """Run the storage's maintenance soon, because another worker has a job."""
        self._asked_at = min(self._asked_at, max(time.monotonic() + SOON, self._last_at + 1.0))

    def check_soon(self) -> None:
        """Look for jobs that were cancelled, at once. Called by any thread."""
        self._check_at, self._check_again = 0.0, True
        self._woken.set()

    def attend(self) -> None:
        """Hear of cancels, because the thread that claims does not wait in the storage. Called by any thread."""
        self._attentive = True
        self._woken.set()

    def run_once(self) -> None:
        """Settle the runs that are past their deadline, run the storage's maintenance if it is due, and wait."""
        deadline = self._threads.check_deadlines()
        self._tasks.watch()
        running = self._threads.running() + self._tasks.running()
        self._hear(running)
        now = time.monotonic()
        if running and self._has_long_run(running):
            self._next_at = min(self._next_at, self._last_at + 1.0)
        self._next_at = min(self._next_at, self._asked_at)
        if now >= self._next_at:
            self._last_at, self._asked_at = now, math.inf
            # Set before the call, so that only the loop's backoff decides when to retry after an error.
            self._next_at = now + 1.0
            self._declarer.run()
            found = self._storage.maintain([run.job for run in running])
            self.contact.answered(self.name)
            self._next_at = now + found.again_in
            self._give_up(running, found.lost)
        elif now >= self._check_at:
            # Check again soon, because a job that was claimed a moment ago may not be in `running` yet.
            self._check_at = now + CHECK_AGAIN if self._check_again else math.inf
            self._check_again = False
            if running:
                self._give_up(running, self._storage.lost([run.job for run in running]))
        pauses = [LOOK_EVERY, self._next_at - now, self._check_at - now, *([] if deadline is None else [deadline])]
        self._woken.wait(max(0.0, min(pauses)))
        self._woken.clear()

    def stop(self) -> None:
        """Ask the loop to end, and wake it if it waits."""
        super().stop()
        self._woken.set()

    def release_running(self) -> bool:
        """Release every job that still runs. Returns whether a process must end before its job is released."""
        running = self._threads.running() + self._tasks.running()
        for run in running:
            self._abandon(run, release=True)
        return any(run.handler.isolate is not None for run in running)

    def _hear(self, running: list[Run]) -> None:
        """Have the storage hear of cancels while a run takes long, or the thread that claims does something else."""
        self._attentive = self._attentive and bool(running)
        if self._attentive or any(run in self._seen for run in running):
            self._storage.hear_cancels(HEAR)
        self._seen = set(running)

    def _give_up(self, running: list[Run], lost: Sequence[Job]) -> None:
        # By identity, because the attempts of a start may come again.
        gone = {id(job) for job in lost}
        for run in running:
            if id(run.job) in gone:
                self._abandon(run, release=False)

    def _abandon(self, run: Run, *, release: bool) -> None:
        runner = self._tasks if run.handler.on_loop else self._threads
        runner.abandon(run, release=release)

    def _has_long_run(self, running: list[Run]) -> bool:
        now = time.time()
        starts = [run.job.started_at for run in running]
        return any(start is not None and now - start.timestamp() >= LONG_RUN for start in starts)
