"""Identify the starts of jobs, and remember the starts that a storage holds."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable
from typing import Self

from pgjobq.models import Job


class Claimant(int):
    """A worker's id that also carries the number of a claim. It is the worker_id of the jobs of that claim.

    claim: a number that is never used again. The worker and the attempts do not identify a start, because a release
    takes the attempt back, and because the id of a deleted job may be enqueued again.
    """

    claim: int

    def __new__(cls, worker_id: int, claim: int) -> Self:
        """Return the worker's id with the number of this claim."""
        self = super().__new__(cls, worker_id)
        self.claim = claim
        return self

    @classmethod
    def fresh(cls, worker_id: int) -> Self:
        """Return the worker's id with the number of a new claim."""
        return cls(worker_id, secrets.randbits(62) | 1)

    @classmethod
    def stored(cls, worker_id: int | None, claim: int | None) -> int | None:
        """Return a worker's id as read from a database, with the claim if there is one."""
        return worker_id if worker_id is None or claim is None else cls(worker_id, claim)

    def __reduce__(self) -> tuple[type[Self], tuple[int, int]]:
        # The default would lose the claim, because it pickles and copies an int from its number alone.
        return type(self), (int(self), self.claim)


def claim_of(job: Job) -> int:
    """Return the claim that started this job, or 0 if it is unknown. No claim has the number 0."""
    return job.worker_id.claim if isinstance(job.worker_id, Claimant) else 0


Start = tuple[str, int]  # a job's id, and the claim that started it


def start(job: Job) -> Start:
    """Return the pair that identifies this start of the job."""
    return job.id, claim_of(job)


class Holds:
    """The starts that a storage holds. With them `complete(job_id)` settles only one start. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}

    def add(self, jobs: Iterable[Job]) -> None:
        """Remember starts."""
        with self._lock:
            self._jobs.update((job.id, job) for job in jobs)

    def get(self, job_id: str) -> Job | None:
        """Return the held start of this job, or None."""
        return self._jobs.get(job_id)

    def drop(self, jobs: Iterable[Job]) -> None:
        """Forget starts that are settled or lost. Keep a later start of the same job."""
        with self._lock:
            for job in jobs:
                held = self._jobs.get(job.id)
                if held is not None and claim_of(held) == claim_of(job):
                    del self._jobs[job.id]

    def all(self) -> list[Job]:
        """Return every held start."""
        with self._lock:
            return list(self._jobs.values())

    def starts(self) -> set[Start]:
        """Return the pairs that identify the held starts."""
        return set(map(start, self.all()))
