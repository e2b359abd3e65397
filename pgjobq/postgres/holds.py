"""What a storage remembers of the jobs it dequeued, so that even `complete(job_id)` is fenced."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pgjobq.models import Job


class Holds:
    """The starts that this storage holds, and the batches they were claimed in. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, tuple[Job, int]] = {}  # job id -> the start, and its batch
        self._open: dict[int, int] = {}  # batch -> how many of its jobs are held
        # By worker: batches with no job left, not yet forgotten in the database.
        self._finished: dict[int, set[int]] = {}

    def add(self, jobs: Sequence[Job], batches: Sequence[int]) -> None:
        """Remember starts, and the claim_id of each one's batch."""
        with self._lock:
            self._jobs.update(zip([job.id for job in jobs], zip(jobs, batches, strict=True), strict=True))
            for batch, count in Counter(batches).items():
                self._open[batch] = self._open.get(batch, 0) + count

    def get(self, job_id: str) -> Job | None:
        """The start of this job that is held, or None."""
        held = self._jobs.get(job_id)
        return held[0] if held else None

    def drop(self, jobs: Iterable[Job]) -> None:
        """Forget starts that are settled or lost."""
        with self._lock:
            for job in jobs:
                held = self._jobs.get(job.id)
                # The same job may be held again by a later start: that one stays.
                if held is None or held[0].attempts != job.attempts or held[0].worker_id != job.worker_id:
                    continue
                del self._jobs[job.id]
                self._open[held[1]] -= 1
                if not self._open[held[1]]:
                    del self._open[held[1]]
                    if job.worker_id is not None:
                        self._finished.setdefault(job.worker_id, set()).add(held[1])

    def about_to_finish(self, jobs: Iterable[Job]) -> dict[int, list[int]]:
        """For each worker, the batches to forget in the database when these jobs are settled."""
        with self._lock:
            batches = {worker: list(finished) for worker, finished in self._finished.items() if finished}
            left: dict[tuple[int, int], int] = {}
            for job in jobs:
                if (held := self._jobs.get(job.id)) and held[0].worker_id is not None:
                    key = held[0].worker_id, held[1]
                    left[key] = left.get(key, self._open[held[1]]) - 1
            for (worker, batch), count in left.items():
                if count <= 0:
                    batches.setdefault(worker, []).append(batch)
            return batches

    def forgotten(self, batches: Mapping[int, Iterable[int]]) -> None:
        """The database has forgotten these batches."""
        with self._lock:
            for worker, gone in batches.items():
                self._finished[worker] = self._finished.get(worker, set()).difference(gone)

    def open_batches(self) -> list[int]:
        """The batches that jobs are held of."""
        with self._lock:
            return list(self._open)

    def all(self) -> list[Job]:
        """Every start held."""
        with self._lock:
            return [job for job, _ in self._jobs.values()]
