"""TableSource reads the jobs of a table that SQLAlchemy reaches, of pgjobq or of an older queue."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnClause, Connection, column, create_engine, func, inspect, select, table
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from pgjobq.errors import ConfigurationError, InvalidJob, SchemaConflict
from pgjobq.models import Job, UnreadableData
from pgjobq.schedules import Schedule
from pgjobq.storage.sqlalchemy.engine import open_engine
from pgjobq.storage.sqlalchemy.errors import shown, translate
from pgjobq.storage.sqlalchemy.table import jobs, schedules, workers

TIMEOUT = 30.0  # seconds to wait for an answer

NEEDED = ("id", "type", "data", "status")
OPTIONAL = (
    "queue",
    "priority",
    "attempts",
    "max_retries",
    "execute_at",
    "error",
    "created_at",
    "updated_at",
    "started_at",
    "finished_at",
    "failed_at",
)

SCHEDULES = "schedules"
SCHEDULE_COLUMNS = (
    *("id", "job_type", "job_data", "schedule_type", "schedule_expression", "next_run", "last_run", "enabled"),
    *("max_retries", "priority"),
)


class TableSource:
    """Reads the table `jobs`, and changes nothing.

    The table may belong to SQLAlchemyStorage or DBJobQ. Missing columns get their defaults, and times without a zone
    are read as UTC. A row that cannot be read becomes a job with UnreadableData.
    """

    def __init__(self, url: str, name: str = "jobs", time_zone: str = "UTC") -> None:
        self._time_zone = time_zone  # whose clock the cron expressions of its schedules follow
        parsed = make_url(url)
        path = parsed.database
        if parsed.get_backend_name() == "sqlite":
            # SQLite would create a missing file, and open_engine would switch the database to WAL mode.
            if not (path and Path(path).is_file()):
                raise ConfigurationError(f"SRC: there is no file {path!r}; check the path")
            self._engine = create_engine(parsed)
        else:
            self._engine, _ = open_engine(parsed, TIMEOUT)
        self._name, self._shown = name, f"SRC: {shown(self._engine)}"
        self._columns: list[str] = []
        self.is_storage = False  # whether the table belongs to a SQLAlchemyStorage, which can do more; set by ping()

    def ping(self) -> None:
        """Connect, and check that the table contains jobs. Raises StorageUnavailable or SchemaConflict."""
        with self._connected() as conn:
            inspector = inspect(conn)
            if not inspector.has_table(self._name):
                raise SchemaConflict(f"{self._shown}: there is no table {self._name!r}")
            there = {one["name"] for one in inspector.get_columns(self._name)}
            ours = inspector.has_table(workers.name) and inspector.has_table(schedules.name)
            self.is_storage = ours and there >= {one.name for one in jobs.columns}
        if missing := [one for one in NEEDED if one not in there]:
            raise SchemaConflict(
                f"{self._shown}: the table {self._name!r} has no column {missing[0]!r}, so it is not a table of jobs"
            )
        self._columns = [one for one in (*NEEDED, *OPTIONAL) if one in there]

    def counts(self) -> dict[str, int]:
        """Return the number of jobs of each status."""
        status: ColumnClause[str] = column("status")
        query = select(status, func.count()).select_from(table(self._name)).group_by(status)
        with self._connected() as conn:
            return {str(row[0]): int(row[1]) for row in conn.execute(query)}

    def export_jobs(self, batch: int = 1000) -> Iterator[list[Job]]:
        """Yield every job in batches, the oldest first, streamed in one transaction."""
        if not self._columns:
            self.ping()
        order: list[ColumnClause[Any]] = [column(one) for one in ("created_at", "id") if one in self._columns]
        wanted: list[ColumnClause[Any]] = [column(one) for one in self._columns]
        query = select(*wanted).select_from(table(self._name)).order_by(*order)
        with self._connected() as conn:
            rows = conn.execution_options(yield_per=batch).execute(query)
            for some in rows.mappings().partitions():
                yield [_job({**row}) for row in some]

    def list_schedules(self) -> list[Schedule]:
        """Return the schedules of DBJobQ's table `schedules`, if it is there. Their intervals keep their phase."""
        with self._connected() as conn:
            inspector = inspect(conn)
            there = {one["name"] for one in inspector.get_columns(SCHEDULES)} if inspector.has_table(SCHEDULES) else ()
            if not {"id", "job_type", "schedule_expression"}.issubset(there):
                return []
            wanted: list[ColumnClause[Any]] = [column(name) for name in SCHEDULE_COLUMNS if name in there]
            rows = conn.execute(select(*wanted).select_from(table(SCHEDULES))).mappings().all()
        return [_schedule({**row}, self._time_zone) for row in rows]

    def workers(self) -> list[dict[str, Any]]:
        """Return an empty list, because a table does not record workers."""
        return []

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as conn:
                yield conn
        except SQLAlchemyError as error:
            raise translate(error, self._shown) from error


def _job(row: dict[str, Any]) -> Job:
    values = {key: value for key, value in row.items() if value is not None}
    values["id"], values["type"] = str(row["id"]), str(row["type"])
    try:
        return Job.from_dict(values | {"data": _data(row["data"])})
    except (InvalidJob, TypeError, ValueError) as error:
        return Job(id=values["id"], type=values["type"], data=UnreadableData(str(error)))


def _data(value: Any) -> dict[str, Any]:
    data = json.loads(value) if isinstance(value, str | bytes) else value
    if not isinstance(data, dict):
        raise InvalidJob(f"data: {type(data).__name__} is not a dict", field="data")
    return data


def _schedule(row: dict[str, Any], time_zone: str) -> Schedule:
    values = {key: value for key, value in row.items() if value is not None}
    interval = values.get("schedule_type") == "interval"
    values["schedule_expression"] = str(row["schedule_expression"])
    if interval and "next_run" in values:
        values["starts_at"] = Schedule("", "", next_run=values["next_run"]).next_run
    return Schedule.from_dict(values | {"id": str(row["id"]), "time_zone": "UTC" if interval else time_zone})
