"""The starts that a storage holds, so that even `complete(job_id)` is for one start alone."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from pgjobq.models import Job


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
