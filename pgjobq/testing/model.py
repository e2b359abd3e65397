"""A model of the jobs that a storage should have after the calls so far, and the comparison with the storage."""

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
    place: int | None = None  # in the order of due times; None: unknown, because the job was released
    by: int | None = None  # the storage that started it last
    start: int | None = None  # the number of that start
    error: str | None = None


@dataclass(frozen=True)
class Start:
    """One start of a job, by one of the storages."""

    job: Job
    by: int
    number: int  # unique among all starts


class Model:
    """The jobs of one example, by id, beside the storage that should hold them.

    agrees: the last comparison went well; false from the beginning of a step to its end.
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
        """A job that dequeue gave, if it was its turn."""
        self.agrees = False
        promise(job.id in self.jobs, "dequeue: gives a job that was enqueued and is not finished", found=job.id)
        known = self.jobs[job.id]
        what = "hidden" if known.hidden else known.status
        same(what, "pending", "dequeue: gives a job that is pending and due")
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
                    "order: of jobs of one priority, the one that fell due first is dequeued first",
                    first=job_id,
                    found=job.id,
                )
        known.status, known.attempts, known.by = "running", known.attempts + 1, by
        known.start = number = next(self.starts)
        same((job.status, job.attempts), ("running", known.attempts), "dequeue: starts the job, and counts the start")
        self.compare(job.id)
        return Start(job, by, number)

    def nothing_is_due(self, sentence: str) -> None:
        """Check that no job in the model waits for a worker."""
        due = [job_id for job_id, known in self.jobs.items() if known.status == "pending" and not known.hidden]
        promise(not due, sentence, due=due, found=None)
        self.agrees = True

    def compare(self, job_id: str) -> None:
        """Check that the job is as in the model."""
        known = self.jobs[job_id]
        job = stored(self.storage, job_id)
        found = (str(job.status), job.attempts, job.priority, job.data)
        expected = (known.status, known.attempts, known.priority, {"of": job_id})
        same(found, expected, "storage: a job is as the calls so far have made it")
        if known.status == "failed":
            same(job.error, known.error, "fail: the error is kept")
        self.agrees = True

    def compare_all(self) -> None:
        """Check that no call has changed a job that it did not name."""
        for job_id in self.jobs:
            self.compare(job_id)
