"""Settle starts while their workers still hold them, cancel jobs and put jobs back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Connection, Update, bindparam, literal_column, null, select, update

from pgjobq.models import Job
from pgjobq.outcomes import Completed, Failed, Outcome, Released, Retried
from pgjobq.storage.errortext import storable_error
from pgjobq.storage.holds import Start, claim_of, start
from pgjobq.storage.sqlalchemy.conditions import AMONG_IDS, NOW, chunks, met
from pgjobq.storage.sqlalchemy.connection import Database
from pgjobq.storage.sqlalchemy.results import keep_results
from pgjobq.storage.sqlalchemy.table import jobs

Values = tuple[tuple[str, Any], ...]

MAX_ERROR = 1_000_000  # bytes of an error that are kept


class _Change(NamedTuple):
    """The change for a group of jobs that are settled in the same way. Each group is one statement."""

    status: str
    stamped: tuple[str, ...] = ()  # columns that are set to the time
    values: tuple[tuple[str, Any], ...] = ()
    taken_back: int = 0  # starts to subtract from attempts


def settle(conn: Connection, outcomes: Sequence[Outcome], database: Database) -> list[Outcome]:
    """Settle the starts that their workers still hold. Return the lost ones, whose jobs stay unchanged.

    A start that was settled in the same way before is not lost.
    """
    delayed = any(isinstance(outcome, Retried | Released) and outcome.delay > 0 for outcome in outcomes)
    now = database.now(conn) if delayed or database.traits.now is None else None
    groups: dict[tuple[_Change, int], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[_change(outcome, now), claim_of(outcome.job)].append(outcome)
    lost: set[Start] = set()
    for (change, claim), group in groups.items():
        values = {"claim": claim, "now": now}
        values |= {f"new_{name}": value for name, value in change.values}
        names = tuple(name for name, _ in change.values)
        statement = _statement(database.traits.now, change.status, change.stamped, names, change.taken_back)
        # Lock in the order of ids, so that two transactions do not wait for each other.
        for some in chunks(sorted({outcome.job.id for outcome in group})):
            if conn.execute(statement, {**values, "ids": some}).rowcount < len(some):
                kept = _settled(conn, some, change.status, claim)
                lost.update((id_, claim) for id_ in some if id_ not in kept)
        found = {o.job.id: o.result for o in group if isinstance(o, Completed) and o.result is not None}
        if found:
            keep_results(conn, {id_: text for id_, text in found.items() if (id_, claim) not in lost}, claim)
    return [outcome for outcome in outcomes if start(outcome.job) in lost] if lost else []


def complete(conn: Connection, job: Job, result: str | None, database: Database) -> bool:
    """Complete one start, with its result as JSON. Return False if its worker did not hold it any more."""
    return not settle(conn, [Completed(job, result)], database)


def cancel(conn: Connection, job_id: str, reason: str | None, now: datetime) -> bool:
    """Cancel a pending or running job. Return False for any other status."""
    values = {"status": "cancelled", "finished_at": now, "updated_at": now, "claim_id": null()}
    if reason is not None:
        values["error"] = reason
    return _change_one(conn, job_id, ("pending", "running"), values)


def put_back(conn: Connection, job_id: str, due: datetime, now: datetime) -> bool:
    """Make a failed, cancelled or pending job pending, due at that time. Return False for any other status."""
    values = {"status": "pending", "execute_at": due, "updated_at": now}
    # MySQL uses the new value of a column that it has set before. It sets crashes last.
    values |= {"attempts": jobs.c.attempts - jobs.c.crashes, "crashes": 0}
    values |= dict.fromkeys(("finished_at", "failed_at", "claim_id"), null())
    return _change_one(conn, job_id, ("pending", "failed", "cancelled"), values)


def _change_one(conn: Connection, job_id: str, states: Sequence[str], values: dict[str, Any]) -> bool:
    return (
        conn.execute(update(jobs).where(jobs.c.id == job_id, met(jobs.c.status.in_(states))).values(values)).rowcount
        == 1
    )


def _change(outcome: Outcome, now: datetime | None) -> _Change:
    match outcome:
        case Completed():
            return _Change("completed", ("finished_at",), (("error", None), *_cleared(outcome.job)))
        case Failed(_, error):
            values = (("error", _stored(error)), *_cleared(outcome.job))
            return _Change("failed", ("finished_at", "failed_at"), values, taken_back=outcome.job.crashes)
        case Retried(job, delay, error):
            kept = () if error is None else (("error", _stored(error)),)
            return _Change("pending", *_due(delay, now, (*kept, *_cleared(job))), taken_back=job.crashes)
        case Released(_, delay) if delay > 0:
            return _Change("pending", *_due(delay, now), taken_back=1)
        case Released():
            return _Change("pending", taken_back=1)


def _cleared(job: Job) -> Values:
    """Reset the number of crashes, because the start ended without one."""
    return (("crashes", 0),) if job.crashes else ()


def _due(delay: float, now: datetime | None, values: Values = ()) -> tuple[tuple[str, ...], Values]:
    if delay <= 0 or now is None:
        return ("execute_at",), values
    return (), (*values, ("execute_at", now + timedelta(seconds=delay)))


def _stored(error: str | None) -> str | None:
    return None if error is None else storable_error(error, MAX_ERROR)


@cache
def _statement(
    clock: ColumnElement[Any] | None, status: str, stamped: tuple[str, ...], given: tuple[str, ...], taken_back: int
) -> Update:
    held = (jobs.c.status == literal_column("'running'")) & (jobs.c.claim_id == bindparam("claim", type_=BigInteger))
    values: dict[str, Any] = {name: bindparam(f"new_{name}", type_=jobs.c[name].type) for name in given}
    values |= dict.fromkeys((*stamped, "updated_at"), NOW if clock is None else clock)
    if taken_back:
        values["attempts"] = jobs.c.attempts - taken_back
    return update(jobs).where(AMONG_IDS, met(held)).values(status=status, **values)


def _settled(conn: Connection, ids: Sequence[str], status: str, claim: int) -> set[str]:
    """Return the ids that this settle has already changed, without a start, rescue or cancel since."""
    query = select(jobs.c.id, jobs.c.status, jobs.c.claim_id).where(AMONG_IDS)
    rows = conn.execute(query, {"ids": ids})
    return {row.id for row in rows if tuple(row[1:]) == (status, claim)}
