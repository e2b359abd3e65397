"""Storages that break a promise about batches, optional methods or dead workers."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from helpers.broken_cases import breaks
from helpers.memory_storages import DictStorage, Memory, MemoryStorage
from pgjobq import Job, JobStatus, NewJob
from pgjobq.arrival import arriving
from pgjobq.errors import InvalidSchedule
from pgjobq.models import Which
from pgjobq.outcomes import Failed, Outcome, Released
from pgjobq.schedules import Declared, Schedule
from pgjobq.storage.base import Maintenance
from pgjobq.storage.cron import tick_id
from pgjobq.storage.holds import Claimant
from pgjobq.storage.kept_schedules import Stored

# -- batches ---------------------------------------------------------------------------------------


@breaks({"test_enqueue_many_adds_all_or_none": "enqueue_many: if an id exists, no job of the batch is added"})
class HalfABatch(MemoryStorage):
    def _add(self, jobs: Sequence[NewJob]) -> None:
        for job in jobs:
            super()._add([job])


@breaks({"test_unique_key_is_respected_or_refused": "enqueue_many: returns the id of the job that has the unique key"})
class IgnoresUniqueKeys(MemoryStorage):
    def enqueue_many(self, jobs: Sequence[NewJob], connection: Any = None) -> list[str]:
        return super().enqueue_many([replace(job, unique_key=None) for job in jobs], connection)


@breaks({"test_cancel_jobs_of_a_unique_key": "cancel_jobs: cancels only jobs with the unique key"})
class CancelsWithoutTheKey(MemoryStorage):
    def _cancel_jobs(self, which: Which, max_jobs: int | None, reason: str | None) -> int:
        return super()._cancel_jobs(replace(which, unique_key=None, type=which.type or "t"), max_jobs, reason)


@breaks({"test_dequeue_many": "dequeue_many: returns up to limit due jobs"})
class OneTooMany(MemoryStorage):
    def _claim(
        self, worker_id: Claimant, limit: int, queues: Sequence[str] | None, except_types: Sequence[str]
    ) -> list[Job]:
        return super()._claim(worker_id, limit + 1, queues, except_types)


@breaks({
    "test_complete_many": "complete_many: returns the jobs that the storage has lost",
    "test_settle": "settle: returns the outcomes of lost jobs",
    "test_cancelled_job_is_lost_to_its_worker": "fencing: the former holder has lost a cancelled job",
})  # fmt: skip
class HidesLostJobs(MemoryStorage):
    def _settle(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        super()._settle(outcomes)
        return []


@breaks({"test_settle_applies_to_the_start_it_names": "settle: an outcome of an earlier start"})
class SettlesAnyStart(MemoryStorage):
    def _settled(self, outcome: Outcome) -> bool:
        there = self.memory.jobs[outcome.job.id]
        return super()._settled(replace(outcome, job=replace(outcome.job, worker_id=there.worker_id)))


@breaks({
    "test_start_after_a_release_is_a_new_start[completed]": "settle: an outcome of an earlier start changes nothing",
    "test_start_after_a_release_is_a_new_start[failed]": "settle: an outcome of an earlier start changes nothing",
    "test_start_after_a_release_is_a_new_start[retried]": "settle: an outcome of an earlier start changes nothing",
    "test_start_after_a_release_is_a_new_start[released]": "settle: an outcome of an earlier start changes nothing",
    "test_job_with_the_id_of_a_deleted_job_is_new[completed]": "settle: an outcome of a deleted job does not change",
    "test_job_with_the_id_of_a_deleted_job_is_new[released]": "settle: an outcome of a deleted job does not change",
})  # fmt: skip
class IdentifiesStartsByAttempts(MemoryStorage):
    """Identifies a start by id, attempts and worker. A later start can have the same values."""

    def _settled(self, outcome: Outcome) -> bool:
        there, job = self.memory.jobs[outcome.job.id], outcome.job
        if (there.attempts, there.worker_id) == (job.attempts, job.worker_id):
            outcome = replace(outcome, job=replace(job, worker_id=there.worker_id))
        return super()._settled(outcome)


@breaks({
    "test_start_after_a_release_is_a_new_start[completed]": "the storage still holds the later start",
    "test_job_with_the_id_of_a_deleted_job_is_new[completed]": "the storage still holds a new job with the same id",
    "test_start_during_a_release_is_held": "release: the storage holds a start that begins before",
})  # fmt: skip
class ForgetsLaterStarts(MemoryStorage):
    """After a settle, forgets the start that it holds of the same job, even if that is a later one."""

    def settle(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        lost = self._settle(outcomes)
        time.sleep(0.02)
        self._holds.drop([held for outcome in outcomes if (held := self._holds.get(outcome.job.id)) is not None])
        return lost


@breaks({
    "test_settle_can_be_repeated": "settle: can be repeated",
    "test_release_can_be_repeated": "settle: a release can be repeated",
})  # fmt: skip
class SettlesOnce(MemoryStorage):
    def _settled(self, outcome: Outcome) -> bool:
        return self.memory.jobs[outcome.job.id].status == "running" and super()._settled(outcome)


# -- optional methods ------------------------------------------------------------------------------


@breaks({"test_release_does_not_count_the_start": "release: subtracts the start from attempts"})
class ReleaseCounts(MemoryStorage):
    def release(self, job_id: str) -> None:
        self.retry(job_id, 0)


@breaks({"test_left_types_stay_in_line": "leave_types: jobs of other types are dequeued, however many left jobs"})
class LeavesNoTypes(MemoryStorage):
    def leave_types(self, types: Collection[str]) -> bool:
        return True


@breaks({"test_left_types_stay_in_line": "leave_types: jobs of other types are dequeued, however many left jobs"})
class HidesJobsBehindLeftOnes(MemoryStorage):
    def _claim(
        self, worker_id: Claimant, limit: int, queues: Sequence[str] | None, except_types: Sequence[str]
    ) -> list[Job]:
        first = self.memory.first(queues)
        return [] if first and first.type in except_types else super()._claim(worker_id, limit, queues, except_types)


@breaks({"test_left_types_stay_in_line": "leave_types: the next call replaces the types"})
class LeavesForEver(MemoryStorage):
    def leave_types(self, types: Collection[str]) -> bool:
        return super().leave_types({*self._left_types, *types})


@breaks(
    {"test_worker_leaves_unknown_types_to_others": "worker: leaves a job of an unknown type to other workers"},
    storage=MemoryStorage,
)
class FailsReleasedJobs(MemoryStorage):
    def _settle(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        return super()._settle([Failed(o.job, "") if isinstance(o, Released) else o for o in outcomes])


@breaks({
    "test_release": "release: the job is pending again",
    "test_release_only_by_the_holder": "unknown: release of an unknown id raises JobNotFound",
    "test_stopped_worker_releases_its_jobs": "worker: a job that runs when its worker stops becomes pending again",
    "test_ping_and_leave": "leave: jobs that are still held become pending again",
})  # fmt: skip
class NeverReleases(MemoryStorage):
    def release(self, job_id: str) -> None:
        pass

    def leave(self) -> None:
        pass

    def _settle(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        return super()._settle([outcome for outcome in outcomes if not isinstance(outcome, Released)])


@breaks({"test_cancel": "cancel: does not change a finished job"})
class CancelsFinishedJobs(MemoryStorage):
    def cancel(self, job_id: str, reason: str | None = None) -> bool:
        was = super().cancel(job_id)
        self.memory.change(self.memory.jobs[job_id], status=JobStatus.CANCELLED)
        return was


@breaks({"test_cancel_stores_its_reason": "cancel: stores its reason as the error"})
class ForgetsTheReason(MemoryStorage):
    def _cancel(self, job_id: str, reason: str | None) -> bool | None:
        return super()._cancel(job_id, None)


@breaks(
    {
        "test_cancel_jobs": "cancel_jobs: does not cancel jobs of another type",
        "test_cancel_jobs_of_a_queue": "cancel_jobs: cancels every job of the queue",
    }
)
class CancelsAnyJobs(MemoryStorage):
    def cancel_jobs(self, which: Which, max_jobs: int | None = None, reason: str | None = None) -> int:
        return super().cancel_jobs(Which(created_before=datetime(2100, 1, 1, tzinfo=UTC)), max_jobs, reason)


@breaks({"test_prune": "prune: deletes only jobs of the given statuses"})
class PrunesEverything(MemoryStorage):
    def _prune(self, older_than: timedelta, statuses: list[str], queues: list[str] | None, batch: int) -> int:
        return super()._prune(older_than, list(JobStatus), queues, batch) and 1


@breaks({
    "test_prune_of_queues": "prune: returns the number of deleted jobs",
    "test_worker_prunes_the_queues_it_serves": "worker: does not delete jobs of a queue that it does not serve",
})  # fmt: skip
class PrunesAllQueues(MemoryStorage):
    def _prune(self, older_than: timedelta, statuses: list[str], queues: list[str] | None, batch: int) -> int:
        return super()._prune(older_than, statuses, None, batch)


@breaks({"test_prune_refuses_invalid_arguments": "prune: a status that is not final raises InvalidJob"})
class IgnoresUnfinishedStatuses(MemoryStorage):
    def prune(
        self,
        older_than: timedelta,
        statuses: Sequence[str] = ("completed", "cancelled"),
        batch: int = 1000,
        *,
        queues: Sequence[str] | None = None,
    ) -> int:
        final = [status for status in statuses if status in {"completed", "failed", "cancelled"}]
        return super().prune(older_than, final, batch, queues=queues)


@breaks({"test_queues": "queues: dequeue_many returns only jobs of the given queues"}, storage=MemoryStorage)
class IgnoresQueues(Memory):
    def first(self, queues: Sequence[str] | None = None, except_types: Sequence[str] = ()) -> Job | None:
        return super().first(None, except_types)


@breaks({"test_an_id_is_unique_over_all_queues": "queues: an id that exists in another queue raises DuplicateJob"})
class IdsByQueue(MemoryStorage):
    def _add(self, jobs: Sequence[NewJob]) -> None:
        self.memory.jobs = {f"{job.queue}/{job.id}": job for job in self.memory.jobs.values()}
        super()._add(jobs)


@breaks({"test_maintain_finds_lost_jobs": "maintain: returns the running jobs that the worker has lost"})
class NoticesNothing(MemoryStorage):
    def maintain(self, running: Sequence[Job]) -> Maintenance:
        return Maintenance()


@breaks({"test_import_jobs": "import_jobs: keeps the status"})
class ImportsRunning(MemoryStorage):
    def import_jobs(self, jobs: Sequence[Job]) -> int:
        added = super().import_jobs(jobs)
        self.memory.jobs |= {job.id: job for job in jobs if job.id != "there"}
        return added


@breaks({"test_import_jobs_adds_all_or_none": "import_jobs: if one job is refused, none is added"})
class ImportsHalf(MemoryStorage):
    def import_jobs(self, jobs: Sequence[Job]) -> int:
        return sum(super(ImportsHalf, self).import_jobs([arriving(job)[0]]) for job in jobs)


@breaks({"test_wait_is_bounded": "wait: does not last longer than its timeout"}, patience=1)
class WaitsTooLong(DictStorage):
    def wait(self, timeout: float, queues: Sequence[str] | None = None) -> None:
        time.sleep(0.7)


# -- workers that die ------------------------------------------------------------------------------

PENDING_AGAIN = "rescue: within rescue_within seconds, the job of a dead worker is pending"


@breaks({"test_rescue_of_a_storage_that_closed": PENDING_AGAIN}, rescue_within=1.5)
class NeverRescues(MemoryStorage):
    def _rescue(self) -> int:
        return 0


@breaks({"test_rescue_of_a_storage_that_closed": "rescue: does not take a job from a live worker"})
class RescuesFromLiveWorkers(MemoryStorage):
    def _rescue(self) -> int:
        self.memory.leases.clear()
        return super()._rescue()


@breaks(
    {"test_rescue_of_a_storage_that_closed": "rescue: a start whose worker died counts as an attempt"},
    storage=MemoryStorage,
)
class RescueResetsAttempts(Memory):
    def put_back(self, job: Job, delay: float = 0, **values: Any) -> Job:
        return super().put_back(job, delay, attempts=0, **values)


CLOSED = "test_rescue_of_a_storage_that_closed"


@breaks({CLOSED: "retry: subtracts the crashes from attempts"}, storage=MemoryStorage)
class CrashesBecomeTries(Memory):
    def cleared(self, job: Job) -> dict[str, int]:
        return {"crashes": 0}


@breaks(
    {CLOSED: "rescue: within rescue_within seconds, the job of a dead worker is failed"},
    storage=MemoryStorage,
    rescue_within=1.5,
)
class CrashesForEver(Memory):
    max_crashes = 10**9


@breaks({CLOSED: "complete: sets the count of crashes to 0"}, storage=MemoryStorage)
class CompletesWithCrashes(Memory):
    def change(self, job: Job, **values: Any) -> Job:
        if values.get("status") == "completed":
            del values["crashes"]
        return super().change(job, **values)


@breaks({"test_processes_on_one_database": "processes: make_storage can be pickled"}, processes=True)
class CannotBePickled(DictStorage):
    pass


# -- schedules -------------------------------------------------------------------------------------


@breaks({"test_many_workers_fire_once": "schedules: each tick has one job, however many workers there are"})
class FiresWithoutComparing(MemoryStorage):
    """Each worker that sees a due schedule adds a job, as DBJobQ does."""

    def _write_schedule(self, new: Stored, version: int | None, jobs: Sequence[NewJob] = ()) -> bool:
        time.sleep(0.005)
        with self.memory.lock:
            there = self.memory.schedules.get(new.schedule.id)
            self._add([replace(job, id=job.id if job.id not in self.memory.jobs else f"{job.id}+") for job in jobs])
            return super()._write_schedule(new, None if there is None else there.version)


@breaks({"test_declared_schedules_keep_what_an_operator_changed": "declare_schedules: keeps one that has not changed"})
class DeclaresAlways(MemoryStorage):
    def declare_schedules(self, declarations: Mapping[str, Schedule]) -> list[Declared]:
        for name in declarations:
            self.delete_schedule(name)
        return super().declare_schedules(declarations)


@breaks({
    "test_missed_ticks": "missed: once and skip are the last tick",
    "test_paused_schedule_gets_no_jobs": "enable_schedule: a paused schedule gets no jobs",
    "test_overlap": "overlap: skip leaves out a tick while the last job is unfinished",
})  # fmt: skip
class IgnoresPolicies(MemoryStorage):
    """Fires paused schedules, overlapping ticks, and the first of several missed ticks."""

    def enable_schedule(self, schedule_id: str, enabled: bool = True) -> bool:
        return self._read_schedule(schedule_id) is not None

    def _is_unfinished(self, job_id: str | None) -> bool:
        return False

    def _write_schedule(self, new: Stored, version: int | None, jobs: Sequence[NewJob] = ()) -> bool:
        there = self._read_schedule(new.schedule.id)
        first = there and there.schedule.missed != "all" and there.schedule.next_run
        moved = [replace(job, id=tick_id(new.schedule.id, first)) if first else job for job in jobs]
        return super()._write_schedule(new, version, moved)


@breaks({
    "test_schedules_are_stored": "list_schedules: enabled_only",
    "test_schedules_refuse_invalid_values": "create_schedule: an invalid value raises InvalidSchedule",
    "test_due_schedule_gets_one_job": "schedules: the job has the values of the schedule",
    "test_run_and_backfill": "backfill_schedule: returns the number of jobs",
})  # fmt: skip
class StoresSchedulesCarelessly(MemoryStorage):
    """Ignores invalid schedules, lists paused ones as enabled, and drops the priority and the count of jobs."""

    def create_schedule(self, schedule: Schedule) -> datetime | None:
        try:
            return super().create_schedule(schedule)
        except InvalidSchedule:
            return None

    def list_schedules(self, enabled_only: bool = False) -> list[Schedule]:
        return super().list_schedules()

    def backfill_schedule(self, schedule_id: str, since: datetime, until: datetime | None = None) -> int:
        super().backfill_schedule(schedule_id, since, until)
        return 0

    def _write_schedule(self, new: Stored, version: int | None, jobs: Sequence[NewJob] = ()) -> bool:
        return super()._write_schedule(new, version, [replace(job, priority=5) for job in jobs])
