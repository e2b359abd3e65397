"""The loop that claims jobs and hands them to the runners."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from pgjobq.errors import UnknownJobType
from pgjobq.events import EventLog
from pgjobq.handlers import Handler, Registry
from pgjobq.models import Job
from pgjobq.storage.base import BaseStorage, Released
from pgjobq.worker.contact import Contact
from pgjobq.worker.in_flight import InFlight
from pgjobq.worker.loop import Loop
from pgjobq.worker.running import verdict
from pgjobq.worker.tasks import TaskRunner
from pgjobq.worker.threads import ThreadRunner

log = EventLog("pgjobq.worker")

MAX_WAIT = 30.0  # seconds that one call of storage.wait() may sleep
BUSY_AFTER = 0.005  # seconds that jobs run before the worker is marked busy
FULL_AFTER = 0.02  # seconds without room before the worker asks other workers for help
HAND_OVER = 0.0001  # seconds for which this thread leaves the interpreter to the runners after a claim
STALLED = 0.1  # seconds without a finished job after which jobs that have not started are released
LEAVE_FOR = 15.0  # seconds for which a job without a handler is hidden, if the storage cannot filter by type


class Fetcher(Loop):
    """Claims as many jobs as there is room for, and sleeps in storage.wait() while there are none."""

    name = "fetch"

    def __init__(
        self,
        storage: BaseStorage,
        in_flight: InFlight,
        registry: Registry,
        threads: ThreadRunner,
        tasks: TaskRunner,
        *,
        queues: Sequence[str] | None,
        fail_unknown: bool,
        contact: Contact | None = None,
        on_full: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(contact)
        self._storage, self._in_flight, self._registry = storage, in_flight, registry
        self._threads, self._tasks = threads, tasks
        self._queues, self._fail_unknown = queues, fail_unknown
        self._left_types: set[str] = set()  # types without a handler; other workers run their jobs
        self._left_jobs_stay = True  # False: the storage cannot leave types out of a claim
        self._may_be_jobs = True  # whether to claim before waiting
        self._told_full = False  # whether the storage knows that there is no room
        self._claimed_at = 0.0
        self._on_full = on_full  # called when it will not wait in the storage for a while
        self.resumed = threading.Event()
        self.resumed.set()

    def run_once(self) -> None:
        """Claim once, or wait for room, for a job or for resume()."""
        if not self.resumed.is_set():
            if not self._told_full:
                self._told_full = True
                self._on_full()
                self._storage.note_load(busy=True, full=True)
            self.resumed.wait(1.0)
            self._may_be_jobs = True
            return
        self._in_flight.has_room.clear()
        room = self._in_flight.room()
        if not room:
            self._wait_for_room()
        elif self._may_be_jobs:
            self._told_full = False
            self._claim(room)
        elif not self.stopping.is_set():
            self._wait_for_jobs()

    def _claim(self, room: int) -> None:
        if self._left_types:
            self._take_again([name for name in self._left_types if name in self._registry])
        jobs = self._storage.dequeue_many(room, self._queues)
        self.contact.answered(self.name)
        if jobs:
            self._in_flight.measure_rate()
            self._in_flight.note_claimed(len(jobs))
            self._claimed_at = time.monotonic()
            if self.stopping.is_set():  # stop() may not have waited for this claim
                for job in jobs:
                    self._in_flight.add_outcome(Released(job))
            else:
                self.dispatch(jobs)
                if len(jobs) < room:  # no further claim is due, and the handlers must not wait for the interpreter
                    time.sleep(HAND_OVER)
        self._may_be_jobs = len(jobs) >= room

    def _wait_for_jobs(self) -> None:
        """Sleep until there may be a job. Mark the worker busy first if its jobs run longer than BUSY_AFTER."""
        pause = MAX_WAIT
        if self._in_flight.unfinished():
            left = self._claimed_at + BUSY_AFTER - time.monotonic()
            self._storage.note_load(left <= 0, full=False)
            pause = left if left > 0 else STALLED
            self._give_back_stalled()
        else:
            self._storage.note_load(busy=False, full=False)
            self._in_flight.reset_rate()
        self._may_be_jobs = self._storage.wait(pause, self._queues) is not False

    def _wait_for_room(self) -> None:
        """Wait until a job ends. If none ends for a while, report that this worker is full, so others take its jobs."""
        self._may_be_jobs = True
        if not self._in_flight.has_room.wait(STALLED if self._told_full else FULL_AFTER) and not self._told_full:
            self._told_full = True
            self._on_full()
            self._storage.note_load(busy=True, full=True)
        self._in_flight.measure_rate()
        self._give_back_stalled()

    def _give_back_stalled(self) -> None:
        """Release the prefetched jobs if no job ends for a while, because they may start sooner on another worker."""
        if self._in_flight.stalled(STALLED):
            self._threads.release()
            self._tasks.release()
            self._in_flight.reset_rate()

    def stop(self) -> None:
        """Ask the loop to end, and wake it if it sleeps."""
        super().stop()
        self.resumed.set()
        self._in_flight.has_room.set()
        self._storage.wake()

    def pause(self) -> None:
        """Claim nothing until resume() is called."""
        self.resumed.clear()
        self._storage.wake()

    def resume(self) -> None:
        """Claim again."""
        self.resumed.set()

    def _leave_to_others(self, job: Job, error: UnknownJobType) -> Released:
        """Return the release of a job without a handler, and leave its type to other workers."""
        if job.type not in self._left_types:
            self._left_types.add(job.type)
            self._left_jobs_stay = self._storage.leave_types(self._left_types)
            hidden = {} if self._left_jobs_stay else {"hidden_for": LEAVE_FOR}
            log.warning("type.left", extra={"job_type": job.type, "queue": job.queue, "reason": error} | hidden)
        return Released(job) if self._left_jobs_stay else Released(job, LEAVE_FOR)

    def _take_again(self, types: Sequence[str]) -> None:
        """Claim these types again, because handlers for them have been registered."""
        if types:
            self._left_types.difference_update(types)
            self._storage.leave_types(self._left_types)

    def dispatch(self, jobs: Sequence[Job]) -> None:
        """Hand claimed jobs to the runners. A job without a handler fails or is released."""
        async_jobs: list[tuple[Job, Handler]] = []
        for job in jobs:
            try:
                handler = self._registry.get(job.type)
            except UnknownJobType as error:
                self._in_flight.add_outcome(
                    verdict(job, None, error) if self._fail_unknown else self._leave_to_others(job, error)
                )
                continue
            if handler.on_loop:
                async_jobs.append((job, handler))
            else:
                self._threads.submit(job, handler)
        if async_jobs:
            self._tasks.submit_many(async_jobs)
