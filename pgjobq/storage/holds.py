"""Starts: what tells each from every other, and those that a storage holds."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable
from typing import Self

from pgjobq.models import Job


class Claimant(int):
    """The id of a worker, as the jobs of one of its claims carry it: a number like any other, with the claim's own.

    claim: a number that never comes again. A job's attempts and worker do: a release takes the attempt back, and the
    id of a deleted job may be enqueued again.
    """

    claim: int

    def __new__(cls, worker_id: int, claim: int) -> Self:
        """A worker's id in this claim."""
        self = super().__new__(cls, worker_id)
        self.claim = claim
        return self

    @classmethod
    def fresh(cls, worker_id: int) -> Self:
        """The worker's id in a new claim."""
        return cls(worker_id, secrets.randbits(62) | 1)

    @classmethod
    def stored(cls, worker_id: int | None, claim: int | None) -> int | None:
        """A worker's id as it is read from a database, with the claim if there is one."""
        return worker_id if worker_id is None or claim is None else cls(worker_id, claim)

    def __reduce__(self) -> tuple[type[Self], tuple[int, int]]:
        # By default it is pickled and copied from the number alone.
        return type(self), (int(self), self.claim)


def claim_of(job: Job) -> int:
    """The claim that started this job; 0, which no claim has, when that is not known."""
    return job.worker_id.claim if isinstance(job.worker_id, Claimant) else 0


Start = tuple[str, int]  # a job's id, and the claim that started it


def start(job: Job) -> Start:
    """What tells one start of a job from every other."""
    return job.id, claim_of(job)


class Holds:
    """The starts that a storage holds, so that even `complete(job_id)` is for one start alone. Thread-safe."""

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
                if held is not None and claim_of(held) == claim_of(job):
                    del self._jobs[job.id]

    def all(self) -> list[Job]:
        """Every start held."""
        with self._lock:
            return list(self._jobs.values())

    def starts(self) -> set[Start]:
        """What tells them."""
        return set(map(start, self.all()))
