"""Schedules: the calls of their SQL functions. The database evaluates them, by its own clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from psycopg.types.json import Jsonb

from pgjobq.checks import check_execute_at, check_whole_number
from pgjobq.postgres import answers
from pgjobq.postgres.database import Database
from pgjobq.postgres.statements import FunctionCall, InSchema, Rows
from pgjobq.schedules import Declared, Schedule, moment

T = TypeVar("T")

# The columns, by the fields of Schedule.
_COLUMNS = {
    "id": "id",
    "job_type": "type",
    "job_data": "data",
    "schedule_type": "kind",
    "schedule_expression": "expression",
}
_SAME = (
    "next_run", "last_run", "enabled", "max_retries", "priority", "created_at", "updated_at", "queue", "time_zone",
    "missed", "catch_up", "overlap", "jitter", "starts_at", "ends_at", "last_job", "last_error", "declared",
)  # fmt: skip
_NAMES = (*_COLUMNS, *_SAME)
_SELECT = ", ".join((*_COLUMNS.values(), *_SAME))

_CREATE = """select {schema}.create_schedule(%s, %s, %s, %s::jsonb, %s, %s, %s, %s, %s, %s, %s, %s, %s::interval,
    %s::timestamptz, %s::timestamptz, %s)"""
_GET = f"select {_SELECT} from {{schema}}.get_schedule(%s)"  # noqa: S608  # constants
_LIST = f"select {_SELECT} from {{schema}}.list_schedules(%s)"  # noqa: S608  # constants
_DUE = f"{_LIST} where next_run <= clock_timestamp()"  # constants
_TICKS = "select {schema}.next_ticks(%s, %s, coalesce(%s::timestamptz, clock_timestamp()), %s)"
_BACKFILL = "select {schema}.backfill_schedule(%s, %s::timestamptz, coalesce(%s::timestamptz, clock_timestamp()))"
_DECLARE = "select id, outcome, error from {schema}.declare_schedules(%s::jsonb, %s)"


def _schedules(rows: Rows) -> list[Schedule]:
    return [Schedule(**dict(zip(_NAMES, row, strict=True))) for row in rows]


class Schedules:
    """The schedules of one schema."""

    def __init__(self, database: Database, schema: str) -> None:
        self._database, self._sql = database, InSchema(schema)
        self._declarations: Mapping[str, Schedule] = {}
        self._declared_by: int | None = None  # the worker that the database knows as theirs

    def create(self, schedule: Schedule) -> datetime | None:
        """Create a schedule, or change the one with this id. Return its next run."""
        schedule.check()
        s = schedule
        found: datetime | None = self._call(
            _CREATE, answers.value, s.id, s.job_type, s.schedule_expression, Jsonb(s.job_data), s.time_zone,
            s.schedule_type, s.queue, s.priority, s.max_retries, s.missed, s.catch_up, s.overlap, s.jitter, s.starts_at,
            s.ends_at, s.enabled,
        )  # fmt: skip
        return found and found.astimezone(UTC)

    def get(self, schedule_id: str) -> Schedule | None:
        """Return the schedule with this id, or None."""
        found = self._call(_GET, _schedules, schedule_id)
        return found[0] if found else None

    def all(self, enabled_only: bool) -> list[Schedule]:
        """Return all schedules, or those that are enabled."""
        return self._call(_LIST, _schedules, enabled_only)

    def due(self) -> list[Schedule]:
        """Return the schedules whose next run has come."""
        return self._call(_DUE, _schedules, True)

    def change(self, function: str, *arguments: Any) -> Any:
        """Call a function of one schedule, and return its value."""
        holes = ", ".join("%s" for _ in arguments)
        return self._call(f"select {{schema}}.{function}({holes})", answers.value, *arguments)

    def backfill(self, schedule_id: str, since: datetime, until: datetime | None) -> int:
        """Add the jobs of the ticks between two times."""
        return int(self._call(_BACKFILL, answers.value, schedule_id, since, until, large=True))

    def ticks(self, expression: str, time_zone: str, after: datetime | None, n: int) -> list[datetime]:
        """Return the next ticks of a cron expression."""
        check_whole_number("n", n, 1, 10_000)
        found: list[datetime] = self._call(_TICKS, answers.values, expression, time_zone, after, n)
        return [tick.astimezone(UTC) for tick in found]

    def declare(self, declarations: Mapping[str, Schedule], worker_id: int | None) -> list[Declared]:
        """Create the schedules that this program declares, and record the worker, if it is registered."""
        self._declarations = declarations
        given = {schedule_id: one.arguments() for schedule_id, one in declarations.items()}
        found = self._call(_DECLARE, _declared, Jsonb(given), worker_id)
        self._declared_by = worker_id
        return found

    def declare_again(self, worker_id: int | None) -> None:
        """Record a worker that has registered since, so that it counts as one that declares them."""
        if self._declarations and worker_id not in {None, self._declared_by}:
            self.declare(self._declarations, worker_id)

    @property
    def waits_for_worker(self) -> bool:
        """Whether there are declarations, and the worker was not registered yet."""
        return bool(self._declarations) and self._declared_by is None

    def declared(self) -> set[str]:
        """Return the ids that the programs of live workers declare."""
        return self._call("select {schema}.declared_schedules()", answers.value_set)

    def _call(self, text: str, read: Callable[[Rows], T], *arguments: Any, large: bool = False) -> T:
        return self._database.run(FunctionCall(self._sql[text], arguments, read, large=large))


def _declared(rows: Sequence[Any]) -> list[Declared]:
    return [Declared(*row) for row in rows]


class PostgresSchedules:
    """The part of PostgresStorage for schedules."""

    _schedules: Schedules

    def create_schedule(self, schedule: Schedule) -> datetime | None:
        """Create a schedule, or change the one with this id. Return its next run; None if it has none."""
        return self._schedules.create(schedule)

    def get_schedule(self, schedule_id: str) -> Schedule | None:
        """Return the schedule with this id, or None."""
        return self._schedules.get(schedule_id)

    def list_schedules(self, enabled_only: bool = False) -> list[Schedule]:
        """Return all schedules in the order of their ids, or only those that are enabled."""
        return self._schedules.all(enabled_only)

    def get_due_schedules(self) -> list[Schedule]:
        """Return the schedules whose next run has come, and that no worker has served yet."""
        return self._schedules.due()

    def update_schedule_next_run(
        self, schedule_id: str, next_run: datetime | float | None, last_run: datetime | float | None = None
    ) -> bool:
        """Set the next run of a schedule; False if there is none with this id. None: the next tick from now."""
        moments = moment("next_run", next_run), moment("last_run", last_run)
        return bool(self._schedules.change("move_schedule", schedule_id, *moments))

    def enable_schedule(self, schedule_id: str, enabled: bool = True) -> bool:
        """Pause a schedule, or let it go on from the next tick; False if there is none with this id."""
        return bool(self._schedules.change("enable_schedule", schedule_id, enabled))

    def delete_schedule(self, schedule_id: str) -> bool:
        """Delete a schedule; False if there is none with this id. Its jobs stay."""
        return bool(self._schedules.change("delete_schedule", schedule_id))

    def run_schedule(self, schedule_id: str) -> str:
        """Add a job of the schedule now, and return its id. Raises ScheduleNotFound."""
        return str(self._schedules.change("run_schedule", schedule_id))

    def backfill_schedule(self, schedule_id: str, since: datetime, until: datetime | None = None) -> int:
        """Add the jobs of the ticks from since to until (None: now) that have none, and return how many."""
        check_execute_at(since, "since")
        check_execute_at(until, "until")
        return self._schedules.backfill(schedule_id, since, until)

    def next_ticks(
        self, expression: str, time_zone: str = "UTC", after: datetime | None = None, n: int = 5
    ) -> list[datetime]:
        """Return the first n ticks of a cron expression after a time (None: now), to preview it."""
        check_execute_at(after, "after")
        return self._schedules.ticks(expression, time_zone, after, n)

    def declared_schedules(self) -> set[str]:
        """Return the ids that the programs of live workers declare."""
        return self._schedules.declared()
