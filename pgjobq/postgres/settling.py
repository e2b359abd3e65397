"""Settling on one connection: outcomes in, the lost ones out."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from pgjobq.models import Job
from pgjobq.outcomes import Completed, Failed, Outcome, Released, Retried
from pgjobq.postgres.fetching import PlainCursor, fetch
from pgjobq.postgres.pool import Connection

Start = tuple[str, int | None]  # job id and claim


def settle(
    conn: Connection,
    statements: Mapping[str, bytes],
    outcomes: Sequence[Outcome],
    claims: Mapping[int, list[int]],
    *,
    keep: bool,
) -> list[Outcome]:
    """Settle outcomes in one transaction; returns those whose job was lost.

    claims: for each worker, the claims that the database may forget. keep: completed jobs, or delete them.
    """
    completed = [outcome.job for outcome in outcomes if isinstance(outcome, Completed)]
    others = [outcome for outcome in outcomes if not isinstance(outcome, Completed)]
    if others:
        with conn.transaction():
            lost = _settle_others(conn, statements, others)
            lost |= _complete(conn, statements, completed, claims, keep)
    else:
        lost = _complete(conn, statements, completed, claims, keep)
    return [outcome for outcome in outcomes if (outcome.job.id, outcome.job.claim_id) in lost] if lost else []


def settle_free(
    conn: Connection, statements: Mapping[str, bytes], outcomes: Sequence[Outcome], *, keep: bool
) -> tuple[list[Outcome], list[Outcome]]:
    """Settle those outcomes whose jobs no other transaction holds; those that are left, and those that were lost."""
    with conn.transaction():
        held = {row[0] for row in fetch(conn, statements["held_jobs"], [[outcome.job.id for outcome in outcomes]])}
        free = [outcome for outcome in outcomes if outcome.job.id not in held]
        lost = settle(conn, statements, free, {}, keep=keep)
    return [outcome for outcome in outcomes if outcome.job.id in held], lost


def _complete(
    conn: Connection, statements: Mapping[str, bytes], jobs: Sequence[Job], claims: Mapping[int, list[int]], keep: bool
) -> set[Start]:
    lost: set[Start] = set()
    # One worker, nearly always: another only after a reconnect gave this process a new id.
    for worker_id in {job.worker_id for job in jobs} | set(claims):
        mine = [job for job in jobs if job.worker_id == worker_id]
        finished = claims.get(worker_id, []) if worker_id is not None else []
        arguments = [worker_id, [job.id for job in mine], [job.claim_id for job in mine], finished, keep]
        gone = {row[0] for row in fetch(conn, statements["complete_jobs"], arguments)}
        if gone:
            lost.update((job.id, job.claim_id) for job in mine if job.id in gone)
    return lost


def _settle_others(conn: Connection, statements: Mapping[str, bytes], outcomes: Sequence[Outcome]) -> set[Start]:
    asked: list[tuple[Job, psycopg.Cursor[Any]]] = []
    encoding = database_encoding(conn)
    with conn.pipeline():  # one round trip for them all
        for outcome in outcomes:
            job = outcome.job
            arguments: list[Any]
            match outcome:
                case Failed(_, error):
                    name, arguments = "fail_job", [job.id, job.claim_id, storable(error, encoding)]
                case Retried(_, delay, error):
                    name = "retry_held_job"
                    arguments = [job.id, float(delay), storable(error, encoding), job.claim_id]
                case Released(_, delay):
                    name, arguments = "release_jobs", [[job.id], [job.claim_id], float(delay)]
                case Completed():
                    continue
            cursor = PlainCursor(conn)
            asked.append((job, cursor.execute(statements[name], arguments)))
        answers = [(job, cursor.fetchall()) for job, cursor in asked]
    # fail_job and retry_job say false when the job was lost; release_jobs names it.
    return {(job.id, job.claim_id) for job, rows in answers if rows and rows[0][0] in (False, job.id)}


def storable(text: str | None, encoding: str = "utf8") -> str | None:
    """A text that PostgreSQL can store: an error message may hold anything."""
    if text is None:
        return None
    return text.replace("\0", "\\0").encode(encoding, errors="backslashreplace").decode(encoding)


def database_encoding(conn: Connection) -> str:
    """Python's name of the encoding in which the database stores text; ascii when Python does not know it."""
    name = conn.info.parameter_status("server_encoding") or ""
    try:
        return "utf8" if name == "SQL_ASCII" else codecs.lookup(name).name
    except LookupError:
        return "ascii"
