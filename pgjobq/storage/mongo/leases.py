"""Workers, their leases, and the rescue of the jobs of those that died."""

from __future__ import annotations

import logging

from pymongo.errors import WriteError

from pgjobq.storage.mongo.connection import Database, milliseconds
from pgjobq.storage.mongo.rows import Document

log = logging.getLogger("pgjobq.storage")


class Leases:
    """The collection of workers. A lease is in the server's time."""

    def __init__(self, database: Database, lease: float) -> None:
        self._database = database
        self._told: set[str] = set()  # jobs that could not be given away, and that the log has named
        self._from_now: Document = {"lease_until": {"$add": ["$$NOW", milliseconds(lease)]}}

    def enlist(self, worker_id: int, name: str) -> None:
        """Register a worker, with a lease from now."""
        worker = {"name": name, "started_at": "$$NOW", **self._from_now}
        self._database.workers.update_one({"_id": worker_id}, [{"$set": worker}], upsert=True)

    def renew(self, worker_id: int) -> bool:
        """Extend its lease from now; False when it is not registered any more."""
        update = [{"$set": self._from_now}]
        return self._database.workers.update_one({"_id": worker_id}, update).matched_count == 1

    def retire(self, worker_id: int) -> None:
        """Forget it."""
        self._database.workers.delete_one({"_id": worker_id})

    def rescue(self) -> int:
        """Give away the jobs of workers that are not registered, or whose lease ran out; how many."""
        jobs, workers = self._database.jobs, self._database.workers
        # First: a worker is registered before it holds a job, so who holds one and is not found below is gone.
        holders = set(jobs.distinct("worker_id", {"status": "running"}))
        now = self._database.now()
        leases = {worker["_id"]: worker["lease_until"] for worker in workers.find({}, {"lease_until": 1})}
        gone = holders - set(leases)
        for worker_id, until in leases.items():
            # It goes first, on condition: should it live, it finds out when it renews its lease.
            expired = {"_id": worker_id, "lease_until": {"$lte": now}}
            if until <= now and workers.delete_one(expired).deleted_count:
                gone.add(worker_id)
        return sum(self._give_away(worker_id) for worker_id in gone)

    def _give_away(self, worker_id: int) -> int:
        used_up = {"$gt": ["$attempts", "$max_retries"]}
        ended_at = {"$cond": [used_up, "$$NOW", "$$REMOVE"]}
        tries = ["(try ", {"$toString": "$attempts"}, " of ", {"$toString": {"$add": ["$max_retries", 1]}}, ")"]
        change = {
            "status": {"$cond": [used_up, "failed", "pending"]},
            "error": {"$concat": [f"worker {worker_id} stopped or died while it held this job ", *tries]},
            "failed_at": ended_at,
            "finished_at": ended_at,
            "updated_at": "$$NOW",
        }
        held = {"status": "running", "worker_id": worker_id}
        try:
            return self._database.jobs.update_many(held, [{"$set": change}]).modified_count
        except WriteError:
            found = self._database.jobs.find(held, {"_id": 1})
            return sum(self._give_away_one({**held, **job}, change) for job in found)

    def _give_away_one(self, held: Document, change: Document) -> int:
        """The same for one job: one that the collection's validator refuses holds up no other."""
        try:
            return self._database.jobs.update_one(held, [{"$set": change}]).modified_count
        except WriteError as error:
            if held["_id"] not in self._told:
                self._told.add(held["_id"])
                log.error("job.not_rescued", extra={"job_id": held["_id"], "error": str(error)})
            return 0
