"""Workers and their leases; and what becomes of the jobs of those that gave no sign of life."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    String,
    bindparam,
    case,
    cast,
    delete,
    func,
    insert,
    literal,
    literal_column,
    null,
    select,
    update,
)

from pgjobq.errors import StorageError
from pgjobq.models import Job
from pgjobq.storage.holds import Start
from pgjobq.storage.sqlalchemy.apart import each_apart
from pgjobq.storage.sqlalchemy.conditions import AMONG_IDS, NOW, chunks, met
from pgjobq.storage.sqlalchemy.connection import Database
from pgjobq.storage.sqlalchemy.rows import COLUMNS, job_of
from pgjobq.storage.sqlalchemy.table import jobs, workers

log = logging.getLogger("pgjobq.storage")

Orphans = dict[int | None, list[str]]  # jobs by the worker that held them

_RUNNING = jobs.c.status == literal_column("'running'")
_PENDING = jobs.c.status == literal_column("'pending'")


def enlist(conn: Connection, worker_id: int, name: str, now: datetime, lease: float) -> None:
    """Register a worker, with a lease from now."""
    until = now + timedelta(seconds=lease)
    conn.execute(insert(workers).values(id=worker_id, name=name, started_at=now, lease_until=until))


def renew(conn: Connection, worker_id: int, now: datetime, lease: float) -> bool:
    """Extend a worker's lease; False when it is not registered any more."""
    until = now + timedelta(seconds=lease)
    return conn.execute(update(workers).where(workers.c.id == worker_id).values(lease_until=until)).rowcount == 1


def retire(conn: Connection, worker_id: int) -> None:
    """Forget a worker."""
    conn.execute(delete(workers).where(workers.c.id == worker_id))


def held_by(conn: Connection, worker_id: int) -> list[Job]:
    """The jobs that run under this worker."""
    query = select(*COLUMNS).where(_RUNNING, jobs.c.worker_id == worker_id)
    return [job_of(row) for row in conn.execute(query)]


def starts_of(conn: Connection, worker_ids: Sequence[int]) -> set[Start]:
    """The start of every job that runs under these workers."""
    query = select(jobs.c.id, jobs.c.claim_id).where(_RUNNING, jobs.c.worker_id.in_(worker_ids))
    return {(row.id, row.claim_id or 0) for row in conn.execute(query)}


def rescue(database: Database, told: set[str]) -> int:
    """Put the running jobs of dead and unknown workers back in line; how many. Forgets the dead workers.

    Pending jobs that were inserted without a due time fall due. told: jobs that the database refuses to
    change and that the log has named; one of them holds up no other.
    """
    now, worker_ids, orphans, unplaced = database.read(lambda conn: _look(conn, database.now(conn)))
    if unplaced:
        database.write(lambda conn: _place(conn, unplaced))
    if worker_ids:
        # First: a worker that renews at the same time either keeps its jobs, or finds itself forgotten.
        database.write(lambda conn: _forget(conn, worker_ids, now))
    return sum(_give_away(database, holder, job_ids, now, told) for holder, job_ids in orphans.items())


def _look(conn: Connection, now: datetime) -> tuple[datetime, list[int], Orphans, list[str]]:
    worker_ids = list(conn.scalars(select(workers.c.id).where(workers.c.lease_until < now)))
    alive = select(workers.c.id).where(workers.c.lease_until >= now)
    orphaned = jobs.c.worker_id.is_(None) | jobs.c.worker_id.not_in(alive)
    orphans: Orphans = defaultdict(list)
    for job_id, worker_id in conn.execute(select(jobs.c.id, jobs.c.worker_id).where(_RUNNING, orphaned)):
        orphans[worker_id].append(job_id)
    unplaced = list(conn.scalars(select(jobs.c.id).where(jobs.c.execute_at.is_(None), _PENDING).limit(1000)))
    return now, worker_ids, orphans, unplaced


def _forget(conn: Connection, worker_ids: Sequence[int], now: datetime) -> None:
    for worker_id in sorted(worker_ids):
        conn.execute(delete(workers).where(workers.c.id == worker_id, workers.c.lease_until < now))


def _give_away(database: Database, holder: int | None, job_ids: list[str], now: datetime, told: set[str]) -> int:
    values = {"now": now, "dead": holder or 0}  # no worker has 0

    def give(ids: Sequence[str]) -> int:
        return database.write(lambda conn: conn.execute(_GIVE_AWAY, {**values, "ids": ids}).rowcount)

    def refused(job_id: str, error: StorageError) -> None:
        if job_id not in told:
            told.add(job_id)
            log.error("job.not_rescued", extra={"job_id": job_id, "error": str(error)})

    return sum(each_apart(some, give, refused) for some in chunks(sorted(job_ids)))


def _place(conn: Connection, job_ids: Sequence[str]) -> None:
    placed = update(jobs).where(AMONG_IDS, met(_PENDING), jobs.c.execute_at.is_(None))
    for some in chunks(job_ids):
        conn.execute(placed.values(execute_at=jobs.c.created_at), {"ids": some})


def listed(conn: Connection, now: datetime) -> list[dict[str, Any]]:
    """Registered workers, as BaseStorage.workers gives them."""
    counts = select(jobs.c.worker_id, func.count()).where(_RUNNING).group_by(jobs.c.worker_id)
    running = {row[0]: row[1] for row in conn.execute(counts)}
    return [
        {
            "id": row.id,
            "name": row.name,
            "queues": None,
            "started_at": row.started_at,
            "alive": row.lease_until >= now,
            "asleep": False,
            "running": running.get(row.id, 0),
        }
        for row in conn.execute(select(workers).order_by(workers.c.started_at))
    ]


_tries_used_up = jobs.c.attempts > jobs.c.max_retries
_when_failed = case((_tries_used_up, NOW), else_=None)
_theirs = func.coalesce(jobs.c.worker_id, 0) == bindparam("dead", type_=BigInteger)
_unregistered = jobs.c.worker_id.is_(None) | jobs.c.worker_id.not_in(select(workers.c.id))
_GIVE_AWAY = (
    update(jobs)
    .where(AMONG_IDS, met(_RUNNING & _theirs & _unregistered))
    .values(
        status=case((_tries_used_up, literal("failed")), else_=literal("pending")),
        error=literal("its worker stopped or died while it held this job (try ")
        .concat(cast(jobs.c.attempts, String(11)))
        .concat(literal(" of "))
        .concat(cast(jobs.c.max_retries + 1, String(11)))
        .concat(literal(")")),
        failed_at=_when_failed,
        finished_at=_when_failed,
        updated_at=NOW,
        claim_id=null(),
    )
)
