"""Tests of export_jobs and import_jobs, which copy jobs from one storage to another."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from pgjobq.errors import InvalidJob
from pgjobq.models import Job, JobStatus, UnreadableData
from pgjobq.storage.base import BaseStorage
from pgjobq.testing.features import StorageTests, needs
from pgjobq.testing.promises import ids, promise, refused, same, stored, taken, unchanged

FAR = datetime(2100, 1, 1, tzinfo=UTC)


class MovingTests(StorageTests):
    """Part of StorageContract."""

    @needs("imports")
    def test_import_jobs(self, storage: BaseStorage) -> None:
        """import_jobs adds jobs with their state. It does not change jobs that exist."""
        then = datetime(2020, 2, 29, 12, tzinfo=UTC)
        old: dict[str, Any] = {"type": "t", "created_at": then, "updated_at": then}
        storage.enqueue("there", "t", {"v": 1})
        jobs = [
            Job(id="done", status=JobStatus.COMPLETED, attempts=2, data={"é": [1]}, finished_at=then, **old),
            Job(id="bad", status=JobStatus.FAILED, attempts=4, error="boom", failed_at=then, **old),
            Job(id="gone", status=JobStatus.CANCELLED, finished_at=then, **old),
            Job(id="waits", attempts=1, priority=9, execute_at=FAR, error="once", **old),
            Job(id="ran", status=JobStatus.RUNNING, attempts=1, started_at=then, worker_id=7, **old),
            Job(id="last", status=JobStatus.RUNNING, attempts=1, max_retries=0, started_at=then, **old),
            Job(id="there", status=JobStatus.COMPLETED, data={"v": 2}, **old),
        ]
        with unchanged(storage, "there", "import_jobs: does not change a job that exists"):
            same(storage.import_jobs(jobs), 6, "import_jobs: returns how many jobs were added")
            same(storage.import_jobs(jobs), 0, "import_jobs: can be repeated")
        for job in jobs[:-1]:
            there = stored(storage, job.id)
            for name in ("type", "data", "priority", "attempts", "max_retries", "created_at"):
                same(getattr(there, name), getattr(job, name), f"import_jobs: keeps {name}")
        expected = ["completed", "failed", "cancelled", "pending", "pending", "failed"]
        found = [str(stored(storage, job.id).status) for job in jobs[:-1]]
        sentence = "import_jobs: keeps the status; a running job becomes pending, or failed after its last try"
        same(found, expected, sentence)
        same(stored(storage, "bad").error, "boom", "import_jobs: keeps the error")
        same(stored(storage, "waits").execute_at, FAR, "import_jobs: keeps the due time")
        got = [(job.id, job.attempts) for job in storage.dequeue_many(9)]
        same(sorted(got), [("ran", 2), ("there", 1)], "import_jobs: a pending job is dequeued when it is due")

    def test_export_jobs(self, storage: BaseStorage) -> None:
        """export_jobs returns all jobs in batches, the oldest first."""
        names = [f"job-{n}" for n in range(7)]
        for n in range(7):
            storage.enqueue(names[n], "t", {"n": n})
            time.sleep(0.003)  # so that databases that store milliseconds can distinguish the times
        taken(storage, "job-0")
        batches = list(storage.export_jobs(3))
        promise(all(len(batch) <= 3 for batch in batches), "export_jobs: returns batches of at most the given size")
        found = [job for batch in batches for job in batch]
        same(ids(found), names, "export_jobs: returns every job, the oldest first")
        same(found, [stored(storage, name) for name in names], "export_jobs: returns each job as get_job does")

    @needs("imports")
    def test_import_jobs_adds_all_or_none(self, storage: BaseStorage) -> None:
        """If one job is invalid, import_jobs adds none."""
        bad = [Job(id="x" * 256, type="t"), Job(id="bad", type="t", data=UnreadableData("it is not JSON"))]
        for job in bad:
            with refused(InvalidJob, "import_jobs: an invalid job raises InvalidJob"):
                storage.import_jobs([Job(id="good", type="t"), job])
            same(storage.list_jobs(), [], "import_jobs: if one job is refused, none is added")
