"""Settle outcomes on one connection, and return those whose jobs were lost."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from pgjobq.models import Job
from pgjobq.outcomes import Completed, Failed, Outcome, Released, Retried
from pgjobq.postgres.calls import Calls
from pgjobq.postgres.fetching import PlainCursor, fetch
from pgjobq.postgres.pool import Connection
from pgjobq.postgres.statements import FunctionCall

Start = tuple[str, int | None]  # job id and claim


def settle(
    conn: Connection,
    calls: Calls,
    outcomes: Sequence[Outcome],
    claims: Mapping[int, list[int]],
    *,
    keep: bool,
) -> list[Outcome]:
    """Settle outcomes in one transaction. Return those whose job was lost.

    claims: for each worker, the claims that the database may forget. keep: keep completed jobs rather than delete them.
    """
    completed = [outcome for outcome in outcomes if isinstance(outcome, Completed)]
    others = [outcome for outcome in outcomes if not isinstance(outcome, Completed)]
    if others:
        with conn.transaction():
            lost = _settle_others(conn, calls, others)
            lost |= _complete(conn, calls, completed, claims, keep)
    else:
        lost = _complete(conn, calls, completed, claims, keep)
    return [outcome for outcome in outcomes if (outcome.job.id, outcome.job.claim_id) in lost] if lost else []


def settle_free(
    conn: Connection, calls: Calls, outcomes: Sequence[Outcome], *, keep: bool
) -> tuple[list[Outcome], list[Outcome]]:
    """Settle the outcomes whose jobs no other transaction has locked. Return those left, and those that were lost."""
    with conn.transaction():
        held = fetch(conn, calls.held_jobs([outcome.job.id for outcome in outcomes]))
        free = [outcome for outcome in outcomes if outcome.job.id not in held]
        lost = settle(conn, calls, free, {}, keep=keep)
    return [outcome for outcome in outcomes if outcome.job.id in held], lost


def _complete(
    conn: Connection, calls: Calls, completed: Sequence[Completed], claims: Mapping[int, list[int]], keep: bool
) -> set[Start]:
    lost: set[Start] = set()
    # There are two workers only if this process got a new worker id when it reconnected.
    for worker_id in {outcome.job.worker_id for outcome in completed} | set(claims):
        mine = [outcome.job for outcome in completed if outcome.job.worker_id == worker_id]
        results = [outcome.result for outcome in completed if outcome.job.worker_id == worker_id]
        finished = claims.get(worker_id, []) if worker_id is not None else []
        ids, claim_ids = [job.id for job in mine], [job.claim_id for job in mine]
        gone = fetch(conn, calls.complete_jobs(worker_id, ids, claim_ids, finished, keep, results_of(results)))
        if gone:
            lost.update((job.id, job.claim_id) for job in mine if job.id in gone)
    return lost


def _settle_others(conn: Connection, calls: Calls, outcomes: Sequence[Outcome]) -> set[Start]:
    asked: list[tuple[Job, FunctionCall[bool], psycopg.Cursor[Any]]] = []
    encoding = database_encoding(conn)
    with conn.pipeline():  # one round trip for all outcomes
        for outcome in outcomes:
            job = outcome.job
            match outcome:
                case Failed(_, error, ended):
                    call = calls.fail_job(job.id, job.claim_id, storable(error, encoding), ended)
                case Retried(_, delay, error, ended):
                    call = calls.retry_held_job(job.id, delay, storable(error, encoding), job.claim_id, ended)
                case Released(_, delay, ran):
                    call = calls.release_job(job.id, job.claim_id, delay, ran)
                case Completed():
                    continue
            asked.append((job, call, PlainCursor(conn).execute(call.statement, call.arguments)))
        still_held = [(job, call.read(cursor.fetchall())) for job, call, cursor in asked]
    return {(job.id, job.claim_id) for job, held in still_held if not held}


def results_of(results: list[str | None]) -> list[str | None] | None:
    """Return the results, or None if there are none, so that complete_jobs need not look at them."""
    return results if results.count(None) < len(results) else None


def storable(text: str | None, encoding: str = "utf8") -> str | None:
    """Return the text in a form that PostgreSQL can store, because an error message may contain any character."""
    if text is None:
        return None
    return text.replace("\0", "\\0").encode(encoding, errors="backslashreplace").decode(encoding)


def database_encoding(conn: Connection) -> str:
    """Return Python's name of the database's encoding, or ascii if Python does not know that encoding."""
    name = conn.info.parameter_status("server_encoding") or ""
    try:
        return "utf8" if name == "SQL_ASCII" else codecs.lookup(name).name
    except LookupError:
        return "ascii"
