"""Storages that break a promise of the seven methods."""

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
ORDER = "order: of jobs of one priority, the one enqueued first is dequeued first"


# -- order and time --------------------------------------------------------------------------------


@breaks({"test_higher_priority_first": HIGHER, "test_queues": "queues: dequeue_many gives"}, storage=MemoryStorage)
class PriorityIgnored(Memory):
    def rank(self, job: Job) -> tuple[Any, ...]:
        return self.due[job.id]


@breaks({
    "test_order_of_enqueueing": ORDER,
    "test_enqueue_many": "enqueue_many: the jobs stand in line in the order in which they were given",
    "test_enqueue_many_async": "enqueue_many_async: the jobs stand in line in their order",
    "test_large_batches": "dequeue_many: gives up to 500 jobs, in the order in which they were given",
})  # fmt: skip
class OrderOfIds(Memory):
    def rank(self, job: Job) -> tuple[Any, ...]:
        return -job.priority, job.id


@breaks(
    {"test_earlier_due_time_first": "order: of jobs of one priority that waited for their time, the one due earlier"}
)
class DueTimesUnordered(Memory):
    def rank(self, job: Job) -> tuple[Any, ...]:
        return -job.priority, self.due[job.id][1]


@breaks({"test_retried_job_takes_its_place_by_priority": "order: a retried job stands by its priority"})
class RetriedFirst(Memory):
    def rank(self, job: Job) -> tuple[Any, ...]:
        return -job.attempts, -job.priority, self.due[job.id]


@breaks({
    "test_future_job_is_hidden": "due: a job whose execute_at lies ahead is not dequeued",
    "test_retry_delay": "retry: the job is hidden until the delay has passed",
})  # fmt: skip
class NothingHidden(Memory):
    def is_due(self, job: Job) -> bool:
        return job.status == "pending"


@breaks(
    {
        "test_future_job_falls_due": "due: a job is dequeued once its execute_at has passed",
        "test_past_job_is_due": "due: a job whose execute_at has passed is due at once",
        "test_worker_finds_jobs_that_come_later": "worker: brings every due job to its end",
    },
    patience=1.5,
)
class NothingFallsDue(Memory):
    def is_due(self, job: Job) -> bool:
        return super().is_due(job) and (job.execute_at is None or job.attempts > 0)


@breaks({"test_times_are_in_utc_wherever_the_process_is": "times: what a storage stamps is the time now"})
class LocalStamps(Memory):
    def change(self, job: Job, **values: Any) -> Job:
        self.jobs[job.id] = replace(job, updated_at=datetime.now(), **values)  # noqa: DTZ005  # as beginners do
        return self.jobs[job.id]


# -- what is kept ----------------------------------------------------------------------------------


class Changing(Memory):
    """Keeps something else than it was given."""

    def add(self, new: NewJob) -> None:
        super().add(new)
        self.jobs[new.id] = self.changed(self.jobs[new.id])

    def changed(self, job: Job) -> Job:
        raise NotImplementedError


@breaks(
    {
        "test_a_new_job_is_pending": "enqueue: a new job is pending, never tried",
        "test_every_argument_is_kept": "enqueue: keeps every",
    }
)
class RetriesForgotten(Changing):
    def changed(self, job: Job) -> Job:
        return replace(job, max_retries=0)


class TextChanging(Changing):
    def changed(self, job: Job) -> Job:
        return replace(job, data=loads(self.text(NewJob(type="t", data=job.data).json)))

    def text(self, json: str) -> str:
        raise NotImplementedError


@breaks({"test_data_comes_back_as_it_was[texts]": "data: texts must come back as they were given"})
class AsciiOnly(TextChanging):
    def text(self, json: str) -> str:
        return json.encode("ascii", "replace").decode()


@breaks({"test_data_comes_back_as_it_was[texts]": "data: texts must come back as they were given"})
class UnicodeNormalised(TextChanging):
    def text(self, json: str) -> str:
        return unicodedata.normalize("NFC", json)


@breaks({"test_large_data_comes_back_as_it_was": "data: 1000 kB can be enqueued"})
class ShortData(TextChanging):
    def text(self, json: str) -> str:
        return json[:65535]


@breaks({"test_data_comes_back_as_it_was[whole numbers]": "data: whole numbers must come back as they were given"})
class RoundedNumbers(Changing):
    def changed(self, job: Job) -> Job:
        numbers = [float(f"{n:.14g}") for n in job.data.get("numbers", [])]
        return replace(job, data=job.data | ({"numbers": numbers} if numbers else {}))


@breaks({"test_data_comes_back_as_it_was[large numbers]": "data: large numbers must come back as they were given"})
class NumbersOf64Bits(Changing):
    def changed(self, job: Job) -> Job:
        numbers = [
            n if isinstance(n, float) or -(2**63) <= n < 2**63 else -(2**63) for n in job.data.get("numbers", [])
        ]
        return replace(job, data=job.data | ({"numbers": numbers} if numbers else {}))


@breaks({"test_data_comes_back_as_it_was[deep]": "data: deep must come back as they were given"})
class ShallowData(TextChanging):
    def text(self, json: str) -> str:
        return json.replace("[" * 100, "", 1).replace("]" * 100, "", 1)


@breaks({"test_ids_are_told_apart": "id: ids that differ in any character are different"})
class CaselessIds(DictStorage):
    def enqueue(self, job_id: str, *arguments: Any, **more: Any) -> None:
        if job_id.lower() in self.jobs:
            raise DuplicateJob
        super().enqueue(job_id, *arguments, **more)


@breaks({"test_what_the_caller_does_to_data_later_changes_nothing": "data: the storage has a copy of its own"})
class DataShared(DictStorage):
    def get_job(self, job_id: str) -> Job | None:
        return self.jobs.get(job_id)


@breaks({"test_unknown_job_is_none": "get_job: an unknown id gives None"})
class UnknownRaises(DictStorage):
    def get_job(self, job_id: str) -> Job | None:
        return self.jobs[job_id]


@breaks({"test_another_storage_sees_the_same": "get_job: finds every job that was enqueued"})
class OnItsOwn(DictStorage):
    def __init__(self, memory: Memory) -> None:
        super().__init__(Memory())


# -- what is refused -------------------------------------------------------------------------------


@breaks({"test_duplicate_id_is_refused": "duplicate: an id that exists already raises DuplicateJob"})
class DuplicatesDropped(DictStorage):
    def enqueue(self, job_id: str, *arguments: Any, **more: Any) -> None:
        if job_id not in self.jobs:
            super().enqueue(job_id, *arguments, **more)


@breaks({"test_duplicate_id_is_refused": "duplicate: the job that exists is left as it is"})
class DuplicatesReplace(DictStorage):
    def enqueue(self, job_id: str, *arguments: Any, **more: Any) -> None:
        there = self.jobs.pop(job_id, None)
        super().enqueue(job_id, *arguments, **more)
        if there is not None:
            raise DuplicateJob


@breaks({"test_naive_time_is_refused": "times: a naive execute_at raises InvalidJob"})
class NaiveAccepted(DictStorage):
    def enqueue(self, job_id: str, job_type: str, data: dict[str, Any], *_: Any, **more: Any) -> None:
        more["execute_at"] = more["execute_at"].replace(tzinfo=UTC)
        super().enqueue(job_id, job_type, data, **more)


NOT_ALLOWED = "enqueue: a value that is not allowed raises InvalidJob"


@breaks({
    f"test_what_is_no_job_is_refused[{field}]": NOT_ALLOWED
    for field in ("job_id", "job_type", "data", "max_retries", "priority", "execute_at")
})  # fmt: skip
class AnythingAccepted(DictStorage):
    def enqueue(
        self, job_id: Any, job_type: Any, data: Any, max_retries: Any = 3, priority: Any = 5, execute_at: Any = None
    ) -> None:
        self.jobs[job_id] = Job(id=job_id, type=job_type, data=data, max_retries=max_retries, priority=priority)


@breaks({"test_retry_refuses_what_is_no_delay[nan]": "retry: a delay of nan seconds raises InvalidJob"})
class AnyDelay(DictStorage):
    def retry(self, job_id: str, delay_seconds: float) -> None:
        super().retry(job_id, 0)


@breaks({
    "test_unknown_id[complete]": "unknown: complete of an unknown id raises JobNotFound",
    "test_unknown_id[fail]": "unknown: fail of an unknown id raises JobNotFound",
    "test_unknown_id[retry]": "unknown: retry of an unknown id raises JobNotFound",
})  # fmt: skip
class UnknownIgnored(DictStorage):
    def complete(self, job_id: str) -> None:
        self.memory.change(self.jobs[job_id]) if job_id in self.jobs else None

    def fail(self, job_id: str, error: str) -> None:
        self.complete(job_id)

    def retry(self, job_id: str, delay_seconds: float) -> None:
        self.complete(job_id)


# -- starting and settling -------------------------------------------------------------------------


@breaks({
    "test_dequeue_starts_the_job": "dequeue: sets the job running and adds one to attempts",
    "test_retry_of_a_running_job": "retry: the job is due again, and each start counts",
})  # fmt: skip
class AttemptsNotCounted(Memory):
    def start(self, job: Job, **values: Any) -> Job:
        return super().start(replace(job, attempts=job.attempts - 1), **values)


@breaks({
    "test_dequeue_starts_the_job": "dequeue: a running job is given to nobody else",
    "test_empty_storage_gives_none": "dequeue: gives None when there is no job",
    "test_worker_runs_jobs": "worker: ",
}, patience=2)  # fmt: skip
class GivesRunningJobs(DictStorage):
    def dequeue(self) -> Job | None:
        running = self.list_jobs("running") or [Job(id="ghost", type="plain", data={"n": 0}, attempts=1)]
        return super().dequeue() or running[0]


@breaks(
    {
        "test_complete": "complete: the job is completed, attempts stay",
        "test_worker_isolates": "worker: completes the job of an isolated handler",
    }
)
class CompletesNothing(DictStorage):
    def complete(self, job_id: str) -> None:
        self._held(job_id)


@breaks(
    {
        "test_fail": "fail: the error is kept whole",
        "test_worker_retries_and_fails": "worker: the error of a failed job holds",
    }
)
class ErrorsCut(DictStorage):
    def fail(self, job_id: str, error: str) -> None:
        super().fail(job_id, error[:20])


@breaks({"test_fail_takes_any_text[NUL]": "fail: any text may be an error"})
class NulRefused(DictStorage):
    def fail(self, job_id: str, error: str) -> None:
        if "\0" in error:
            raise ValueError("A string literal cannot contain NUL (0x00) characters.")
        super().fail(job_id, error)


@breaks({
    "test_settle_takes_any_text": "settle: any text may be an error",
    "test_worker_takes_any_error": "worker: brings every due job to its end",
}, patience=2)  # fmt: skip
class LongErrorsRefused(DictStorage):
    def fail(self, job_id: str, error: str) -> None:
        if len(error) > 10_000:
            raise ValueError("Data too long for column 'error'")
        super().fail(job_id, error)


@breaks(
    {"test_outcome_that_cannot_be_settled_holds_up_no_other": "worker: brings every due job to its end"}, patience=2
)
class SettlesInPairs(DictStorage):
    def settle(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        return super().settle(outcomes[: len(outcomes) // 2 * 2])


@breaks({"test_retry_of_a_running_job": "retry: the job is pending, attempts stay"})
class RetryKeepsStatus(DictStorage):
    def retry(self, job_id: str, delay_seconds: float) -> None:
        self.memory.change(self._held(job_id))


@breaks({"test_retry_of_a_failed_job": "retry: a failed job can be retried by any storage"})
class FailedForEver(DictStorage):
    def retry(self, job_id: str, delay_seconds: float) -> None:
        self._held(job_id)
        super().retry(job_id, delay_seconds)


@breaks({
    "test_job_that_does_not_run_is_not_settled[complete]": "complete: of a job that is completed, not running",
    "test_job_that_does_not_run_is_not_settled[fail]": "fail: of a job that is completed, not running",
    "test_completed_job_is_not_retried": "retry: of a job that is completed, raises LostJob",
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
class SettlesWhatRuns(DictStorage):
    """Looks at the status alone, as a single UPDATE ... WHERE status = 'running' does."""

    def _held(self, job_id: str) -> Job:
        self.held[job_id] = self.jobs[job_id].attempts
        return super()._held(job_id)


@breaks({"test_any_sequence_of_calls": "dequeue: gives a job that is pending and due"})
class FailedJobsRetriedAtOnce(DictStorage):
    def retry(self, job_id: str, delay_seconds: float) -> None:
        failed = job_id in self.jobs and self.jobs[job_id].status == "failed"
        super().retry(job_id, 0 if failed else delay_seconds)


# -- lists -----------------------------------------------------------------------------------------


@breaks({"test_list_jobs_newest_first": "list_jobs: a limit gives so many, the newest"})
class LimitIgnored(DictStorage):
    def list_jobs(self, status: str | None = None, limit: int | None = None) -> list[Job]:
        return super().list_jobs(status)


@breaks({"test_list_jobs_newest_first": "list_jobs: limit=0 gives nothing"})
class NoLimitOfNought(DictStorage):
    def list_jobs(self, status: str | None = None, limit: int | None = None) -> list[Job]:
        return super().list_jobs(status, limit or None)


@breaks({
    "test_list_jobs_newest_first": "list_jobs: the newest job comes first",
    "test_export_jobs": "export_jobs: gives every job, oldest first",
})  # fmt: skip
class OldestFirst(DictStorage):
    def list_jobs(self, status: str | None = None, limit: int | None = None) -> list[Job]:
        return super().list_jobs(status)[::-1][:limit]


@breaks({"test_list_jobs_filters": "list_jobs: completed gives the jobs of that status alone"})
class StatusIgnored(DictStorage):
    def list_jobs(self, status: str | None = None, limit: int | None = None) -> list[Job]:
        return super().list_jobs(None, limit)


@breaks({"test_list_jobs_refuses_what_is_no_status": "list_jobs: a status that does not exist raises InvalidJob"})
class AnyStatus(DictStorage):
    def list_jobs(self, status: str | None = None, limit: int | None = None) -> list[Job]:
        return super().list_jobs(status, limit) if status in {None, *JobStatus} else []


@breaks({"test_counts": "counts: names every status"})
class CountsWhatThereIs(DictStorage):
    def counts(self) -> dict[JobStatus, int]:
        return {status: jobs for status, jobs in super().counts().items() if jobs}


# -- many at once ----------------------------------------------------------------------------------

SAME_START = "dequeue: no two callers get the same start"


@breaks({"test_threads_on_one_storage": SAME_START, "test_one_of_many_claims_a_lone_job": SAME_START})
class LooksThenTakes(DictStorage):
    def dequeue(self) -> Job | None:
        first = self.memory.first()
        time.sleep(0.001)
        return first and self.memory.start(first)

    def _held(self, job_id: str) -> Job:
        return self.jobs[job_id]


@breaks({"test_threads_on_one_storage": "dequeue: no job is lost"}, jobs=40)
class LosesEveryTenth(DictStorage):
    claims = 0

    def dequeue(self) -> Job | None:
        job = super().dequeue()
        self.claims += 1
        return job if self.claims % 10 else super().dequeue()


@breaks({"test_threads_enqueue_on_one_storage": "threads: of those that enqueue the same id at once, one succeeds"})
class LooksThenAdds(DictStorage):
    def enqueue(self, job_id: str, *arguments: Any, **more: Any) -> None:
        exists = job_id in self.jobs
        time.sleep(0.001)
        if exists:
            raise DuplicateJob
        self.memory.add(NewJob(id=job_id, type="t"))
