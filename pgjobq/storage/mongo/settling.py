"""The updates that settle starts. Each applies only if its worker still holds the job."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from pymongo import UpdateMany, UpdateOne

from pgjobq.models import Job
from pgjobq.outcomes import Completed, Failed, Outcome, Released, Retried
from pgjobq.storage.errortext import storable_error
from pgjobq.storage.holds import claim_of
from pgjobq.storage.mongo.connection import milliseconds
from pgjobq.storage.mongo.rows import MAX_ERROR, WHOLE, Document
from pgjobq.storage.mongo.schema import BY_ID

Update = UpdateOne | UpdateMany


def mark(outcome: Outcome) -> str:
    """Return the value of a job's field `settled` after this outcome."""
    return f"{claim_of(outcome.job)}/{type(outcome).__name__.lower()}"


def updates(outcomes: Sequence[Outcome]) -> list[Update]:
    """Return the updates. Jobs with the same change share one update."""
    found: list[Update] = []
    same: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        match outcome:
            case Completed(job, result) if job.crashes or result is not None:
                change = _finished("completed", outcome, error=None)
                change["$set"] |= {"crashes": 0, "result": result}
                found.append(_one(job, change))
            case Completed() | Released(_, 0):
                same[mark(outcome)].append(outcome)
            case Failed(job, error):
                change = _finished("failed", outcome, error=storable_error(error, MAX_ERROR))
                change["$currentDate"]["failed_at"] = True
                if job.crashes:
                    change["$set"]["crashes"] = 0
                    change["$inc"] = {"attempts": -job.crashes}
                found.append(_one(job, change))
            case Retried(job, delay, error):
                kept: Document = {} if error is None else {"error": {"$literal": storable_error(error, MAX_ERROR)}}
                found.append(_one(job, [due_after(delay, settled=mark(outcome), **kept, **cleared())]))
            case Released(job, delay):
                change = due_after(delay, settled=mark(outcome), attempts={"$subtract": ["$attempts", 1]})
                found.append(_one(job, [change]))
    for some in same.values():
        change = _finished("completed", some[0], error=None) if isinstance(some[0], Completed) else _released(some[0])
        held = _held([outcome.job for outcome in some])
        # The driver itself repeats an update of one document when the connection breaks.
        kind = UpdateOne if len(some) == 1 else UpdateMany
        found.append(kind(held, change, hint=BY_ID))
    return found


def _one(job: Job, change: Document | list[Document]) -> UpdateOne:
    return UpdateOne(_held([job]), change, hint=BY_ID)


def due_after(delay: float, **values: Any) -> Document:
    """Return the stage of an update that makes a job pending, due this many seconds after the server's time."""
    due = {"$add": ["$$NOW", milliseconds(delay)]}
    return {
        "$set": {
            "status": "pending",
            "due": due,
            "sub": WHOLE,
            "execute_at": due,
            "updated_at": "$$NOW",
            "finished_at": "$$REMOVE",
            "failed_at": "$$REMOVE",
            **values,
        }
    }


def cleared() -> Document:
    """Return the change of the counts at a clean end: starts that ended with a crash do not count as tries."""
    crashes = {"$ifNull": ["$crashes", 0]}
    return {"attempts": {"$subtract": ["$attempts", crashes]}, "crashes": 0}


def _held(jobs: Sequence[Job]) -> Document:
    first = jobs[0]
    ids = [job.id for job in jobs]
    return {
        "_id": ids[0] if len(ids) == 1 else {"$in": ids},
        "status": "running",
        "claim": claim_of(first),
    }


def _finished(status: str, outcome: Outcome, error: str | None) -> Document:
    return {
        "$set": {"status": status, "error": error, "settled": mark(outcome)},
        "$currentDate": {"finished_at": True, "updated_at": True},
    }


def _released(outcome: Outcome) -> Document:
    return {
        "$set": {"status": "pending", "settled": mark(outcome)},
        "$inc": {"attempts": -1},
        "$currentDate": {"updated_at": True},
    }
