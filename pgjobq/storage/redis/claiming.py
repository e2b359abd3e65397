"""Claim the next due jobs with one script."""

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
    """Claim up to limit due jobs for this worker. Return them and the seconds until the next scheduled job, or None.

    number: the number of this claim among the worker's claims, which take turns. bell: the bell to ring when there is a
    job, or "".
    """
    names = dict.fromkeys(queues or ())
    settings = [int(worker_id), number, limit, delay_of(lease), MAX_REPLY, bell, worker_id.claim]
    next_due, *rows = server.call("claim", *settings, len(except_types), *except_types, *names)
    return [job_of(row) for row in rows], int(next_due) / 1e6 if next_due else None
