"""Settle starts with one script, while their workers still hold them."""

from __future__ import annotations

from collections.abc import Sequence

from pgjobq.outcomes import Completed, Failed, Outcome, Released, Retried
from pgjobq.storage.errortext import storable_error
from pgjobq.storage.holds import claim_of
from pgjobq.storage.redis.connection import Server
from pgjobq.storage.redis.rows import delay_of

MAX_ERROR = 2**17  # bytes


def settle(server: Server, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Settle starts. Return the lost ones, whose jobs stay unchanged."""
    if not outcomes:
        return []
    return [outcomes[n] for n in server.call("settle", *map(_outcome_row, outcomes))]


def _outcome_row(outcome: Outcome) -> bytes:
    """Return the row of an outcome for settle.lua."""
    job, delay, error, result = outcome.job, 0.0, None, None
    match outcome:
        case Completed():
            what, result = "completed", outcome.result
        case Failed():
            what, error = "failed", outcome.error
        case Retried():
            what, delay, error = "retried", outcome.delay, outcome.error
        case Released():
            what, delay = "released", outcome.delay
    told = "" if error is None else "=" + storable_error(error, MAX_ERROR)
    return f"{what}\0{job.id}\0{claim_of(job)}\0{job.worker_id}\0{delay_of(delay)}\0{told}\0{result or ''}".encode()
