"""Workers and their leases, and the rescue of the jobs of dead workers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import reduce
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
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
from pgjobq.events import EventLog
from pgjobq.models import Job
from pgjobq.rescued import MAX_CRASHES, tell_crashes
from pgjobq.storage.holds import Start
from pgjobq.storage.sqlalchemy.apart import each_apart
from pgjobq.storage.sqlalchemy.conditions import AMONG_IDS, NOW, chunks, met
from pgjobq.storage.sqlalchemy.connection import Database
from pgjobq.storage.sqlalchemy.rows import COLUMNS, job_of
from pgjobq.storage.sqlalchemy.table import jobs, workers

log = EventLog("pgjobq.storage")

Orphans = dict[int | None, dict[str, int]]  # worker id -> job id -> crashes
Dead = dict[int, tuple[str, datetime]]  # worker id -> name and end of the lease

_RUNNING = jobs.c.status == literal_column("'running'")
_PENDING = jobs.c.status == literal_column("'pending'")


def enlist(conn: Connection, worker_id: int, name: str, now: datetime, lease: float) -> None:
    """Register a worker, with a lease that begins now."""
    until = now + timedelta(seconds=lease)
    conn.execute(insert(workers).values(id=worker_id, name=name, started_at=now, lease_until=until))


def renew(conn: Connection, worker_id: int, now: datetime, lease: float) -> bool:
    """Renew a worker's lease. Return False if it is not registered any more."""
    until = now + timedelta(seconds=lease)
    return conn.execute(update(workers).where(workers.c.id == worker_id).values(lease_until=until)).rowcount == 1


def retire(conn: Connection, worker_id: int) -> None:
    """Delete a worker's registration."""
    conn.execute(delete(workers).where(workers.c.id == worker_id))


def held_by(conn: Connection, worker_id: int) -> list[Job]:
    """Return the jobs that this worker holds."""
    query = select(*COLUMNS).where(_RUNNING, jobs.c.worker_id == worker_id)
    return [job_of(row) for row in conn.execute(query)]


def starts_of(conn: Connection, worker_ids: Sequence[int]) -> set[Start]:
    """Return the starts that these workers hold."""
    query = select(jobs.c.id, jobs.c.claim_id).where(_RUNNING, jobs.c.worker_id.in_(worker_ids))
    return {(row.id, row.claim_id or 0) for row in conn.execute(query)}


def rescue(database: Database, told: set[str], lease: float) -> int:
    """Put the running jobs of dead and unknown workers back in line. Return how many.

    Delete the registrations of the dead workers. Make pending jobs due that were inserted without a due time. told: the
    jobs that the database refuses to change and that were logged; the others are rescued. lease: seconds.
    """
    now, dead, orphans, unplaced = database.read(lambda conn: _look(conn, database.now(conn)))
    if unplaced:
        database.write(lambda conn: _place(conn, unplaced))
    if dead:
        # Do this first. A worker that renews at the same time either keeps its jobs or finds that it is not registered.
        database.write(lambda conn: _forget(conn, list(dead), now))
    rescued = 0
    for holder, crashes in orphans.items():
        given = _give_away(database, holder, crashes, now, told)
        if given:
            name, until = dead.get(holder or 0, (None, None))
            stood = None if until is None else (now - until).total_seconds() + lease
            tell_crashes(holder, name, stood, given)
        rescued += len(given)
    return rescued


def _look(conn: Connection, now: datetime) -> tuple[datetime, Dead, Orphans, list[str]]:
    ended = select(workers.c.id, workers.c.name, workers.c.lease_until).where(workers.c.lease_until < now)
    dead = {row.id: (row.name, row.lease_until) for row in conn.execute(ended)}
    alive = select(workers.c.id).where(workers.c.lease_until >= now)
    orphaned = jobs.c.worker_id.is_(None) | jobs.c.worker_id.not_in(alive)
    orphans: Orphans = defaultdict(dict)
    found = select(jobs.c.id, jobs.c.worker_id, jobs.c.crashes).where(_RUNNING, orphaned)
    for job_id, worker_id, crashes in conn.execute(found):
        orphans[worker_id][job_id] = crashes + 1
    unplaced = list(conn.scalars(select(jobs.c.id).where(jobs.c.execute_at.is_(None), _PENDING).limit(1000)))
    return now, dead, orphans, unplaced


def _forget(conn: Connection, worker_ids: Sequence[int], now: datetime) -> None:
    for worker_id in sorted(worker_ids):
        conn.execute(delete(workers).where(workers.c.id == worker_id, workers.c.lease_until < now))


def _give_away(
    database: Database, holder: int | None, crashes: dict[str, int], now: datetime, told: set[str]
) -> dict[str, int]:
    """Return the jobs that were given away."""
    values = {"now": now, "dead": holder or 0}  # no worker has 0
    given: set[str] = set()

    def give(ids: Sequence[str]) -> int:
        taken = database.write(lambda conn: _gave(conn, {**values, "ids": ids}))
        given.update(taken)
        return len(taken)

    def refused(job_id: str, error: StorageError) -> None:
        if job_id not in told:
            told.add(job_id)
            log.error("job.not_rescued", extra={"job_id": job_id, "error": str(error)})

    for some in chunks(sorted(crashes)):
        each_apart(some, give, refused)
    return {job_id: count for job_id, count in crashes.items() if job_id in given}


def _gave(conn: Connection, values: dict[str, Any]) -> list[str]:
    if conn.execute(_GIVE_AWAY, values).rowcount == len(values["ids"]):
        return list(values["ids"])
    # Some jobs may have been settled or given away in the meantime. A settle never leaves a job without a claim.
    given = select(jobs.c.id).where(AMONG_IDS, met(_theirs & jobs.c.claim_id.is_(None) & (jobs.c.updated_at == NOW)))
    return list(conn.scalars(given, values))


def _place(conn: Connection, job_ids: Sequence[str]) -> None:
    placed = update(jobs).where(AMONG_IDS, met(_PENDING), jobs.c.execute_at.is_(None))
    for some in chunks(job_ids):
        conn.execute(placed.values(execute_at=jobs.c.created_at), {"ids": some})


def listed(conn: Connection, now: datetime) -> list[dict[str, Any]]:
    """Return the registered workers as BaseStorage.workers does."""
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


_crash = jobs.c.crashes + 1
_too_often = _crash >= MAX_CRASHES
_when_failed = case((_too_often, NOW), else_=None)
_told = (
    (" stopped or died while it held this job (try ", jobs.c.attempts - jobs.c.crashes),
    (" of ", jobs.c.max_retries + 1),
    (", crash ", _crash),
)
_worker: ColumnElement[str] = literal("its worker")
_theirs = func.coalesce(jobs.c.worker_id, 0) == bindparam("dead", type_=BigInteger)
_unregistered = jobs.c.worker_id.is_(None) | jobs.c.worker_id.not_in(select(workers.c.id))
_GIVE_AWAY = (
    update(jobs)
    .where(AMONG_IDS, met(_RUNNING & _theirs & _unregistered))
    .values(
        # MySQL uses the new value of a column that it has set before. It sets crashes last.
        status=case((_too_often, literal("failed")), else_=literal("pending")),
        error=reduce(lambda text, part: text.concat(literal(part[0])).concat(cast(part[1], String(11))), _told, _worker)
        .concat(literal(f" of {MAX_CRASHES})"))
        .concat(case((_too_often, literal("; it failed because of its crashes")), else_=literal(""))),
        failed_at=_when_failed,
        finished_at=_when_failed,
        updated_at=NOW,
        claim_id=null(),
        crashes=_crash,
    )
)
