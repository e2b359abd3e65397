"""Workers, their leases, and the rescue of the jobs of those that died."""

from __future__ import annotations

from datetime import datetime, timedelta

from pgjobq.models import utc_now
from pgjobq.rescued import MAX_CRASHES, tell_crashes
from pgjobq.storage.dynamodb.connection import Table
from pgjobq.storage.dynamodb.expressions import Change, Value
from pgjobq.storage.dynamodb.rows import Item, in_text, ready, running
from pgjobq.storage.dynamodb.settling import finished


class Leases:
    """The workers of the table meta. Leases use the clocks of the processes, so these must agree.

    The index may not show a job yet that a worker claimed just before it died or left. Therefore a worker is first
    marked as dead, checked again after another lease, and only then deleted.
    """

    def __init__(self, table: Table, lease: float) -> None:
        self._table, self._lease = table, lease

    def _until(self) -> str:
        return in_text(utc_now() + timedelta(seconds=self._lease))

    def enlist(self, worker_id: int, name: str) -> None:
        """Register a worker, with a lease that begins now."""
        values: dict[str, Value | None] = {"name": name, "started_at": in_text(utc_now()), "lease_until": self._until()}
        self._table.change(_key(worker_id), Change(to={**values, "worker_id": worker_id}), meta=True)

    def renew(self, worker_id: int) -> bool:
        """Renew the worker's lease from now. Return False if it is marked dead or not registered."""
        change = Change(to={"lease_until": self._until()}, when={"worker_id": worker_id}, absent=["dead_since"])
        return self._table.change(_key(worker_id), change, meta=True)[0]

    def retire(self, worker_id: int) -> None:
        """Mark the worker as dead, because it has left."""
        dead = {"dead_since": in_text(utc_now()), "lease_until": self._until()}
        self._table.change(_key(worker_id), Change(to=dead, when={"worker_id": worker_id}), meta=True)

    def rescue(self) -> int:
        """Put the jobs of workers whose lease has expired back in line. Return how many."""
        now = in_text(utc_now())
        return sum(self._bury(worker) for worker in self._table.workers() if worker["lease_until"] <= now)

    def _bury(self, worker: Item) -> int:
        key, seen = str(worker["id"]), {"lease_until": str(worker["lease_until"])}
        dead = {"dead_since": worker.get("dead_since") or in_text(utc_now()), "lease_until": self._until()}
        # Change the worker first, if it is still expired. A worker that lives notices it at its next renewal.
        if not self._table.change(key, Change(to=dead, when=seen), meta=True)[0]:
            return 0
        entries = list(self._table.lane(running(worker["worker_id"])))
        if not entries and "dead_since" in worker:
            self._table.delete(key, Change(when={"lease_until": dead["lease_until"]}), meta=True)
        given = dict(one for one in self._table.each(self._give_away, entries) if one is not None)
        if given:
            renewed = datetime.fromisoformat(worker["lease_until"]) - timedelta(seconds=self._lease)
            tell_crashes(worker["worker_id"], worker.get("name"), (utc_now() - renewed).total_seconds(), given)
        return len(given)

    def _give_away(self, entry: Item) -> tuple[str, int] | None:
        """Return the job's id and its crashes, or None if it was settled in the meantime."""
        job = self._table.get(entry["id"])  # the index does not have its crashes
        if job is None:
            return None
        before = job.get("crashes", 0)
        told = f"try {job['attempts'] - before} of {job['max_retries'] + 1}, crash {before + 1} of {MAX_CRASHES}"
        error = f"worker {entry['worker_id']} stopped or died while it held this job ({told})"
        held = {"status": "running", "attempts": entry["attempts"], "worker_id": entry["worker_id"]}
        values: dict[str, Value | None]
        if before + 1 >= MAX_CRASHES:
            values = finished("failed")
            values["failed_at"] = values["finished_at"]
            error += "; it failed because of its crashes"
        else:
            values = {"status": "pending", "updated_at": in_text(utc_now()), "lane": ready(entry["queue"])}
        change = Change(to={**values, "error": error, "crashes": before + 1}, when=held)
        return (entry["id"], before + 1) if self._table.change(entry["id"], change)[0] else None


def _key(worker_id: int) -> str:
    return f"worker#{worker_id}"
