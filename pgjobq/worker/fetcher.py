"""The loop that claims jobs and hands them to the runners."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from pgjobq.errors import UnknownJobType
from pgjobq.handlers import Handler, Registry
from pgjobq.models import Job
from pgjobq.storage.base import BaseStorage, Released
from pgjobq.worker.hand import Hand
from pgjobq.worker.loop import Loop
from pgjobq.worker.running import verdict
from pgjobq.worker.tasks import TaskRunner
from pgjobq.worker.threads import ThreadRunner

MAX_WAIT = 30.0  # seconds that a storage may sleep at once
LEAVE_FOR = 15.0  # seconds for which a job of unknown type is left to other workers


class Fetcher(Loop):
    """Claims as many jobs as there is room for; sleeps in the storage while there are none."""

    name = "fetch"

    def __init__(
        self,
        storage: BaseStorage,
        hand: Hand,
        registry: Registry,
        threads: ThreadRunner,
        tasks: TaskRunner,
        *,
        queues: Sequence[str] | None,
        leave_unknown: bool,
    ) -> None:
        super().__init__()
        self._storage, self._hand, self._registry = storage, hand, registry
        self._threads, self._tasks = threads, tasks
        self._queues, self._leave_unknown = queues, leave_unknown
        self.resumed = threading.Event()
        self.resumed.set()

    def run_once(self) -> None:
        """Claim once, or wait for room, for a job, or to be resumed."""
        if not self.resumed.is_set():
            self.resumed.wait(1.0)
            return
        self._hand.has_room.clear()
        room = self._hand.room()
        if not room:
            self._hand.has_room.wait(0.1)
            self._hand.measure()
            return
        jobs = self._storage.dequeue_many(room, self._queues)
        if jobs:
            self._hand.measure()
            self._hand.claimed(len(jobs))
            self.dispatch(jobs)
        elif not self.stopping.is_set() and self.resumed.is_set():
            self._storage.wait(MAX_WAIT, self._queues)
            if not self._hand.unfinished():
                self._hand.idle()

    def stop(self) -> None:
        """End soon, also out of a sleep."""
        super().stop()
        self.resumed.set()
        self._hand.has_room.set()
        self._storage.wake()

    def pause(self) -> None:
        """Claim nothing until resume."""
        self.resumed.clear()
        self._storage.wake()

    def resume(self) -> None:
        """Claim again."""
        self.resumed.set()

    def dispatch(self, jobs: Sequence[Job]) -> None:
        """Hand claimed jobs to the runners."""
        async_jobs: list[tuple[Job, Handler]] = []
        for job in jobs:
            try:
                handler = self._registry.get(job.type)
            except UnknownJobType as error:
                self._hand.finish(Released(job, LEAVE_FOR) if self._leave_unknown else verdict(job, None, error))
                continue
            if handler.is_async:
                async_jobs.append((job, handler))
            else:
                self._threads.submit(job, handler)
        if async_jobs:
            self._tasks.submit_many(async_jobs)
