"""Claim jobs in the order of the index by_lane, each with an update that fails if another worker was faster."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import islice

from pgjobq.models import Job, utc_now
from pgjobq.storage.dynamodb.connection import PAGE, Table
from pgjobq.storage.dynamodb.expressions import Change, Value
from pgjobq.storage.dynamodb.rows import SCHEDULED, Item, in_text, promoted, ready, running, stored_job
from pgjobq.storage.holds import Claimant

PROMOTED_AT_ONCE = 1000  # jobs; later claims promote the rest
SPARE = 20  # extra entries to read, because other workers may take some


def promote(table: Table) -> int:
    """Move due scheduled jobs to the lane of their queue. Return how many."""

    def move(entry: Item) -> bool:
        seen = {"lane": SCHEDULED, "place": entry["place"]}
        return table.change(entry["id"], Change(to=promoted(entry), when=seen))[0]

    due = islice(table.lane(SCHEDULED, until=in_text(utc_now()) + "~"), PROMOTED_AT_ONCE)  # "~": past what follows it
    moved = 0
    while some := list(islice(due, PAGE)):
        moved += sum(table.each(move, some))
    return moved


def claim(
    table: Table, worker_id: Claimant, limit: int, queues: Sequence[str] | None, except_types: Sequence[str]
) -> list[Job]:
    """Claim up to limit due jobs of these queues (None: all) and not of these types for the worker, in order."""

    def start(entry: Item) -> Job | None:
        now = in_text(utc_now())
        to: dict[str, Value | None] = {"status": "running", "lane": running(worker_id), "worker_id": int(worker_id)}
        to |= {"claim": worker_id.claim, "settled": None, "started_at": now, "updated_at": now}
        seen = {"lane": entry["lane"], "place": entry["place"]}
        change = Change(to=to, add={"attempts": 1}, when=seen)
        changed, item = table.change(entry["id"], change)
        # The client repeats an update whose answer was lost, and may then find its own change.
        if item is not None and (changed or (item.get("claim") == worker_id.claim and item["status"] == "running")):
            return stored_job(item)
        return None

    names = table.queues() if queues is None else dict.fromkeys(queues)
    lanes = [table.lane(ready(name), page=min(limit, PAGE) + SPARE) for name in names]
    merged = heapq.merge(*lanes, key=lambda entry: str(entry["place"]))
    entries = (entry for entry in merged if entry["type"] not in except_types)
    claimed: list[Job] = []
    while len(claimed) < limit and (some := list(islice(entries, limit - len(claimed)))):
        claimed += [job for job in table.each(start, some) if job is not None]
    return claimed
