"""KeptSchedules: schedules on databases that cannot evaluate them. Python does it, in a worker's maintenance.

A change of a schedule is a compare-and-swap on its version, which also adds the jobs of its ticks. So a tick is fired
once, however many workers see that it is due.
"""

from __future__ import annotations

import random
import secrets
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from pgjobq.arrival import FINISHED
from pgjobq.checks import check_execute_at, check_whole_number
from pgjobq.errors import InvalidJob, InvalidSchedule, ScheduleNotFound, StorageError, StorageUnavailable
from pgjobq.events import EventLog
from pgjobq.models import Job, NewJob
from pgjobq.outcomes import Maintenance
from pgjobq.schedules import Declared, Schedule, moment
from pgjobq.storage.base import BaseStorage
from pgjobq.storage.cron import check_timing, cron_ticks, due_ticks, next_tick, tick_id

log = EventLog("pgjobq.storage")

TRIES, MAX_TICKS = 100, 10_000  # tries of a change that meets others; ticks of a backfill or preview
BATCH, SOONEST = 500, 0.05  # jobs added at once; seconds until the next round of maintenance

_TIMING = ("schedule_type", "schedule_expression", "time_zone", "starts_at", "ends_at", "enabled")


@dataclass(frozen=True)
class Stored:
    """A schedule as it is stored. due_at: when its next run is due, with the jitter; None if it has no next run."""

    schedule: Schedule
    version: int
    due_at: datetime | None = None


class KeptSchedules(BaseStorage):
    """The part of a storage for schedules. A subclass implements the methods that begin with an underscore."""

    # -- for subclasses --------------------------------------------------------------------------------

    @abstractmethod
    def _read_schedules(self, due: datetime | None = None) -> list[Stored]:
        """Return all schedules by their ids, or those that are due at this time."""

    @abstractmethod
    def _read_schedule(self, schedule_id: str) -> Stored | None:
        """Return the schedule with this id, or None."""

    @abstractmethod
    def _write_schedule(self, new: Stored, version: int | None, jobs: Sequence[NewJob] = ()) -> bool:
        """Store a schedule if its version is still this one; None: if it does not exist. Return whether it was so.

        Add those of the jobs whose ids do not exist, in the same transaction, and only if it was.
        """

    @abstractmethod
    def _drop_schedule(self, schedule_id: str) -> bool:
        """Delete a schedule. Return False if there is none."""

    @abstractmethod
    def _schedules_clock(self) -> tuple[datetime, datetime | None]:
        """Return the time of the database, and the earliest due_at."""

    # -- the interface of BaseStorage -----------------------------------------------------------------

    def create_schedule(self, schedule: Schedule) -> datetime | None:
        """Create a schedule, or change the one with this id. Return its next run; None if it has none."""
        schedule.check()
        check_timing(schedule)
        return self._created(schedule, declared=None)

    def _created(self, schedule: Schedule, declared: dict[str, Any] | None) -> datetime | None:
        now = self._schedules_clock()[0]
        for _ in range(TRIES):
            stored = self._read_schedule(schedule.id)
            old = None if stored is None else stored.schedule
            new = _merged(schedule, old, now)
            if declared is not None:
                new = replace(new, declared=declared)
            if stored is not None and replace(new, updated_at=stored.schedule.updated_at) == stored.schedule:
                return new.next_run
            if self._write_schedule(_stored(new, stored), None if stored is None else stored.version):
                return new.next_run
        raise _busy(schedule.id)

    def get_schedule(self, schedule_id: str) -> Schedule | None:
        """Return the schedule with this id, or None."""
        return found.schedule if (found := self._read_schedule(schedule_id)) else None

    def list_schedules(self, enabled_only: bool = False) -> list[Schedule]:
        """Return all schedules in the order of their ids, or only those that are enabled."""
        return [one.schedule for one in self._read_schedules() if one.schedule.enabled or not enabled_only]

    def get_due_schedules(self) -> list[Schedule]:
        """Return the schedules whose next run has come, and that no worker has served yet."""
        return [one.schedule for one in self._read_schedules(self._schedules_clock()[0])]

    def update_schedule_next_run(
        self, schedule_id: str, next_run: datetime | float | None, last_run: datetime | float | None = None
    ) -> bool:
        """Set the next run of a schedule; False if there is none with this id. None: the next tick from now."""
        following, last = moment("next_run", next_run), moment("last_run", last_run)

        def moved(old: Schedule, now: datetime) -> Schedule:
            return (
                old
                if not old.enabled
                else replace(old, next_run=following or next_tick(old, now), last_run=last or old.last_run)
            )

        return self._change_schedule(schedule_id, moved)

    def enable_schedule(self, schedule_id: str, enabled: bool = True) -> bool:
        """Pause a schedule, or let it go on from the next tick; False if there is none with this id."""

        def switched(old: Schedule, now: datetime) -> Schedule:
            if (old.enabled, old.next_run is not None) == (enabled, enabled):
                return old
            following = next_tick(old, now) if enabled else None
            return replace(old, enabled=enabled, next_run=following, last_error=None)

        return self._change_schedule(schedule_id, switched)

    def delete_schedule(self, schedule_id: str) -> bool:
        """Delete a schedule; False if there is none with this id. Its jobs stay."""
        return self._drop_schedule(schedule_id)

    def run_schedule(self, schedule_id: str) -> str:
        """Add a job of the schedule now, and return its id. Raises ScheduleNotFound."""
        now = self._schedules_clock()[0]
        if now.microsecond == 0:
            now += timedelta(microseconds=1)  # a whole second could be a tick
        job_id = tick_id(schedule_id, now)

        def ran(old: Schedule, _: datetime) -> Schedule:
            return old if self._is_unfinished(old.last_job) else replace(old, last_job=job_id)

        if not self._change_schedule(schedule_id, ran, lambda one: [_job(one, now)]):
            raise _no_such(schedule_id)
        return job_id

    def backfill_schedule(self, schedule_id: str, since: datetime, until: datetime | None = None) -> int:
        """Add the jobs of the ticks from since to until (None: now) that have none, and return how many."""
        check_execute_at(since, "since")
        check_execute_at(until, "until")
        now = self._schedules_clock()[0]
        end = until or now
        if not since <= end <= now:
            raise InvalidSchedule(f"since, until: {since} to {end} is not a time that has passed", field="since")
        if (found := self.get_schedule(schedule_id)) is None:
            raise _no_such(schedule_id)
        ticks: list[datetime] = []
        tick = next_tick(found, since - timedelta(microseconds=1))
        while tick is not None and tick <= end:
            ticks.append(tick)
            if len(ticks) > MAX_TICKS:
                raise InvalidSchedule(f"since, until: there are more than {MAX_TICKS} ticks", field="since")
            tick = next_tick(found, tick)
        missing = [one for one in ticks if self.get_job(tick_id(schedule_id, one)) is None]
        for start in range(0, len(missing), BATCH):
            some = [_job(found, one) for one in missing[start : start + BATCH]]
            self._change_schedule(schedule_id, lambda old, _: old, lambda _, some=some: some)  # type: ignore[misc]  # bound here
        return len(missing)

    def next_ticks(
        self, expression: str, time_zone: str = "UTC", after: datetime | None = None, n: int = 5
    ) -> list[datetime]:
        """Return the first n ticks of a cron expression after a time (None: now), to preview it."""
        check_whole_number("n", n, 1, MAX_TICKS)
        check_execute_at(after, "after")
        return list(islice(cron_ticks(expression, time_zone, after or datetime.now(UTC)), n))

    def declare_schedules(self, declarations: Mapping[str, Schedule]) -> list[Declared]:
        """Create the schedules that this program declares; return what became of each."""
        found = []
        for schedule_id, schedule in sorted(declarations.items()):
            there, declared = self.get_schedule(schedule_id), schedule.arguments()
            if there is not None and there.declared == declared:
                found.append(Declared(schedule_id, "kept"))
                continue
            try:
                check_timing(schedule)
                self._created(schedule, declared)
                found.append(Declared(schedule_id, "created" if there is None else "changed"))
            except InvalidJob as error:
                found.append(Declared(schedule_id, "refused", str(error)))
        return found

    def maintain(self, running: Sequence[Job]) -> Maintenance:
        """Do a round of maintenance, and fire the schedules that are due."""
        found = super().maintain(running)
        wait = self._fire_due()
        return found if wait is None else replace(found, again_in=max(SOONEST, min(found.again_in, wait)))

    def _fire_due(self) -> float | None:
        """Fire the schedules that are due. Return the seconds until the next one is, or None."""
        now, earliest = self._schedules_clock()
        if earliest is None or earliest > now:
            return None if earliest is None else (earliest - now).total_seconds()
        fired = [self._fire(stored, now) for stored in self._read_schedules(now)]
        if any(fired):
            self.wake()
        return 0.0

    def _fire(self, stored: Stored, now: datetime) -> bool:
        old = stored.schedule
        try:
            ticks, following = due_ticks(old, now)
            if ticks and old.overlap == "skip" and self._is_unfinished(old.last_job):
                ticks = []
            new = replace(old, next_run=following)
            if ticks:
                new = replace(new, last_run=ticks[-1], last_job=tick_id(old.id, ticks[-1]))
            jobs = [_job(old, tick) for tick in ticks]
            return self._write_schedule(_stored(new, stored), stored.version, jobs) and bool(ticks)
        except StorageUnavailable:
            raise
        except Exception as error:  # one schedule must not stop the others, whatever is wrong with it
            log.error("schedule.stopped", extra={"schedule_id": old.id, "error": error})
            stopped = replace(old, next_run=None, last_error=str(error))
            self._write_schedule(_stored(stopped, stored), stored.version)
            return False

    def _is_unfinished(self, job_id: str | None) -> bool:
        found = None if job_id is None else self.get_job(job_id)
        return found is not None and found.status not in FINISHED

    def _change_schedule(
        self,
        schedule_id: str,
        change: Callable[[Schedule, datetime], Schedule],
        jobs: Callable[[Schedule], Sequence[NewJob]] = lambda _: (),
    ) -> bool:
        now = self._schedules_clock()[0]
        for _ in range(TRIES):
            stored = self._read_schedule(schedule_id)
            if stored is None:
                return False
            new, more = change(stored.schedule, now), jobs(stored.schedule)
            if new == stored.schedule and not more:
                return True
            if self._write_schedule(_stored(replace(new, updated_at=now), stored), stored.version, more):
                if more:
                    self.wake()
                return True
        raise _busy(schedule_id)


def _job(schedule: Schedule, tick: datetime) -> NewJob:
    return NewJob(
        id=tick_id(schedule.id, tick),
        type=schedule.job_type,
        data=schedule.job_data,
        queue=schedule.queue,
        priority=schedule.priority,
        max_retries=schedule.max_retries,
        execute_at=tick,
    )


def _merged(schedule: Schedule, old: Schedule | None, now: datetime) -> Schedule:
    """Return what create_schedule stores: a change of the timing begins from now, and any other keeps the next run."""
    new = replace(
        schedule, updated_at=now, created_at=now, last_error=None, last_run=None, last_job=None, declared=None
    )
    if new.schedule_type == "interval" and new.starts_at is None:
        kept = old.starts_at if old is not None and old.schedule_type == "interval" else None
        new = replace(new, starts_at=kept or now.replace(microsecond=0))
    if old is not None:
        kept_fields = {name: getattr(old, name) for name in ("created_at", "last_run", "last_job", "declared")}
        new = replace(new, **kept_fields)
        if old.next_run is not None and all(getattr(old, name) == getattr(new, name) for name in _TIMING):
            return replace(new, next_run=old.next_run)
    return replace(new, next_run=next_tick(new, now) if new.enabled else None)


def _stored(new: Schedule, old: Stored | None) -> Stored:
    # One that is deleted and created again must not have a version that another program has read before.
    version = secrets.randbits(48) if old is None else old.version + 1
    if old is not None and old.schedule.next_run == new.next_run and old.schedule.jitter == new.jitter:
        return Stored(new, version, old.due_at)
    due = None if new.next_run is None else new.next_run + new.jitter * random.random()  # noqa: S311  # no secret
    return Stored(new, version, due)


def _no_such(schedule_id: str) -> ScheduleNotFound:
    return ScheduleNotFound(f"id: there is no schedule {schedule_id!r}; list_schedules returns those that there are")


def _busy(schedule_id: str) -> StorageError:
    return StorageError(f"schedule {schedule_id!r}: other programs change it all the time; try again")
