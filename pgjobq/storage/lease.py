"""The parts of a LeasedStorage: the starts that it holds, and the thread that renews its lease."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable
from typing import Protocol

from pgjobq.events import EventLog
from pgjobq.models import Job

log = EventLog("pgjobq.storage")

RENEWALS = 3  # a lease is renewed so many times before it would run out


class Holds:
    """The starts that this storage holds. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}

    def add(self, jobs: Iterable[Job]) -> None:
        """Remember starts."""
        with self._lock:
            self._jobs.update((job.id, job) for job in jobs)

    def get(self, job_id: str) -> Job | None:
        """The start of this job that is held, or None."""
        return self._jobs.get(job_id)

    def drop(self, jobs: Iterable[Job]) -> None:
        """Forget starts that are settled or lost; a later start of the same job stays."""
        with self._lock:
            for job in jobs:
                held = self._jobs.get(job.id)
                if held is not None and (held.attempts, held.worker_id) == (job.attempts, job.worker_id):
                    del self._jobs[job.id]

    def starts(self) -> set[tuple[str, int, int | None]]:
        """(id, attempts, worker_id) of every start held."""
        with self._lock:
            return {start(job) for job in self._jobs.values()}


def start(job: Job) -> tuple[str, int, int | None]:
    """What tells one start of a job from every other."""
    return job.id, job.attempts, job.worker_id


class Leaseholder(Protocol):
    """A storage, as its keeper sees it."""

    lease: float  # seconds

    def keep(self) -> None:
        """Renew the lease."""


class Keeper(threading.Thread):
    """Renews a storage's lease for as long as the storage is there and the process lives."""

    def __init__(self, storage: Leaseholder) -> None:
        super().__init__(name="pgjobq-lease", daemon=True)
        self._storage = weakref.ref(storage)  # a storage that nobody uses any more is let go of
        self._interval = storage.lease / RENEWALS
        self._stopping = threading.Event()

    def run(self) -> None:
        """Renew, again and again; sooner after an error."""
        pause = self._interval
        while not self._stopping.wait(pause):
            storage = self._storage()
            if storage is None:
                return
            pause = self._interval
            try:
                storage.keep()
            except Exception as error:
                pause = min(1.0, self._interval / 4)
                log.warning("lease.error", extra={"error": error, "retry_in": round(pause, 3)})
            del storage

    def stop(self) -> None:
        """End it; a renewal under way ends first."""
        self._stopping.set()
        if self is not threading.current_thread():
            self.join(self._interval)
