"""A model of the jobs that a storage should contain after the calls so far, and its comparison with the storage."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from pgjobq.models import Job
from pgjobq.storage.base import BaseStorage
from pgjobq.testing.promises import promise, same, stored


@dataclass
class Known:
    """A job in the model."""

    priority: int
    status: str = "pending"
    attempts: int = 0
    hidden: bool = False  # its execute_at is far in the future
    place: int | None = None  # position in the order of due times; None if unknown, because the job was released
    by: int | None = None  # the index of the storage that started the job last
    start: int | None = None  # the number of that start
    error: str | None = None


@dataclass(frozen=True)
class Start:
    """One start of a job, by one of the storages."""

    job: Job
    by: int
    number: int  # unique among all starts


class Model:
    """The expected jobs of one example, by id, and the storage to compare them with.

    agrees: whether the last comparison succeeded. It is false during a step.
    """

    def __init__(self, storage: BaseStorage) -> None:
        self.storage = storage
        self.jobs: dict[str, Known] = {}
        self.clock, self.starts = itertools.count(), itertools.count()
        self.agrees = True

    def add(self, job_id: str, priority: int, hidden: bool) -> None:
        """Note that a job was enqueued."""
        self.jobs[job_id] = Known(priority, hidden=hidden, place=next(self.clock))
        self.compare(job_id)

    def started(self, job: Job, by: int) -> Start:
        """Check that it was the turn of the job that dequeue returned, and note the start."""
        self.agrees = False
        promise(job.id in self.jobs, "dequeue: returns only jobs that were enqueued and are not finished", found=job.id)
        known = self.jobs[job.id]
        what = "hidden" if known.hidden else known.status
        same(what, "pending", "dequeue: returns only jobs that are pending and due")
        for job_id, other in self.jobs.items():
            if other.status != "pending" or other.hidden:
                continue
            promise(
                other.priority <= known.priority,
                "order: a job of higher priority is dequeued first",
                first=job_id,
                found=job.id,
            )
            if other.priority == known.priority and other.place is not None and known.place is not None:
                promise(
                    other.place >= known.place,
                    "order: jobs of one priority are dequeued in the order of their due times",
                    first=job_id,
                    found=job.id,
                )
        known.status, known.attempts, known.by = "running", known.attempts + 1, by
        known.start = number = next(self.starts)
        same((job.status, job.attempts), ("running", known.attempts), "dequeue: starts the job and counts the start")
        self.compare(job.id)
        return Start(job, by, number)

    def nothing_is_due(self, sentence: str) -> None:
        """Check that no job in the model is pending and due."""
        due = [job_id for job_id, known in self.jobs.items() if known.status == "pending" and not known.hidden]
        promise(not due, sentence, due=due, found=None)
        self.agrees = True

    def compare(self, job_id: str) -> None:
        """Check that the job in the storage agrees with the model."""
        known = self.jobs[job_id]
        job = stored(self.storage, job_id)
        found = (str(job.status), job.attempts, job.priority, job.data)
        expected = (known.status, known.attempts, known.priority, {"of": job_id})
        same(found, expected, "storage: a job has the state that results from all calls so far")
        if known.status == "failed":
            same(job.error, known.error, "fail: stores the error")
        self.agrees = True

    def compare_all(self) -> None:
        """Compare every job, because a call may have changed a job that it did not name."""
        for job_id in self.jobs:
            self.compare(job_id)
