"""Settling on one connection: outcomes in, the lost ones out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from pgjobq.models import Job
from pgjobq.postgres.pool import Connection
from pgjobq.storage.base import Completed, Failed, Outcome, Released, Retried

Start = tuple[str, int]  # job id and attempts


def settle(
    conn: Connection,
    statements: Mapping[str, bytes],
    outcomes: Sequence[Outcome],
    batches: Mapping[int, list[int]],
    *,
    keep: bool,
) -> list[Outcome]:
    """Settle outcomes in one transaction; returns those whose job was lost.

    batches: for each worker, the batches that the database may forget. keep: completed jobs, or delete them.
    """
    completed = [outcome.job for outcome in outcomes if isinstance(outcome, Completed)]
    others = [outcome for outcome in outcomes if not isinstance(outcome, Completed)]
    if others:
        with conn.transaction():
            lost = _settle_others(conn, statements, others)
            lost |= _complete(conn, statements, completed, batches, keep)
    else:
        lost = _complete(conn, statements, completed, batches, keep)
    return [outcome for outcome in outcomes if (outcome.job.id, outcome.job.attempts) in lost] if lost else []


def _complete(
    conn: Connection, statements: Mapping[str, bytes], jobs: Sequence[Job], batches: Mapping[int, list[int]], keep: bool
) -> set[Start]:
    lost: set[Start] = set()
    # One worker, nearly always: another only after a reconnect gave this process a new id.
    for worker_id in {job.worker_id for job in jobs} | set(batches):
        mine = [job for job in jobs if job.worker_id == worker_id]
        ids, attempts = [job.id for job in mine], [job.attempts for job in mine]
        finished = batches.get(worker_id, []) if worker_id is not None else []
        arguments = [worker_id, ids, attempts, finished, keep]
        gone = {row[0] for row in fetch(conn, statements["complete_jobs"], arguments)}
        if gone:
            lost.update((job.id, job.attempts) for job in mine if job.id in gone)
    return lost


def _settle_others(conn: Connection, statements: Mapping[str, bytes], outcomes: Sequence[Outcome]) -> set[Start]:
    asked: list[tuple[Job, psycopg.Cursor[Any]]] = []
    with conn.pipeline():  # one round trip for them all
        for outcome in outcomes:
            job = outcome.job
            arguments: list[Any]
            match outcome:
                case Failed(_, error):
                    name, arguments = "fail_job", [job.worker_id, job.id, job.attempts, storable(error)]
                case Retried(_, delay, error):
                    name = "retry_held_job"
                    arguments = [job.id, float(delay), storable(error), job.worker_id, job.attempts]
                case Released(_, delay):
                    name, arguments = "release_jobs", [job.worker_id, [job.id], [job.attempts], float(delay)]
                case Completed():
                    continue
            cursor = psycopg.Cursor(conn, row_factory=psycopg.rows.tuple_row)
            asked.append((job, cursor.execute(statements[name], arguments)))
        answers = [(job, cursor.fetchall()) for job, cursor in asked]
    # fail_job and retry_job say false when the job was lost; release_jobs names it.
    return {(job.id, job.attempts) for job, rows in answers if rows and rows[0][0] in (False, job.id)}


def fetch(conn: Connection, statement: bytes, arguments: Sequence[Any], *, binary: bool = False) -> list[Any]:
    """The rows of a statement, as tuples whatever the connection's row factory. binary: in the binary format."""
    with psycopg.Cursor(conn, row_factory=psycopg.rows.tuple_row) as cursor:
        return cursor.execute(statement, arguments, binary=binary).fetchall()


def storable(text: str | None) -> str | None:
    """A text that PostgreSQL can store: an error message may hold anything."""
    return None if text is None else text.replace("\0", "\\0").encode(errors="backslashreplace").decode()
