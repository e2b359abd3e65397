"""Claim the next due jobs, each of them once.

An index has the pending jobs by priority, due time and order of enqueueing. A claim visits the existing priorities from
the highest down and takes the due jobs of each. It never reads scheduled jobs, finished jobs or jobs of other queues.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Row,
    Select,
    Update,
    bindparam,
    literal_column,
    select,
    update,
)

from pgjobq.models import Job, JobStatus, trusted_job
from pgjobq.storage.holds import Claimant
from pgjobq.storage.sqlalchemy.conditions import AMONG_IDS, NOW, chunks, met
from pgjobq.storage.sqlalchemy.connection import TRIES, Database
from pgjobq.storage.sqlalchemy.engine import LOCKING, OPTIMISTIC
from pgjobq.storage.sqlalchemy.rows import read_data
from pgjobq.storage.sqlalchemy.table import CLAIM, CLAIM_QUEUE, jobs
from pgjobq.storage.sqlalchemy.types import MYSQL

# A literal rather than a parameter, because databases cannot use a partial index for a parameter.
_PENDING = jobs.c.status == literal_column("'pending'")
_NEEDED = (
    jobs.c.id,
    jobs.c.type,
    jobs.c.data,
    jobs.c.queue,
    jobs.c.priority,
    jobs.c.attempts,
    jobs.c.max_retries,
    jobs.c.execute_at,
    jobs.c.error,
    jobs.c.created_at,
    jobs.c.crashes,
)
Rows = list[Row[Any]]


def claim(
    database: Database, worker_id: Claimant, limit: int, queues: Sequence[str] | None, except_types: Sequence[str]
) -> list[Job]:
    """Claim up to limit due jobs, except those of except_types, in the order in which they should run."""
    if limit < 1:
        return []
    if database.traits.claiming == LOCKING:
        return database.write(lambda conn: _Claim(database, conn, worker_id, except_types).whole(limit, queues))
    if database.traits.claiming == OPTIMISTIC:
        return _claim_optimistically(database, worker_id, limit, queues, except_types)
    # Check without the lock first, so that a worker that finds no job blocks no other.
    if not database.read(lambda conn: _Claim(database, conn, worker_id, except_types).due(1, queues)):
        return []
    return database.write(lambda conn: _Claim(database, conn, worker_id, except_types).whole(limit, queues))


def _claim_optimistically(
    database: Database, worker_id: Claimant, limit: int, queues: Sequence[str] | None, except_types: Sequence[str]
) -> list[Job]:
    started: list[Job] = []
    for _ in range(TRIES):
        rows = database.read(lambda conn: _Claim(database, conn, worker_id, except_types).due(limit, queues))
        if rows:
            started = database.write(partial(_start_in, database, worker_id, rows))
        if started or not rows:
            break
    return started  # empty also if other workers took all the jobs each time; the caller will claim again


def _start_in(database: Database, worker_id: Claimant, rows: Rows, conn: Connection) -> list[Job]:
    return _Claim(database, conn, worker_id).start(rows)


class _Claim:
    """One claim, on one connection."""

    def __init__(
        self, database: Database, conn: Connection, worker_id: Claimant, except_types: Sequence[str] = ()
    ) -> None:
        self._database, self._traits = database, database.traits
        self._except_types = list(except_types)
        self._conn, self._worker_id = conn, worker_id
        self._now: datetime | None = datetime.now(UTC) if self._traits.now is None else None

    def whole(self, limit: int, queues: Sequence[str] | None) -> list[Job]:
        """Find due jobs and start them."""
        rows = self.due(limit, queues)
        return self.start(rows) if rows else []

    def due(self, limit: int, queues: Sequence[str] | None) -> Rows:
        """Return the next due rows of these queues, locked if the database supports row locks."""
        found: Rows = []
        lines: dict[str | None, int] = {}  # for each queue, the highest priority that was not read yet
        for queue in [None] if queues is None else dict.fromkeys(queues):
            self._advance(lines, queue, None)
        while lines:
            priority = max(lines.values())
            here = [queue for queue, theirs in lines.items() if theirs == priority]
            rows = [row for queue in here for row in self._take(queue, priority, limit - len(found))]
            if len(here) > 1:
                rows.sort(key=lambda row: (row.execute_at, row.created_at, row.id))
            found += rows[: limit - len(found)]
            if len(found) >= limit:
                break
            for queue in here:
                self._advance(lines, queue, priority)
        return found

    def _advance(self, lines: dict[str | None, int], queue: str | None, below: int | None) -> None:
        lines.pop(queue, None)
        # The first answer also contains the time.
        first = (self._traits.now, *self._traits.planning) if self._now is None else None
        ranged = bool(self._traits.planning)
        query = _next_priority(first, by_queue=queue is not None, from_top=below is None, ranged=ranged)
        found = self._conn.execute(query, {"queue": queue, "below": below}).one()
        priority = found.priority
        if first is not None:
            self._now = found.now
        if priority is not None:
            lines[queue] = priority

    def _take(self, queue: str | None, priority: int, limit: int) -> Rows:
        locking, leaves = self._traits.claiming == LOCKING, bool(self._except_types)
        query = _due(by_queue=queue is not None, locking=locking, leaves=leaves)
        values: dict[str, Any] = {"queue": queue, "at": priority, "now": self._now, "most": limit}
        if leaves:
            values["except_types"] = self._except_types
        return list(self._conn.execute(query, values).all())

    def start(self, rows: Rows) -> list[Job]:
        """Set the rows running that are still pending, and return their jobs."""
        self._now = self._now or self._database.now(self._conn)
        if self._traits.returning:
            attempts: dict[str, int] = {}
            for some in chunks(rows):
                found = self._conn.execute(_START_RETURNING, self._values([row.id for row in some]))
                attempts.update((row.id, row.attempts) for row in found)
            return [self._started(row, attempts[row.id]) for row in rows if row.id in attempts]
        if not self._start_together(rows):
            # Other workers took some rows. Only separate updates show which.
            self._conn.rollback()
            rows = [row for row in rows if self._count([row], row.attempts) == 1]
        return [self._started(row, row.attempts + 1) for row in rows]

    def _start_together(self, rows: Rows) -> bool:
        groups: dict[int, Rows] = defaultdict(list)
        for row in rows:
            groups[row.attempts].append(row)
        return all(
            self._count(some, attempts) == len(some) for attempts, group in groups.items() for some in chunks(group)
        )

    def _count(self, rows: Sequence[Row[Any]], attempts: int) -> int:
        values = self._values([row.id for row in rows])
        return self._conn.execute(_START, {**values, "seen": attempts}).rowcount

    def _values(self, ids: list[str]) -> dict[str, Any]:
        return {"ids": ids, "now": self._now, "worker": int(self._worker_id), "claim": self._worker_id.claim}

    def _started(self, row: Row[Any], attempts: int) -> Job:
        return trusted_job(
            row.id,
            row.type,
            read_data(row.data),
            JobStatus.RUNNING,
            row.queue,
            row.priority,
            attempts,
            row.max_retries,
            None if row.execute_at == row.created_at else row.execute_at,
            row.error,
            row.created_at,
            self._now,
            self._now,
            None,
            None,
            self._worker_id,
            crashes=row.crashes,
        )


@cache
def _next_priority(first: tuple[Any, ...] | None, *, by_queue: bool, from_top: bool, ranged: bool) -> Select[Any]:
    """Select the highest priority of a pending job, below `below` if ranged. Also select the columns of first."""
    query = select(jobs.c.priority).where(_PENDING).order_by(jobs.c.priority.desc()).limit(1)
    if by_queue and ranged:
        # The result is the same, but only one index has this order. Otherwise PostgreSQL might choose another index.
        query = query.where(jobs.c.queue.between(bindparam("queue"), bindparam("queue")))
        query = query.order_by(None).order_by(jobs.c.queue, jobs.c.priority.desc())
    elif by_queue:
        query = query.where(jobs.c.queue == bindparam("queue"))
    if not from_top:
        query = query.where(jobs.c.priority < bindparam("below"))
    priority = _hinted(query, by_queue=by_queue).scalar_subquery().label("priority")
    return select(priority) if first is None else select(priority, first[0].label("now"), *first[1:])


@cache
def _due(*, by_queue: bool, locking: bool, leaves: bool) -> Select[Any]:
    """Select the due jobs of one priority in order. leaves: exclude the jobs of except_types."""
    query = (
        select(*_NEEDED)
        .where(_PENDING, jobs.c.priority == bindparam("at"), jobs.c.execute_at <= NOW)
        .order_by(jobs.c.execute_at, jobs.c.created_at, jobs.c.id)
        .limit(bindparam("most"))
    )
    if by_queue:
        query = query.where(jobs.c.queue == bindparam("queue"))
    if leaves:
        query = query.where(jobs.c.type.not_in(bindparam("except_types", expanding=True)))
    if locking:
        query = query.with_for_update(skip_locked=True)
    return _hinted(query, by_queue=by_queue)


def _hinted(query: Select[Any], *, by_queue: bool) -> Select[Any]:
    # MySQL would choose an index by its statistics, which may be out of date.
    for name in MYSQL:
        query = query.with_hint(jobs, f"FORCE INDEX ({CLAIM_QUEUE if by_queue else CLAIM})", name)
    return query


_pending_still = _PENDING & (jobs.c.execute_at <= NOW)


def _start(where: Any) -> Update:
    return (
        update(jobs)
        .where(AMONG_IDS, met(where))
        .values(
            status="running",
            attempts=jobs.c.attempts + 1,
            started_at=NOW,
            updated_at=NOW,
            worker_id=bindparam("worker", type_=BigInteger),
            claim_id=bindparam("claim", type_=BigInteger),
        )
    )


_START = _start(_pending_still & (jobs.c.attempts == bindparam("seen")))
_START_RETURNING = _start(_pending_still).returning(jobs.c.id, jobs.c.attempts)
