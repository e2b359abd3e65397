"""Remember the starts that a storage dequeued, so that `complete(job_id)` is fenced although it names no claim."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence

from pgjobq.models import Job


class Holds:
    """The starts that this storage holds, grouped by claim. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}  # job id -> its latest start
        self._open: dict[int, set[str]] = {}  # claim -> ids of its jobs that are held
        # Worker id -> claims that hold no job any more and that the database has not forgotten yet.
        self._finished: dict[int, set[int]] = {}

    def __bool__(self) -> bool:
        return bool(self._open)

    def add(self, jobs: Sequence[Job]) -> None:
        """Remember the starts of one claim."""
        if not jobs:
            return
        ids, claim = [job.id for job in jobs], jobs[0].claim_id
        assert claim is not None  # claim_jobs always returns one
        with self._lock:
            self._jobs.update(zip(ids, jobs, strict=True))
            self._open[claim] = set(ids)

    def get(self, job_id: str) -> Job | None:
        """Return the held start of this job, or None."""
        return self._jobs.get(job_id)

    def has_suspect(self) -> bool:
        """Return whether a suspect is held. A suspect is always the only job that the storage holds."""
        if len(self._open) != 1:
            return False
        jobs = list(self._jobs.values())
        return len(jobs) == 1 and jobs[0].crashes > 0

    def drop(self, jobs: Iterable[Job]) -> None:
        """Forget starts that are settled or lost."""
        with self._lock:
            for job in jobs:
                claim = job.claim_id
                # Keep a later start of the same job.
                if (held := self._jobs.get(job.id)) is not None and held.claim_id == claim:
                    del self._jobs[job.id]
                if claim is None or claim not in self._open:
                    continue
                self._open[claim].discard(job.id)
                if not self._open[claim]:
                    del self._open[claim]
                    if job.worker_id is not None:
                        self._finished.setdefault(job.worker_id, set()).add(claim)

    def about_to_finish(self, jobs: Iterable[Job]) -> dict[int, list[int]]:
        """Return, for each worker, the claims that the database can forget when it settles these jobs."""
        with self._lock:
            claims = {worker: list(finished) for worker, finished in self._finished.items() if finished}
            left: dict[tuple[int, int], int] = {}
            for job in jobs:
                if (
                    job.worker_id is not None
                    and job.claim_id is not None
                    and job.id in self._open.get(job.claim_id, ())
                ):
                    key = job.worker_id, job.claim_id
                    left[key] = left.get(key, len(self._open[job.claim_id])) - 1
            for (worker, claim), count in left.items():
                if count <= 0:
                    claims.setdefault(worker, []).append(claim)
            return claims

    def forgotten(self, claims: Mapping[int, Iterable[int]]) -> None:
        """Forget these claims, because the database has forgotten them."""
        with self._lock:
            for worker, gone in claims.items():
                self._finished[worker] = self._finished.get(worker, set()).difference(gone)

    def claims(self) -> list[int]:
        """Return the known claims: those with held jobs, and those that the database has not forgotten yet."""
        with self._lock:
            return [*self._open, *(claim for finished in self._finished.values() for claim in finished)]

    def all(self) -> list[Job]:
        """Return every held start."""
        with self._lock:
            return list(self._jobs.values())
