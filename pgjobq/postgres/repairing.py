"""Repairing: jobs that no worker finds, because they came in or were changed without triggers."""

from __future__ import annotations

from dataclasses import dataclass

from pgjobq.postgres.database import Database


@dataclass(frozen=True, kw_only=True)
class Repaired:
    """Jobs that were placed in line; running ones that no claim held: given back, failed; and those left as held."""

    placed: int = 0
    given_back: int = 0
    failed: int = 0
    held: int = 0


def repair(database: Database, batch: int) -> Repaired:
    """Repair all, a batch in a transaction. Jobs that other transactions hold are left, and counted."""
    placed = given_back = failed = 0
    while True:
        some, back, spent, held = database.run(database.calls.repair_jobs(batch))
        placed, given_back, failed = placed + some, given_back + back, failed + spent
        if some + back + spent + held < batch or held == batch:
            return Repaired(placed=placed, given_back=given_back, failed=failed, held=held)
