"""Storages in memory. DictStorage has only the seven abstract methods; MemoryStorage has all optional ones, too.

Both keep the contract. They only lack persistence.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from json import loads
from typing import Any, ClassVar

from pgjobq import BaseStorage, DuplicateJob, Job, JobNotFound, JobStatus, LostJob, NewJob
from pgjobq.arrival import arriving, arriving_result
from pgjobq.checks import check_delay
from pgjobq.outcomes import Completed, Failed, Outcome, Released, Retried, status_after
from pgjobq.storage.holds import Claimant, start
from pgjobq.storage.kept_schedules import KeptSchedules, Stored
from pgjobq.storage.leased import LeasedStorage

ENDS = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)


@dataclass
class Memory:
    """The database, which several storages can share."""

    jobs: dict[str, Job] = field(default_factory=dict)  # in the order of enqueueing
    due: dict[str, tuple[datetime, int]] = field(default_factory=dict)
    leases: dict[int, float] = field(default_factory=dict)
    schedules: dict[str, Stored] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    clock: itertools.count[int] = field(default_factory=itertools.count)
    max_crashes: ClassVar[int] = 3

    def add(self, new: NewJob) -> None:
        now = datetime.now(UTC)
        due = now + timedelta(seconds=new.delay) if new.delay is not None else new.execute_at
        self.jobs[new.id] = Job(
            id=new.id,
            type=new.type,
            data=loads(new.json),
            queue=new.queue,
            priority=new.priority,
            max_retries=new.max_retries,
            execute_at=due,
        )
        self.due[new.id] = max(now, due or now), next(self.clock)

    def first(self, queues: Sequence[str] | None = None, except_types: Sequence[str] = ()) -> Job | None:
        """Return the next due job."""
        waiting = [
            job
            for job in self.jobs.values()
            if self.is_due(job) and (queues is None or job.queue in queues) and job.type not in except_types
        ]
        return min(waiting, key=self.rank, default=None)

    def is_due(self, job: Job) -> bool:
        return job.status == "pending" and self.due[job.id][0] <= datetime.now(UTC)

    def rank(self, job: Job) -> tuple[Any, ...]:
        return -job.priority, self.due[job.id]

    def start(self, job: Job, **values: Any) -> Job:
        start = {"status": JobStatus.RUNNING, "attempts": job.attempts + 1, "started_at": datetime.now(UTC)}
        return _copy(self.change(job, **start | values))

    def change(self, job: Job, **values: Any) -> Job:
        self.jobs[job.id] = replace(job, updated_at=datetime.now(UTC), **values)
        return self.jobs[job.id]

    def cleared(self, job: Job) -> dict[str, int]:
        """Return the counts of a job after a start that ended without a crash."""
        return {"attempts": job.attempts - job.crashes, "crashes": 0}

    def put_back(self, job: Job, delay: float = 0, **values: Any) -> Job:
        due = datetime.now(UTC) + timedelta(seconds=delay)
        self.due[job.id] = due, next(self.clock)
        return self.change(job, status=JobStatus.PENDING, execute_at=due, finished_at=None, failed_at=None, **values)

    def listed(self, status: str | None, limit: int | None) -> list[Job]:
        wanted = None if status is None else JobStatus(status)
        return [_copy(job) for job in reversed(self.jobs.values()) if wanted in {None, job.status}][:limit]


def _copy(job: Job) -> Job:
    return Job.from_dict(job.to_dict() | {"data": loads(NewJob(type="t", data=job.data).json)})


class DictStorage(BaseStorage):
    """Has only the seven abstract methods.

    `held` maps a job to the attempt that this object holds, so that a late settle can be refused.
    """

    def __init__(self, memory: Memory | None = None) -> None:
        self.memory = memory or Memory()
        self.held: dict[str, int] = {}

    @property
    def jobs(self) -> dict[str, Job]:
        return self.memory.jobs

    def enqueue(
        self,
        job_id: str,
        job_type: str,
        data: dict[str, Any],
        max_retries: int = 3,
        priority: int = 5,
        execute_at: datetime | None = None,
    ) -> None:
        new = NewJob(
            id=job_id, type=job_type, data=data, max_retries=max_retries, priority=priority, execute_at=execute_at
        )
        with self.memory.lock:
            if job_id in self.jobs:
                raise DuplicateJob(f"job_id: {job_id!r} exists")
            self.memory.add(new)

    def dequeue(self) -> Job | None:
        with self.memory.lock:
            first = self.memory.first()
            if first is None:
                return None
            started = self.memory.start(first)
            self.held[first.id] = started.attempts
            return started

    def complete(self, job_id: str) -> None:
        with self.memory.lock:
            self.memory.change(self._held(job_id), status=JobStatus.COMPLETED)

    def fail(self, job_id: str, error: str) -> None:
        with self.memory.lock:
            self.memory.change(self._held(job_id), status=JobStatus.FAILED, error=error)

    def retry(self, job_id: str, delay_seconds: float) -> None:
        check_delay(delay_seconds)
        with self.memory.lock:
            found = self.jobs.get(job_id)
            failed = found is not None and found.status == "failed"
            self.memory.put_back(found if found is not None and failed else self._held(job_id), delay_seconds)

    def get_job(self, job_id: str) -> Job | None:
        found = self.jobs.get(job_id)
        return found and _copy(found)

    def list_jobs(self, status: str | None = None, limit: int | None = None) -> list[Job]:
        with self.memory.lock:
            return self.memory.listed(status, limit)

    def _held(self, job_id: str) -> Job:
        found = self.jobs.get(job_id)
        if found is None:
            raise JobNotFound(f"there is no job {job_id!r}")
        if found.status != "running" or found.attempts != self.held.get(job_id):
            raise LostJob(f"job {job_id!r} is {found.status} and not held by this worker")
        return found


class MemoryStorage(KeptSchedules, LeasedStorage):
    """Has all optional methods, and holds its jobs on a lease."""

    keeps_results = True

    def __init__(self, memory: Memory | None = None, *, lease: float = 1.0, poll_interval: float = 0.1) -> None:
        super().__init__(lease=lease, poll_interval=poll_interval)
        self.memory = memory or Memory()

    def _get(self, job_id: str) -> Job | None:
        found = self.memory.jobs.get(job_id)
        return found and _copy(found)

    def _list(self, status: JobStatus | None, limit: int | None, queue: str | None) -> list[Job]:
        with self.memory.lock:
            return [job for job in self.memory.listed(status, None) if queue in {None, job.queue}][:limit]

    def _cancel(self, job_id: str, reason: str | None) -> bool | None:
        with self.memory.lock:
            if (job := self.memory.jobs.get(job_id)) is None:
                return None
            if job.status in ENDS:
                return False
            values = {"error": job.error if reason is None else reason, "finished_at": datetime.now(UTC)}
            self.memory.change(job, status=JobStatus.CANCELLED, worker_id=None, **values)
            return True

    def _prune(self, older_than: timedelta, statuses: list[str], queues: list[str] | None, batch: int) -> int:
        before, memory = datetime.now(UTC) - older_than, self.memory

        def is_old(job: Job) -> bool:
            served = queues is None or job.queue in queues
            return served and job.status in ENDS and job.status in statuses and job.updated_at <= before

        with memory.lock:
            old = [job.id for job in memory.jobs.values() if is_old(job)]
            for job_id in old:
                del memory.jobs[job_id]
            return len(old)

    def import_jobs(self, jobs: Sequence[Job]) -> int:
        arrivals = [replace(arriving(job)[0], result=loads(arriving_result(job) or "null")) for job in jobs]
        with self.memory.lock:
            new = [job for job in arrivals if job.id not in self.memory.jobs]
            for job in new:
                self.memory.jobs[job.id] = job
                self.memory.due[job.id] = job.execute_at or job.created_at, next(self.memory.clock)
            return len(new)

    def _add(self, jobs: Sequence[NewJob]) -> None:
        with self.memory.lock:
            ids = [job.id for job in jobs]
            for n, job_id in enumerate(ids):
                if job_id in self.memory.jobs or job_id in ids[:n]:
                    raise DuplicateJob(f"job_id: {job_id!r} exists")
            for job in jobs:
                self.memory.add(job)

    def _claim(
        self, worker_id: Claimant, limit: int, queues: Sequence[str] | None, except_types: Sequence[str]
    ) -> list[Job]:
        claimed: list[Job] = []
        with self.memory.lock:
            while len(claimed) < limit and (job := self.memory.first(queues, except_types)) is not None:
                claimed.append(self.memory.start(job, worker_id=worker_id))
        return claimed

    def _settle(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        with self.memory.lock:
            return [outcome for outcome in outcomes if not self._settled(outcome)]

    def _settled(self, outcome: Outcome) -> bool:
        job = self.memory.jobs.get(outcome.job.id)
        if job is None or start(job) != start(outcome.job):
            return False
        if job.status != "running":
            return job.status == status_after(outcome)
        now = datetime.now(UTC)
        match outcome:
            case Completed(_, result):
                kept = None if result is None else loads(result)
                self.memory.change(job, status=JobStatus.COMPLETED, finished_at=now, crashes=0, result=kept)
            case Failed(_, error):
                ended = {"error": error, "finished_at": now, "failed_at": now}
                self.memory.change(job, status=JobStatus.FAILED, **ended, **self.memory.cleared(job))
            case Retried(_, delay, error):
                self.memory.put_back(
                    job, delay, error=job.error if error is None else error, **self.memory.cleared(job)
                )
            case Released(_, delay):
                self.memory.put_back(job, delay, attempts=job.attempts - 1)
        return True

    def _put_back(self, job_id: str, delay: float) -> bool:
        with self.memory.lock:
            job = self.memory.jobs.get(job_id)
            if job is None or job.status not in {"failed", "cancelled", "pending"}:
                return False
            self.memory.put_back(job, delay, worker_id=None, **self.memory.cleared(job))
            return True

    def _enlist(self, worker_id: int, name: str) -> None:
        self.memory.leases[worker_id] = time.monotonic() + self.lease

    def _renew(self, worker_id: int) -> bool:
        with self.memory.lock:
            if worker_id not in self.memory.leases:
                return False
            self.memory.leases[worker_id] = time.monotonic() + self.lease
            return True

    def _retire(self, worker_id: int) -> None:
        self.memory.leases.pop(worker_id, None)

    def _held_by(self, worker_id: int) -> list[Job]:
        with self.memory.lock:
            return [job for job in self.memory.jobs.values() if (job.status, job.worker_id) == ("running", worker_id)]

    def _rescue(self) -> int:
        memory = self.memory
        with memory.lock:
            for worker_id in [worker_id for worker_id, until in memory.leases.items() if until < time.monotonic()]:
                del memory.leases[worker_id]
            dead = [
                job for job in memory.jobs.values() if job.status == "running" and job.worker_id not in memory.leases
            ]
            for job in dead:
                crashes: dict[str, Any] = {
                    "crashes": job.crashes + 1,
                    "error": f"its worker died (crash {job.crashes + 1})",
                }
                if job.crashes + 1 >= memory.max_crashes:
                    now = datetime.now(UTC)
                    memory.change(job, status=JobStatus.FAILED, finished_at=now, failed_at=now, **crashes)
                else:
                    memory.put_back(job, worker_id=None, **crashes)
            return len(dead)

    def _read_schedules(self, due: datetime | None = None) -> list[Stored]:
        found = [self.memory.schedules[name] for name in sorted(self.memory.schedules)]
        return [one for one in found if due is None or (one.due_at is not None and one.due_at <= due)]

    def _read_schedule(self, schedule_id: str) -> Stored | None:
        return self.memory.schedules.get(schedule_id)

    def _write_schedule(self, new: Stored, version: int | None, jobs: Sequence[NewJob] = ()) -> bool:
        with self.memory.lock:
            there = self.memory.schedules.get(new.schedule.id)
            if (None if there is None else there.version) != version:
                return False
            self.memory.schedules[new.schedule.id] = new
            self._add([job for job in jobs if job.id not in self.memory.jobs])
            return True

    def _drop_schedule(self, schedule_id: str) -> bool:
        return self.memory.schedules.pop(schedule_id, None) is not None

    def _schedules_clock(self) -> tuple[datetime, datetime | None]:
        due = [one.due_at for one in self.memory.schedules.values() if one.due_at is not None]
        return datetime.now(UTC), min(due, default=None)
