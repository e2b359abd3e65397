"""Storages that break a promise about the seven abstract methods."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from json import loads
from typing import Any

from helpers.broken_cases import breaks
from helpers.memory_storages import DictStorage, Memory, MemoryStorage
from pgjobq import DuplicateJob, Job, JobStatus, NewJob
from pgjobq.outcomes import Outcome

HIGHER = "order: a job of higher priority is dequeued first"
ORDER = "order: jobs of one priority are dequeued in the order in which they were enqueued"


# -- order and time --------------------------------------------------------------------------------


@breaks({"test_higher_priority_first": HIGHER, "test_queues": "queues: dequeue_many returns"}, storage=MemoryStorage)
class IgnoresPriority(Memory):
    def rank(self, job: Job) -> tuple[Any, ...]:
        return self.due[job.id]


@breaks({
    "test_order_of_enqueueing": ORDER,
    "test_enqueue_many": "enqueue_many: jobs are dequeued in the order in which they were given",
    "test_enqueue_many_async": "enqueue_many_async: keeps the order of the jobs",
    "test_large_batches": "dequeue_many: returns up to 500 jobs, in the order of enqueueing",
})  # fmt: skip
class OrdersById(Memory):
    def rank(self, job: Job) -> tuple[Any, ...]:
        return -job.priority, job.id


@breaks(
    {
        "test_earlier_due_time_first": "order: scheduled jobs of one priority are dequeued in the order of their due times"
    }
)
class IgnoresDueTimes(Memory):
    def rank(self, job: Job) -> tuple[Any, ...]:
        return -job.priority, self.due[job.id][1]


@breaks({"test_retried_job_is_ordered_by_priority": "order: a retried job is ordered by its priority"})
class RetriedFirst(Memory):
    def rank(self, job: Job) -> tuple[Any, ...]:
        return -job.attempts, -job.priority, self.due[job.id]


@breaks({
    "test_future_job_is_hidden": "due: a job whose execute_at is in the future is not dequeued",
    "test_retry_delay": "retry: the job is not dequeued before the delay has passed",
})  # fmt: skip
class NothingHidden(Memory):
    def is_due(self, job: Job) -> bool:
        return job.status == "pending"


@breaks(
    {
        "test_future_job_falls_due": "due: a job is dequeued when its execute_at has passed",
        "test_past_job_is_due": "due: a job whose execute_at has passed is due at once",
        "test_worker_finds_jobs_that_come_later": "worker: finishes every due job",
    },
    patience=1.5,
)
class NothingFallsDue(Memory):
    def is_due(self, job: Job) -> bool:
        return super().is_due(job) and (job.execute_at is None or job.attempts > 0)


@breaks({"test_times_are_in_utc_in_any_time_zone": "times: a storage sets a timestamp to the current time"})
class LocalStamps(Memory):
    def change(self, job: Job, **values: Any) -> Job:
        self.jobs[job.id] = replace(job, updated_at=datetime.now(), **values)  # noqa: DTZ005  # as beginners do
        return self.jobs[job.id]


# -- stored values --------------------------------------------------------------------------------


class Changing(Memory):
    """Stores a changed copy of each job."""

    def add(self, new: NewJob) -> None:
        super().add(new)
        self.jobs[new.id] = self.changed(self.jobs[new.id])

    def changed(self, job: Job) -> Job:
        raise NotImplementedError


@breaks(
    {
        "test_a_new_job_is_pending": "enqueue: a new job is pending, has no attempts",
        "test_every_argument_is_stored": "enqueue: stores every",
    }
)
class ForgetsMaxRetries(Changing):
    def changed(self, job: Job) -> Job:
        return replace(job, max_retries=0)


class TextChanging(Changing):
    def changed(self, job: Job) -> Job:
        return replace(job, data=loads(self.text(NewJob(type="t", data=job.data).json)))

    def text(self, json: str) -> str:
        raise NotImplementedError


@breaks({"test_data_is_returned_unchanged[texts]": "data: the example 'texts' is returned as it was given"})
class AsciiOnly(TextChanging):
    def text(self, json: str) -> str:
        return json.encode("ascii", "replace").decode()


@breaks({"test_data_is_returned_unchanged[texts]": "data: the example 'texts' is returned as it was given"})
class UnicodeNormalised(TextChanging):
    def text(self, json: str) -> str:
        return unicodedata.normalize("NFC", json)


@breaks({"test_large_data_is_returned_unchanged": "data: 1000 kB of data can be enqueued"})
class ShortData(TextChanging):
    def text(self, json: str) -> str:
        return json[:65535]


@breaks({"test_data_is_returned_unchanged[whole numbers]": "data: the example 'whole numbers' is returned"})
class RoundedNumbers(Changing):
    def changed(self, job: Job) -> Job:
        numbers = [float(f"{n:.14g}") for n in job.data.get("numbers", [])]
        return replace(job, data=job.data | ({"numbers": numbers} if numbers else {}))


@breaks({"test_data_is_returned_unchanged[large numbers]": "data: the example 'large numbers' is returned"})
class NumbersOf64Bits(Changing):
    def changed(self, job: Job) -> Job:
        numbers = [
            n if isinstance(n, float) or -(2**63) <= n < 2**63 else -(2**63) for n in job.data.get("numbers", [])
        ]
        return replace(job, data=job.data | ({"numbers": numbers} if numbers else {}))


@breaks({"test_data_is_returned_unchanged[deep]": "data: the example 'deep' is returned as it was given"})
class ShallowData(TextChanging):
    def text(self, json: str) -> str:
        return json.replace("[" * 100, "", 1).replace("]" * 100, "", 1)


@breaks({"test_ids_that_differ_slightly": "id: ids that differ in any character are different ids"})
class CaselessIds(DictStorage):
    def enqueue(self, job_id: str, *arguments: Any, **more: Any) -> None:
        if job_id.lower() in self.jobs:
            raise DuplicateJob
        super().enqueue(job_id, *arguments, **more)


@breaks({"test_data_is_copied": "data: a change of the caller's dict does not change the job"})
class SharesData(DictStorage):
    def get_job(self, job_id: str) -> Job | None:
        return self.jobs.get(job_id)


@breaks({"test_unknown_job_returns_none": "get_job: returns None for an unknown id"})
class RaisesForUnknownIds(DictStorage):
    def get_job(self, job_id: str) -> Job | None:
        return self.jobs[job_id]


@breaks({"test_another_storage_sees_the_same_jobs": "get_job: returns every job that was enqueued"})
class SharesNothing(DictStorage):
    def __init__(self, memory: Memory) -> None:
        super().__init__(Memory())


# -- refused arguments ----------------------------------------------------------------------------


@breaks({"test_duplicate_id_is_refused": "duplicate: enqueue of an id that exists raises DuplicateJob"})
class DropsDuplicates(DictStorage):
    def enqueue(self, job_id: str, *arguments: Any, **more: Any) -> None:
        if job_id not in self.jobs:
            super().enqueue(job_id, *arguments, **more)


@breaks({"test_duplicate_id_is_refused": "duplicate: a refused enqueue does not change the job that exists"})
class ReplacesDuplicates(DictStorage):
    def enqueue(self, job_id: str, *arguments: Any, **more: Any) -> None:
        there = self.jobs.pop(job_id, None)
        super().enqueue(job_id, *arguments, **more)
        if there is not None:
            raise DuplicateJob


@breaks({"test_naive_time_is_refused": "times: a naive execute_at raises InvalidJob"})
class AcceptsNaiveTimes(DictStorage):
    def enqueue(self, job_id: str, job_type: str, data: dict[str, Any], *_: Any, **more: Any) -> None:
        more["execute_at"] = more["execute_at"].replace(tzinfo=UTC)
        super().enqueue(job_id, job_type, data, **more)


NOT_ALLOWED = "enqueue: an invalid value raises InvalidJob"


@breaks({
    f"test_invalid_job_is_refused[{field}]": NOT_ALLOWED
    for field in ("job_id", "job_type", "data", "max_retries", "priority", "execute_at")
})  # fmt: skip
class AcceptsAnything(DictStorage):
    def enqueue(
        self, job_id: Any, job_type: Any, data: Any, max_retries: Any = 3, priority: Any = 5, execute_at: Any = None
    ) -> None:
        self.jobs[job_id] = Job(id=job_id, type=job_type, data=data, max_retries=max_retries, priority=priority)


@breaks({"test_retry_refuses_an_invalid_delay[nan]": "retry: a delay of nan seconds raises InvalidJob"})
class AcceptsAnyDelay(DictStorage):
    def retry(self, job_id: str, delay_seconds: float) -> None:
        super().retry(job_id, 0)


@breaks({
    "test_unknown_id[complete]": "unknown: complete of an unknown id raises JobNotFound",
    "test_unknown_id[fail]": "unknown: fail of an unknown id raises JobNotFound",
    "test_unknown_id[retry]": "unknown: retry of an unknown id raises JobNotFound",
})  # fmt: skip
class IgnoresUnknownIds(DictStorage):
    def complete(self, job_id: str) -> None:
        self.memory.change(self.jobs[job_id]) if job_id in self.jobs else None

    def fail(self, job_id: str, error: str) -> None:
        self.complete(job_id)

    def retry(self, job_id: str, delay_seconds: float) -> None:
        self.complete(job_id)


# -- starting and settling -------------------------------------------------------------------------


@breaks({
    "test_dequeue_starts_the_job": "dequeue: sets the job to running and adds 1 to attempts",
    "test_retry_of_a_running_job": "retry: makes the job due again, even after max_retries tries",
})  # fmt: skip
class CountsNoAttempts(Memory):
    def start(self, job: Job, **values: Any) -> Job:
        return super().start(replace(job, attempts=job.attempts - 1), **values)


@breaks({
    "test_dequeue_starts_the_job": "dequeue: does not return a job that is running",
    "test_empty_storage_returns_none": "dequeue: returns None when there is no job",
    "test_worker_runs_jobs": "worker: ",
}, patience=2)  # fmt: skip
class ReturnsRunningJobs(DictStorage):
    def dequeue(self) -> Job | None:
        running = self.list_jobs("running") or [Job(id="ghost", type="plain", data={"n": 0}, attempts=1)]
        return super().dequeue() or running[0]


@breaks(
    {
        "test_complete": "complete: sets the status and keeps the attempts",
        "test_worker_isolates": "worker: completes the job of an isolated handler",
    }
)
class CompletesNothing(DictStorage):
    def complete(self, job_id: str) -> None:
        self._held(job_id)


@breaks(
    {
        "test_fail": "fail: stores the whole error",
        "test_worker_retries_and_fails": "worker: the error of a failed job contains",
    }
)
class TruncatesErrors(DictStorage):
    def fail(self, job_id: str, error: str) -> None:
        super().fail(job_id, error[:20])


@breaks({"test_fail_takes_any_text[NUL]": "fail: accepts any text as an error"})
class RefusesNul(DictStorage):
    def fail(self, job_id: str, error: str) -> None:
        if "\0" in error:
            raise ValueError("A string literal cannot contain NUL (0x00) characters.")
        super().fail(job_id, error)


@breaks({
    "test_settle_takes_any_text": "settle: accepts any text as an error",
    "test_worker_survives_any_error": "worker: finishes every due job",
}, patience=2)  # fmt: skip
class RefusesLongErrors(DictStorage):
    def fail(self, job_id: str, error: str) -> None:
        if len(error) > 10_000:
            raise ValueError("Data too long for column 'error'")
        super().fail(job_id, error)


@breaks({"test_outcome_that_cannot_be_settled_does_not_block_others": "worker: finishes every due job"}, patience=2)
class SettlesInPairs(DictStorage):
    def settle(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        return super().settle(outcomes[: len(outcomes) // 2 * 2])


@breaks({"test_retry_of_a_running_job": "retry: sets the status, keeps attempts"})
class RetryKeepsStatus(DictStorage):
    def retry(self, job_id: str, delay_seconds: float) -> None:
        self.memory.change(self._held(job_id))


@breaks({"test_retry_of_a_failed_job": "retry: a failed job can be retried by any storage"})
class CannotRetryFailedJobs(DictStorage):
    def retry(self, job_id: str, delay_seconds: float) -> None:
        self._held(job_id)
        super().retry(job_id, delay_seconds)


@breaks({
    "test_job_that_is_not_running_cannot_be_settled[complete]": "complete: of a job that is completed raises LostJob",
    "test_job_that_is_not_running_cannot_be_settled[fail]": "fail: of a job that is completed raises LostJob",
    "test_completed_job_is_not_retried": "retry: of a job that is completed raises LostJob",
    "test_only_the_holder_settles[complete]": "fencing: complete by a storage that did not dequeue the job",
    "test_only_the_holder_settles[fail]": "fencing: fail by a storage that did not dequeue the job",
    "test_only_the_holder_settles[retry]": "fencing: retry by a storage that did not dequeue the job",
    "test_late_settle_is_refused[complete]": "fencing: complete by a storage that has lost the job to another",
    "test_late_settle_is_refused[fail]": "fencing: fail by a storage that has lost the job to another",
    "test_late_settle_is_refused[retry]": "fencing: retry by a storage that has lost the job to another",
    "test_any_sequence_of_calls": "raises LostJob",
})  # fmt: skip
class SettlesAnything(DictStorage):
    def _held(self, job_id: str) -> Job:
        return self.jobs[job_id]


@breaks({"test_late_settle_is_refused[complete]": "fencing: complete by a storage that has lost the job to another"})
class SettlesAnyRunningJob(DictStorage):
    """Checks only the status, as UPDATE ... WHERE status = 'running' does."""

    def _held(self, job_id: str) -> Job:
        self.held[job_id] = self.jobs[job_id].attempts
        return super()._held(job_id)


@breaks({"test_any_sequence_of_calls": "dequeue: returns only jobs that are pending and due"})
class IgnoresTheDelayOfFailedJobs(DictStorage):
    def retry(self, job_id: str, delay_seconds: float) -> None:
        failed = job_id in self.jobs and self.jobs[job_id].status == "failed"
        super().retry(job_id, 0 if failed else delay_seconds)


# -- lists -----------------------------------------------------------------------------------------


@breaks({"test_list_jobs_newest_first": "list_jobs: a limit keeps only the newest jobs"})
class IgnoresTheLimit(DictStorage):
    def list_jobs(self, status: str | None = None, limit: int | None = None) -> list[Job]:
        return super().list_jobs(status)


@breaks({"test_list_jobs_newest_first": "list_jobs: with limit=0, returns an empty list"})
class IgnoresALimitOf0(DictStorage):
    def list_jobs(self, status: str | None = None, limit: int | None = None) -> list[Job]:
        return super().list_jobs(status, limit or None)


@breaks({
    "test_list_jobs_newest_first": "list_jobs: returns the newest job first",
    "test_export_jobs": "export_jobs: returns every job, the oldest first",
})  # fmt: skip
class OldestFirst(DictStorage):
    def list_jobs(self, status: str | None = None, limit: int | None = None) -> list[Job]:
        return super().list_jobs(status)[::-1][:limit]


@breaks({"test_list_jobs_filters": "list_jobs: with completed, returns only completed jobs"})
class IgnoresTheStatus(DictStorage):
    def list_jobs(self, status: str | None = None, limit: int | None = None) -> list[Job]:
        return super().list_jobs(None, limit)


@breaks({"test_list_jobs_refuses_an_unknown_status": "list_jobs: an unknown status raises InvalidJob"})
class AcceptsAnyStatus(DictStorage):
    def list_jobs(self, status: str | None = None, limit: int | None = None) -> list[Job]:
        return super().list_jobs(status, limit) if status in {None, *JobStatus} else []


@breaks({"test_counts": "counts: has an entry for every status"})
class OmitsCountsOf0(DictStorage):
    def counts(self) -> dict[JobStatus, int]:
        return {status: jobs for status, jobs in super().counts().items() if jobs}


# -- concurrent callers ----------------------------------------------------------------------------

SAME_START = "dequeue: no two callers get the same start"


@breaks({"test_threads_on_one_storage": SAME_START, "test_one_of_many_claims_a_lone_job": SAME_START})
class SelectsThenStarts(DictStorage):
    def dequeue(self) -> Job | None:
        first = self.memory.first()
        time.sleep(0.001)
        return first and self.memory.start(first)

    def _held(self, job_id: str) -> Job:
        return self.jobs[job_id]


@breaks({"test_threads_on_one_storage": "dequeue: no job is lost"}, jobs=40)
class LosesEveryTenthJob(DictStorage):
    claims = 0

    def dequeue(self) -> Job | None:
        job = super().dequeue()
        self.claims += 1
        return job if self.claims % 10 else super().dequeue()


@breaks(
    {"test_threads_enqueue_on_one_storage": "threads: if several threads enqueue the same id, exactly one succeeds"}
)
class ChecksThenAdds(DictStorage):
    def enqueue(self, job_id: str, *arguments: Any, **more: Any) -> None:
        exists = job_id in self.jobs
        time.sleep(0.01)
        if exists:
            raise DuplicateJob
        self.memory.add(NewJob(id=job_id, type="t"))
