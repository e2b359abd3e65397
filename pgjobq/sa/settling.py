"""Settling: what became of starts, written only while their workers still hold them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Connection, Integer, Update, bindparam, literal_column, select, update

from pgjobq.models import Job
from pgjobq.sa.conditions import AMONG_IDS, NOW, chunks, met
from pgjobq.sa.table import jobs
from pgjobq.storage.base import Completed, Failed, Outcome, Released, Retried
from pgjobq.storage.errortext import storable_error
from pgjobq.storage.lease import start

MAX_ERROR = 1_000_000  # bytes of an error that are kept

# Jobs that are settled alike, each group in one statement: the status, how many starts are taken back, and what is set.
_Group = tuple[str, int, tuple[tuple[str, Any], ...]]


def settle(conn: Connection, outcomes: Sequence[Outcome], now: datetime) -> list[Outcome]:
    """Settle the starts that their workers still hold; those that were lost, unchanged.

    A start that was settled the same way before is not lost: the answer may have been.
    """
    groups: dict[tuple[_Group, int | None, int], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        job = outcome.job
        groups[_group_of(outcome, now), job.worker_id, job.attempts].append(outcome)
    lost: set[tuple[str, int, int | None]] = set()
    # In one order for all, as far as there is one: two that settle must not wait for each other.
    for ((status, taken_back, changes), worker_id, attempts), group in groups.items():
        values = {
            "worker": worker_id,
            "start": attempts,
            "now": now,
            **{f"new_{name}": value for name, value in changes},
        }
        statement = _statement(status, taken_back, tuple(name for name, _ in changes))
        for some in chunks(sorted({outcome.job.id for outcome in group})):
            if conn.execute(statement, {**values, "ids": some}).rowcount < len(some):
                kept = _settled(conn, some, status, attempts - taken_back, worker_id)
                lost.update((id_, attempts, worker_id) for id_ in some if id_ not in kept)
    return [outcome for outcome in outcomes if start(outcome.job) in lost] if lost else []


def complete(conn: Connection, job: Job, now: datetime) -> bool:
    """Complete one start; whether its worker still held it."""
    return not settle(conn, [Completed(job)], now)


def _group_of(outcome: Outcome, now: datetime) -> _Group:
    match outcome:
        case Completed():
            return "completed", 0, (("error", None), ("finished_at", now))
        case Failed(_, error):
            return "failed", 0, (("error", _stored(error)), ("finished_at", now), ("failed_at", now))
        case Retried(_, delay, None):
            return "pending", 0, (("execute_at", now + timedelta(seconds=delay)),)
        case Retried(_, delay, error):
            return "pending", 0, (("execute_at", now + timedelta(seconds=delay)), ("error", _stored(error)))
        case Released(_, delay) if delay > 0:
            return "pending", 1, (("execute_at", now + timedelta(seconds=delay)),)
        case Released():
            return "pending", 1, ()


def _stored(error: str | None) -> str | None:
    return None if error is None else storable_error(error, MAX_ERROR)


@cache
def _statement(status: str, taken_back: int, changed: tuple[str, ...]) -> Update:
    held = (
        (jobs.c.status == literal_column("'running'"))
        & (jobs.c.attempts == bindparam("start", type_=Integer))
        & (jobs.c.worker_id == bindparam("worker", type_=BigInteger))
    )
    values: dict[str, Any] = {name: bindparam(f"new_{name}", type_=jobs.c[name].type) for name in changed}
    if taken_back:
        values["attempts"] = jobs.c.attempts - taken_back
    return update(jobs).where(AMONG_IDS, met(held)).values(status=status, updated_at=NOW, **values)


def _settled(conn: Connection, ids: Sequence[str], status: str, attempts: int, worker_id: int | None) -> set[str]:
    """Those that are in the state which this settle leads to."""
    query = select(jobs.c.id, jobs.c.status, jobs.c.attempts, jobs.c.worker_id).where(AMONG_IDS)
    rows = conn.execute(query, {"ids": ids})
    return {row.id for row in rows if tuple(row[1:]) == (status, attempts, worker_id)}
