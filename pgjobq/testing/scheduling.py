"""Tests of schedules, for storages that have them."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import Any

from pgjobq.errors import InvalidSchedule, ScheduleNotFound
from pgjobq.models import Job, utc_now
from pgjobq.schedules import Schedule
from pgjobq.storage.base import BaseStorage
from pgjobq.testing.features import MakeStorage, StorageTests, needs
from pgjobq.testing.promises import ids, promise, refused, same

SELDOM = "0 0 1 1 *"
WORKERS, SCHEDULES = 4, 10


def _past(seconds: float = 10) -> datetime:
    return utc_now().replace(microsecond=0) - timedelta(seconds=seconds)


def _job_id(schedule_id: str, tick: datetime) -> str:
    return f"{schedule_id}@{tick:%Y-%m-%dT%H:%M:%SZ}"


def _fired(storage: BaseStorage, limit: int = 10) -> list[Job]:
    """Return the jobs that a worker gets after its maintenance."""
    storage.maintain([])
    return storage.dequeue_many(limit)


def _create(storage: BaseStorage, schedule_id: str = "a", expression: str = SELDOM, **options: Any) -> Schedule:
    storage.create_schedule(Schedule(schedule_id, "t", {"n": 1}, schedule_expression=expression, **options))
    return _stored(storage, schedule_id)


def _stored(storage: BaseStorage, schedule_id: str = "a") -> Schedule:
    found = storage.get_schedule(schedule_id)
    assert found is not None
    return found


class SchedulingTests(StorageTests):
    """Schedules. A tick is one whose time was set by update_schedule_next_run, so that no test waits for a minute."""

    @needs("schedules")
    def test_schedules_are_stored(self, storage: BaseStorage, other: BaseStorage) -> None:
        made = _create(storage, "b", "0 9 * * *", time_zone="Europe/Berlin", priority=7, max_retries=1)
        promise(made.next_run is not None and made.next_run > utc_now(), "create_schedule: sets the next run")
        _create(storage, "a", enabled=False)
        same([one.id for one in other.list_schedules()], ["a", "b"], "list_schedules: in the order of the ids")
        same([one.id for one in other.list_schedules(True)], ["b"], "list_schedules: enabled_only")
        same(_stored(other, "b"), made, "get_schedule: another storage reads the same")
        same(other.get_schedule("c"), None, "get_schedule: returns None for an unknown id")
        promise(other.delete_schedule("a"), "delete_schedule: returns True for one that exists")
        promise(not other.delete_schedule("a"), "delete_schedule: returns False for an unknown id")
        promise(not other.enable_schedule("a", True), "enable_schedule: returns False for an unknown id")
        with refused(ScheduleNotFound, "run_schedule: an unknown id raises ScheduleNotFound"):
            other.run_schedule("a")

    @needs("schedules")
    def test_schedules_refuse_invalid_values(self, storage: BaseStorage) -> None:
        for options in (
            {"time_zone": "Mars"},
            {"expression": "61 * * * *"},
            {"expression": "0 0 30 2 *"},
            {"missed": "x"},
        ):
            with refused(InvalidSchedule, "create_schedule: an invalid value raises InvalidSchedule"):
                _create(storage, **options)
        same(storage.list_schedules(), [], "create_schedule: a refused schedule is not stored")

    @needs("schedules")
    def test_due_schedule_gets_one_job(self, storage: BaseStorage, other: BaseStorage) -> None:
        made, tick = _create(storage, priority=7, max_retries=1), _past()
        storage.update_schedule_next_run("a", tick)
        same([one.id for one in storage.get_due_schedules()], ["a"], "get_due_schedules: returns those that are due")
        jobs = _fired(storage) + _fired(other)
        same(ids(jobs), [_job_id("a", tick)], "schedules: a tick has one job, schedule@tick")
        (job,) = jobs
        got, told = (job.type, job.data, job.priority, job.max_retries, job.execute_at), ("t", {"n": 1}, 7, 1, tick)
        same(got, told, "schedules: the job has the values of the schedule, and its execute_at is the tick")
        after = _stored(other)
        same(after.next_run, made.next_run, "schedules: the next run is the next tick of the expression")
        same((after.last_run, after.last_job), (tick, job.id), "schedules: last_run and last_job are the tick's")

    @needs("schedules")
    def test_many_workers_fire_once(self, storage: BaseStorage, open_storage: MakeStorage) -> None:
        tick, found = _past(), list[Job]()
        for n in range(SCHEDULES):
            _create(storage, f"s{n}")
            storage.update_schedule_next_run(f"s{n}", tick)
        workers = [open_storage() for _ in range(WORKERS)]
        barrier = threading.Barrier(WORKERS)

        def work(worker: BaseStorage) -> None:
            barrier.wait()
            for _ in range(3):
                found.extend(_fired(worker, SCHEDULES))

        threads = [threading.Thread(target=work, args=[worker]) for worker in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found.extend(_fired(storage, SCHEDULES))
        expected = [_job_id(f"s{n}", tick) for n in range(SCHEDULES)]
        same(sorted(ids(found)), expected, "schedules: each tick has one job, however many workers there are")

    @needs("schedules")
    def test_paused_schedule_gets_no_jobs(self, storage: BaseStorage) -> None:
        _create(storage)
        storage.update_schedule_next_run("a", _past())
        storage.enable_schedule("a", False)
        same(ids(_fired(storage)), [], "enable_schedule: a paused schedule gets no jobs")
        same(_stored(storage).next_run, None, "enable_schedule: a paused schedule has no next run")
        storage.enable_schedule("a", True)
        same(ids(_fired(storage)), [], "enable_schedule: the ticks of the pause get no job")
        next_run = _stored(storage).next_run
        promise(next_run is not None and next_run > utc_now(), "enable_schedule: it goes on from the next tick")

    @needs("schedules")
    def test_missed_ticks(self, storage: BaseStorage) -> None:
        start = _past(400)
        for missed in ("once", "skip", "all"):
            made = Schedule(missed, "t", {}, "interval", "100", starts_at=start, missed=missed, catch_up=3)
            storage.create_schedule(made)
            storage.update_schedule_next_run(missed, start + timedelta(seconds=100))
        late = start + timedelta(seconds=400)
        jobs = sorted(ids(_fired(storage)))
        expected = [_job_id("all", late - timedelta(seconds=100 * n)) for n in (2, 1, 0)]
        same(jobs[:3], expected, "missed: all is the last catch_up ticks")
        same(jobs[3:], [_job_id("once", late), _job_id("skip", late)], "missed: once and skip are the last tick")

    @needs("schedules")
    def test_overlap(self, storage: BaseStorage) -> None:
        for overlap in ("skip", "allow"):
            _create(storage, overlap, overlap=overlap)
        for seconds in (30, 20):
            for overlap in ("skip", "allow"):
                storage.update_schedule_next_run(overlap, _past(seconds))
            found = sorted(job.id.split("@")[0] for job in _fired(storage))
            expected = ["allow", "skip"] if seconds == 30 else ["allow"]
            same(found, expected, "overlap: skip leaves out a tick while the last job is unfinished")

    @needs("schedules")
    def test_run_and_backfill(self, storage: BaseStorage) -> None:
        made = _create(storage, expression="0 0 * * *", enabled=False)
        until = utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
        since = until - timedelta(days=3)
        same(storage.backfill_schedule("a", since, until), 4, "backfill_schedule: returns the number of jobs")
        same(storage.backfill_schedule("a", since, until), 0, "backfill_schedule: a tick has one job")
        expected = [_job_id("a", since + timedelta(days=n)) for n in range(4)]
        same(sorted(ids(storage.dequeue_many(10))), expected, "backfill_schedule: adds the jobs of the ticks")
        run = storage.run_schedule("a")
        same(ids(storage.dequeue_many(10)), [run], "run_schedule: adds a job now, even if the schedule is paused")
        same(_stored(storage).next_run, made.next_run, "run_schedule: the next run stays as it is")

    @needs("schedules")
    def test_declared_schedules_keep_what_an_operator_changed(self, storage: BaseStorage, other: BaseStorage) -> None:
        declared = Schedule("a", "t", {}, schedule_expression=SELDOM)
        same(
            storage.declare_schedules({"a": declared})[0].outcome, "created", "declare_schedules: creates a missing one"
        )
        storage.enable_schedule("a", False)
        same(
            other.declare_schedules({"a": declared})[0].outcome,
            "kept",
            "declare_schedules: keeps one that has not changed",
        )
        promise(not _stored(storage).enabled, "declare_schedules: a pause outlives a declaration that has not changed")
        changed = Schedule("a", "t", {}, schedule_expression="0 0 2 1 *")
        same(other.declare_schedules({"a": changed})[0].outcome, "changed", "declare_schedules: applies a change")
        found = _stored(storage)
        same((found.enabled, found.schedule_expression), (True, "0 0 2 1 *"), "declare_schedules: applies a change")
        wrong = Schedule("b", "t", {}, schedule_expression="61 * * * *")
        found_outcomes = [one.outcome for one in storage.declare_schedules({"a": changed, "b": wrong})]
        same(found_outcomes, ["kept", "refused"], "declare_schedules: one that is refused does not stop the others")
