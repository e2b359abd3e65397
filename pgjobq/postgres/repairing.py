"""Repair jobs that no worker finds because they were added or changed while the triggers were off."""

from __future__ import annotations

from dataclasses import dataclass

from pgjobq.postgres.database import Database


@dataclass(frozen=True, kw_only=True)
class Repaired:
    """The result of a repair: how many jobs it changed and how many it left.

    placed: pending jobs that got a place in line. given_back, failed: running jobs without a claim that are pending or
    failed now. held: jobs that were left because other transactions have locked them.
    """

    placed: int = 0
    given_back: int = 0
    failed: int = 0
    held: int = 0


def repair(database: Database, batch: int) -> Repaired:
    """Repair all misplaced jobs, one batch per transaction. Leave and count the jobs that others have locked."""
    placed = given_back = failed = 0
    while True:
        some, back, spent, held = database.run(database.calls.repair_jobs(batch))
        placed, given_back, failed = placed + some, given_back + back, failed + spent
        if some + back + spent + held < batch or held == batch:
            return Repaired(placed=placed, given_back=given_back, failed=failed, held=held)
