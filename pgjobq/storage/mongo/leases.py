"""Workers, their leases, and the rescue of the jobs of those that died."""

from __future__ import annotations

from datetime import timedelta

from pymongo.errors import WriteError

from pgjobq.events import EventLog
from pgjobq.rescued import MAX_CRASHES, tell_crashes
from pgjobq.storage.mongo.connection import Database, milliseconds
from pgjobq.storage.mongo.rows import Document

log = EventLog("pgjobq.storage")


class Leases:
    """The collection of workers. Leases are in the server's time."""

    def __init__(self, database: Database, lease: float) -> None:
        self._database, self._lease = database, lease
        self._told: set[str] = set()  # jobs that could not be given away and were logged
        self._from_now: Document = {"lease_until": {"$add": ["$$NOW", milliseconds(lease)]}}

    def enlist(self, worker_id: int, name: str) -> None:
        """Register a worker, with a lease that begins now."""
        worker = {"name": name, "started_at": "$$NOW", **self._from_now}
        self._database.workers.update_one({"_id": worker_id}, [{"$set": worker}], upsert=True)

    def renew(self, worker_id: int) -> bool:
        """Renew the worker's lease from now. Return False if it is not registered any more."""
        update = [{"$set": self._from_now}]
        return self._database.workers.update_one({"_id": worker_id}, update).matched_count == 1

    def retire(self, worker_id: int) -> None:
        """Delete the worker's registration."""
        self._database.workers.delete_one({"_id": worker_id})

    def rescue(self) -> int:
        """Put the jobs of workers back in line that are not registered or whose lease has expired. Return how many."""
        jobs, workers = self._database.jobs, self._database.workers
        # Read the holders first. A worker registers before it holds a job, so a holder that is not found below is gone.
        holders = set(jobs.distinct("worker_id", {"status": "running"}))
        now = self._database.now()
        known = {worker["_id"]: worker for worker in workers.find({}, {"lease_until": 1, "name": 1})}
        gone = holders - set(known)
        for worker_id, worker in known.items():
            # Delete the registration first, if it is still expired. A worker that lives notices it at its next renewal.
            expired = {"_id": worker_id, "lease_until": {"$lte": now}}
            if worker["lease_until"] <= now and workers.delete_one(expired).deleted_count:
                gone.add(worker_id)
        rescued = 0
        for worker_id in gone:
            crashes = self._give_away(worker_id)
            if crashes:
                name, until = (known.get(worker_id, {}).get(field) for field in ("name", "lease_until"))
                stood = None if until is None else (now - until + timedelta(seconds=self._lease)).total_seconds()
                tell_crashes(worker_id, name, stood, crashes)
            rescued += len(crashes)
        return rescued

    def _give_away(self, worker_id: int) -> dict[str, int]:
        """Give away the worker's jobs. Return their ids and their crashes."""
        before = {"$ifNull": ["$crashes", 0]}
        crash = {"$add": [before, 1]}
        too_often = {"$gte": [crash, MAX_CRASHES]}
        ended_at = {"$cond": [too_often, "$$NOW", "$$REMOVE"]}
        told = [
            *(" (try ", {"$toString": {"$subtract": ["$attempts", before]}}),
            *(" of ", {"$toString": {"$add": ["$max_retries", 1]}}),
            *(", crash ", {"$toString": crash}, f" of {MAX_CRASHES})"),
            {"$cond": [too_often, "; it failed because of its crashes", ""]},
        ]
        change = {
            "status": {"$cond": [too_often, "failed", "pending"]},
            "error": {"$concat": [f"worker {worker_id} stopped or died while it held this job", *told]},
            "crashes": crash,
            "failed_at": ended_at,
            "finished_at": ended_at,
            "updated_at": "$$NOW",
        }
        held = {"status": "running", "worker_id": worker_id}
        jobs = self._database.jobs
        found = {job["_id"]: job.get("crashes", 0) + 1 for job in jobs.find(held, {"crashes": 1})}
        try:
            # Jobs that were settled in the meantime are not included.
            if jobs.update_many(held, [{"$set": change}]).modified_count == len(found):
                return found
            ended = {"_id": {"$in": list(found)}, "worker_id": worker_id, "crashes": {"$gt": 0}}
            return {job["_id"]: job["crashes"] for job in jobs.find(ended, {"crashes": 1})}
        except WriteError:
            return {
                job_id: crashes
                for job_id, crashes in found.items()
                if self._give_away_one({**held, "_id": job_id}, change)
            }

    def _give_away_one(self, held: Document, change: Document) -> int:
        """Give away one job, so that a job that the collection's validator refuses does not block the others."""
        try:
            return self._database.jobs.update_one(held, [{"$set": change}]).modified_count
        except WriteError as error:
            if held["_id"] not in self._told:
                self._told.add(held["_id"])
                log.error("job.not_rescued", extra={"job_id": held["_id"], "error": str(error)})
            return 0
