"""Tests of what a job leaves when it ends: its result, and the calls that wait for its end."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

from pgjobq.errors import InvalidJob, JobNotFound, WaitTimeout
from pgjobq.models import Job, JobStatus
from pgjobq.outcomes import Completed, Retried
from pgjobq.storage.base import BaseStorage
from pgjobq.testing.features import StorageTests, needs
from pgjobq.testing.promises import ids, promise, refused, same, stored, taken, unchanged

VALUES: dict[str, Any] = {
    "dict": {"é": [1, 2.5, None, True], "": {}},
    "list": [],
    "text": "a\nb",
    "zero": 0,
    "no": False,
}


class EndingTests(StorageTests):
    """Part of StorageContract."""

    @needs("results")
    def test_result(self, storage: BaseStorage) -> None:
        """It is kept as it is, and only by the job that returned it."""
        for name in (*VALUES, "none"):
            storage.enqueue(name, "t", {})
        outcomes = []
        for name in (*VALUES, "none"):
            job = taken(storage, name)
            outcomes.append(Completed(job, None if name == "none" else json.dumps(VALUES[name])))
        same(storage.settle(outcomes), [], "settle: a job with a result is completed")
        same(storage.settle(outcomes), [], "settle: can be repeated with the same results")
        for name, value in {**VALUES, "none": None}.items():
            same(stored(storage, name).result, value, "settle: keeps the result as it was")
        found = {job.id: job.result for job in storage.list_jobs("completed")}
        same(found, {**VALUES, "none": None}, "list_jobs: gives the results")
        found = {job.id: job.result for page in storage.export_jobs() for job in page}
        same(found, {**VALUES, "none": None}, "export_jobs: gives the results")

    @needs("results")
    def test_result_of_a_lost_start(self, storage: BaseStorage) -> None:
        """It is not kept."""
        storage.enqueue("a", "t", {})
        first = taken(storage, "a")
        storage.settle([Retried(first, 0, None)])
        second = taken(storage, "a")
        late = Completed(first, '"late"')
        same(storage.settle([late]), [late], "settle: a start that is over is lost, with its result")
        storage.settle([Completed(second)])
        same(stored(storage, "a").result, None, "settle: keeps no result of a start that was lost")

    @needs("results")
    def test_result_that_is_too_large(self, storage: BaseStorage) -> None:
        """It is refused, and the job stays as it is."""
        storage.enqueue("a", "t", {})
        job = taken(storage, "a")
        with (
            unchanged(storage, "a", "settle: a result that is too large changes nothing"),
            refused(InvalidJob, "settle: a result that is too large raises InvalidJob"),
        ):
            storage.settle([Completed(job, json.dumps("x" * 1_100_000))])
        same(storage.settle([Completed(job, '"x"')]), [], "settle: a smaller result is kept afterwards")

    @needs("results", "imports")
    def test_result_is_imported(self, storage: BaseStorage) -> None:
        """With its job, if that is completed."""
        jobs = [
            Job(id="done", type="t", status=JobStatus.COMPLETED, result={"n": [1e300]}),
            Job(id="none", type="t", status=JobStatus.COMPLETED),
            Job(id="bad", type="t", status=JobStatus.FAILED, result=3),
        ]
        storage.import_jobs(jobs)
        found = {job.id: stored(storage, job.id).result for job in jobs}
        same(
            found,
            {"done": {"n": [1e300]}, "none": None, "bad": None},
            "import_jobs: keeps the result of a completed job",
        )

    def test_wait_for_jobs_that_have_ended(self, storage: BaseStorage) -> None:
        """It returns at once, in the order of the ids."""
        for name in ("a", "b"):
            storage.enqueue(name, "t", {})
            taken(storage, name)
        storage.complete("a")
        storage.fail("b", "boom")
        found = storage.wait_for_many(["b", "a", "b"], 5)
        same(ids(found), ["b", "a", "b"], "wait_for_many: returns the jobs in the order of the ids")
        same(
            [str(job.status) for job in found[:2]], ["failed", "completed"], "wait_for_many: returns jobs as they ended"
        )
        found = asyncio.run(storage.wait_for_many_async(["a"], 5))
        same(ids(found), ["a"], "wait_for_many_async: returns the jobs")

    def test_wait_until_a_job_ends(self, storage: BaseStorage) -> None:
        """Not before."""
        storage.enqueue("a", "t", {})
        taken(storage, "a")
        done: list[str] = []

        def complete() -> None:
            done.append("completed")
            storage.complete("a")

        timer = threading.Timer(0.1, complete)
        timer.start()
        found = storage.wait_for_many(["a"], self.patience)
        promise(done, "wait_for_many: does not return before the job has ended")
        same([str(job.status) for job in found], ["completed"], "wait_for_many: returns the job as it ended")
        timer.join()

    def test_wait_for_a_job_that_does_not_end(self, storage: BaseStorage) -> None:
        """It ends with the time, or at once if there is no such job."""
        storage.enqueue("a", "t", {})
        with refused(WaitTimeout, "wait_for_many: raises WaitTimeout when the time is over"):
            storage.wait_for_many(["a"], 0.05)
        with refused(JobNotFound, "wait_for_many: raises JobNotFound for an unknown id"):
            storage.wait_for_many(["a", "nobody"], self.patience)
        with refused(InvalidJob, "wait_for_many: refuses a timeout below 0"):
            storage.wait_for_many(["a"], -1)
        same(str(stored(storage, "a").status), "pending", "wait_for_many: leaves a job that did not end as it is")
