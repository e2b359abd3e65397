"""Storages that break a promise of results, or of waiting for jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from helpers.broken_cases import breaks
from helpers.memory_storages import DictStorage, MemoryStorage
from pgjobq import Job
from pgjobq.outcomes import Completed, Outcome
from pgjobq.storage.holds import start


@breaks({
    "test_result": "settle: keeps the result as it was",
})  # fmt: skip
class DropsResults(MemoryStorage):
    def _settled(self, outcome: Outcome) -> bool:
        return super()._settled(Completed(outcome.job) if isinstance(outcome, Completed) else outcome)


@breaks({"test_result_of_a_lost_start": "settle: keeps no result of a start that was lost"})
class KeepsLateResults(MemoryStorage):
    def _get(self, job_id: str) -> Job | None:
        found = super()._get(job_id)
        return found if found is None or job_id not in self.late else replace(found, result=self.late[job_id])

    def _settled(self, outcome: Outcome) -> bool:
        kept = super()._settled(outcome)
        if not kept and isinstance(outcome, Completed) and start(outcome.job) != start(self.memory.jobs["a"]):
            self.late[outcome.job.id] = outcome.result
        return kept

    late: dict[str, object] = {}  # noqa: RUF012  # one test uses it


@breaks({"test_result_that_is_too_large": "settle: a result that is too large raises InvalidJob"})
class TakesAnyResult(MemoryStorage):
    max_result_bytes = None


@breaks({"test_result_is_imported": "import_jobs: keeps the result of a completed job"})
class LeavesResultsBehind(MemoryStorage):
    def import_jobs(self, jobs: Sequence[Job]) -> int:
        return super().import_jobs([replace(job, result=None) for job in jobs])


@breaks({
    "test_wait_for_jobs_that_have_ended": "wait_for_many: returns the jobs in the order of the ids",
    "test_wait_until_a_job_ends": "wait_for_many: does not return before the job has ended",
    "test_wait_for_a_job_that_does_not_end": "wait_for_many: raises WaitTimeout when the time is over",
})  # fmt: skip
class DoesNotWait(DictStorage):
    def wait_for_many(self, ids: Sequence[str], timeout: float) -> list[Job]:
        return [job for name in sorted(set(ids)) if (job := self.get_job(name)) is not None]
