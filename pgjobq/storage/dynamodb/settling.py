"""The changes that settle starts. Each applies only if its worker still holds the job."""

from __future__ import annotations

from datetime import timedelta

from pgjobq.models import utc_now
from pgjobq.outcomes import Completed, Failed, Outcome, Released, Retried
from pgjobq.storage.dynamodb.connection import Table
from pgjobq.storage.dynamodb.expressions import Change, Value
from pgjobq.storage.dynamodb.rows import MAX_ERROR, Clock, in_text, position, ready, seq_text
from pgjobq.storage.errortext import storable_error
from pgjobq.storage.holds import claim_of


def settle(table: Table, outcome: Outcome, clock: Clock) -> bool:
    """Settle a start. Return False if it was lost, but not if it was settled in the same way before."""
    job = outcome.job
    mark = f"{claim_of(job)}/{type(outcome).__name__.lower()}"
    held: dict[str, Value] = {"status": "running", "claim": claim_of(job)}
    to, back = _changes(outcome, clock)
    if job.crashes and not isinstance(outcome, Released):  # a clean end: starts that ended with a crash were no tries
        to = {**to, "crashes": 0}
        back = 0 if isinstance(outcome, Completed) else job.crashes
    change = Change(to={**to, "settled": mark}, add={"attempts": -back} if back else {}, when=held)
    changed, item = table.change(job.id, change)
    return changed or (item is not None and item.get("settled") == mark)


def finished(status: str) -> dict[str, Value | None]:
    """Return the new values of a job that is finished."""
    now = in_text(utc_now())
    return {"status": status, "finished_at": now, "updated_at": now, "lane": None, "place": None}


def pending_after(queue: str, priority: int, delay: float, clock: Clock) -> dict[str, Value | None]:
    """Return the new values of a job that is pending again after this many seconds."""
    now = utc_now()
    due = now + timedelta(seconds=delay)
    return {
        "status": "pending",
        "execute_at": in_text(due),
        "updated_at": in_text(now),
        "finished_at": None,
        "failed_at": None,
        **position(queue, priority, due, seq_text(clock.next()), now),
    }


def _changes(outcome: Outcome, clock: Clock) -> tuple[dict[str, Value | None], int]:
    """Return the new values, and the number of starts to subtract from attempts."""
    match outcome:
        case Completed(_, result):
            return {**finished("completed"), "error": None, "result": result}, 0
        case Failed(_, error):
            values = finished("failed")
            return {**values, "failed_at": values["finished_at"], "error": storable_error(error, MAX_ERROR)}, 0
        case Retried(job, delay, error):
            kept: dict[str, Value | None] = {} if error is None else {"error": storable_error(error, MAX_ERROR)}
            return {**pending_after(job.queue, job.priority, delay, clock), **kept}, 0
        case Released(job, 0):
            # The job keeps its place in line.
            return {"status": "pending", "updated_at": in_text(utc_now()), "lane": ready(job.queue)}, 1
        case Released(job, delay):
            return pending_after(job.queue, job.priority, delay, clock), 1
