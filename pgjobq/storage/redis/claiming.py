"""Claiming: the next due jobs, started by one script."""

from __future__ import annotations

from collections.abc import Sequence

from pgjobq.models import Job
from pgjobq.storage.holds import Claimant
from pgjobq.storage.redis.connection import MAX_REPLY, Server
from pgjobq.storage.redis.rows import delay_of, job_of


def claim(
    server: Server,
    worker_id: Claimant,
    limit: int,
    queues: Sequence[str] | None,
    except_types: Sequence[str],
    *,
    number: int,
    lease: float,
    bell: str,
) -> tuple[list[Job], float | None]:
    """Claim up to limit due jobs for this worker; these, and in how many seconds the next falls due, if one does.

    number: of this claim among the worker's, which take turns. bell: to be rung when there is a job; "" for none.
    """
    names = dict.fromkeys(queues or ())
    settings = [int(worker_id), number, limit, delay_of(lease), MAX_REPLY, bell, worker_id.claim]
    next_due, *rows = server.call("claim", *settings, len(except_types), *except_types, *names)
    return [job_of(row) for row in rows], int(next_due) / 1e6 if next_due else None
