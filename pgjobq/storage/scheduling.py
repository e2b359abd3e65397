"""Schedules, which a storage may lack. Each method raises Unsupported here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NoReturn

from pgjobq.errors import Unsupported
from pgjobq.schedules import Declared, Schedule


class OptionalSchedules:
    """The schedules that a storage adds by overriding these methods. BaseStorage inherits the defaults."""

    def create_schedule(self, schedule: Schedule) -> datetime | None:
        """Create a schedule, or change the one with this id. Return its next run; None if it has none.

        A change of the timing begins from now. Raises InvalidSchedule.
        """
        self._refuse_schedules()

    def get_schedule(self, schedule_id: str) -> Schedule | None:
        """Return the schedule with this id, or None."""
        self._refuse_schedules()

    def list_schedules(self, enabled_only: bool = False) -> list[Schedule]:
        """Return all schedules in the order of their ids, or only those that are enabled."""
        self._refuse_schedules()

    def get_due_schedules(self) -> list[Schedule]:
        """Return the schedules whose next run has come, and that no worker has served yet."""
        self._refuse_schedules()

    def update_schedule_next_run(
        self, schedule_id: str, next_run: datetime | float | None, last_run: datetime | float | None = None
    ) -> bool:
        """Set the next run of a schedule; False if there is none with this id.

        The runs after it are those of its expression. None: the next tick from now. Numbers are seconds since 1970.
        """
        self._refuse_schedules()

    def enable_schedule(self, schedule_id: str, enabled: bool = True) -> bool:
        """Pause a schedule, or let it go on from the next tick; False if there is none with this id."""
        self._refuse_schedules()

    def delete_schedule(self, schedule_id: str) -> bool:
        """Delete a schedule; False if there is none with this id. Its jobs stay."""
        self._refuse_schedules()

    def run_schedule(self, schedule_id: str) -> str:
        """Add a job of the schedule now, even if it is paused, and return its id. The next run stays as it is.

        Raises ScheduleNotFound.
        """
        self._refuse_schedules()

    def backfill_schedule(self, schedule_id: str, since: datetime, until: datetime | None = None) -> int:
        """Add the jobs of the ticks from since to until (None: now) that have none, and return how many.

        Raises InvalidSchedule for more than 10,000 ticks, and ScheduleNotFound.
        """
        self._refuse_schedules()

    def next_ticks(
        self, expression: str, time_zone: str = "UTC", after: datetime | None = None, n: int = 5
    ) -> list[datetime]:
        """Return the first n ticks of a cron expression after a time (None: now), to preview it."""
        self._refuse_schedules()

    def declare_schedules(self, declarations: Mapping[str, Schedule]) -> list[Declared]:
        """Create the schedules that this program declares; return what became of each. A Worker calls this.

        A schedule that exists is changed only if its declaration is not the one that was applied last, which is stored
        with it. So what an operator has paused or changed stays until the program changes. None is deleted.
        """
        self._refuse_schedules()

    def declared_schedules(self) -> set[str] | None:
        """Return the ids that the programs of live workers declare; None if the storage does not know."""
        return None

    def _refuse_schedules(self) -> NoReturn:
        raise Unsupported(f"{type(self).__name__} has no schedules")
