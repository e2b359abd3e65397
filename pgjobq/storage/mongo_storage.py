"""MongoStorage: the storage on MongoDB."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from pgjobq.arrival import ArrivalOrder, arriving
from pgjobq.errors import DuplicateJob
from pgjobq.models import Job, JobStatus, NewJob
from pgjobq.outcomes import Outcome
from pgjobq.storage.holds import Claimant
from pgjobq.storage.leased import LeasedStorage
from pgjobq.storage.mongo.claiming import claim
from pgjobq.storage.mongo.connection import Database
from pgjobq.storage.mongo.enqueueing import insert_all, insert_unknown
from pgjobq.storage.mongo.errors import duplicate_id
from pgjobq.storage.mongo.leases import Leases
from pgjobq.storage.mongo.rows import MAX_RESULT, Document, arrived_document, new_document, stored_job
from pgjobq.storage.mongo.schema import HOLDERS
from pgjobq.storage.mongo.settling import cleared, due_after, mark, updates

ALL = [str(status) for status in JobStatus]


class MongoStorage(LeasedStorage):
    """Jobs in a collection of MongoDB >= 4.4. The indexes are created at the first use.

    Pass a URI, or your own pymongo MongoClient. database: by default the database in the URI, or jobqueue if the URI
    has none or names admin. collection: the collection of jobs; NAME_workers and NAME_meta are created beside it.
    timeout: seconds to find a server, to connect, and to wait for a majority; the URI overrides it. lease,
    poll_interval: see LeasedStorage.

    A job's data is a document, which you can query. Data that BSON cannot store (numbers beyond 64 bits, keys with a
    dot or dollar, nesting deeper than 90) is stored as JSON text. A job has at most 16 MB. Times come from the server's
    clock, in milliseconds. execute_at keeps its microseconds, and no job starts early.

    Limits of MongoDB: enqueue_many adds all or none on a replica set or a sharded cluster. A standalone server has no
    transactions. There, a process that dies during the call leaves a part of the jobs, and if an id of the batch
    exists, another job of the batch may run before it is removed. Writes wait for a majority of a replica set. With
    your own write concern w=1, or on a standalone server without a journal, a failover or crash may undo a completion,
    so that the job runs again. A handler cannot complete its job in its own transaction. Workers poll.
    """

    keeps_results = True
    max_result_bytes = MAX_RESULT  # bytes

    def __init__(
        self,
        uri: str | MongoClient[Any],
        database: str | None = None,
        *,
        collection: str = "jobs",
        timeout: float = 10.0,
        lease: float = 30.0,
        poll_interval: float = 1.0,
    ) -> None:
        super().__init__(lease=lease, poll_interval=poll_interval)
        self._database = Database(uri, database, collection, timeout)
        self._arrivals = ArrivalOrder()
        self._leases = Leases(self._database, self.lease)

    # -- adding ---------------------------------------------------------------------------------------

    def _add(self, jobs: Sequence[NewJob]) -> None:
        with self._database.translated():
            first, now = self._database.take_places(len(jobs))
            documents = [new_document(job, first + n, now) for n, job in enumerate(jobs)]
            try:
                insert_all(self._database, documents)
            except PyMongoError as error:
                if (found := duplicate_id(error)) is None:
                    raise
                raise DuplicateJob(f"job_id: {found or jobs[0].id!r} exists already; use another id") from None

    def import_jobs(self, jobs: Sequence[Job]) -> int:
        """Add jobs with their state. Return how many were added. Leave jobs whose id exists unchanged.

        On a replica set or a sharded cluster the call adds all or none. Elsewhere, repeat it after an error.
        """
        documents = [
            arrived_document(job, encoded, self._arrivals.next(job.created_at)) for job, encoded in map(arriving, jobs)
        ]
        with self._database.translated():
            return insert_unknown(self._database, documents)

    # -- working --------------------------------------------------------------------------------------

    def _claim(
        self, worker_id: Claimant, limit: int, queues: Sequence[str] | None, except_types: Sequence[str]
    ) -> list[Job]:
        with self._database.translated():
            return claim(self._database, worker_id, limit, queues, except_types)

    def _settle(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        with self._database.translated():
            collection = self._database.jobs
            if collection.bulk_write(updates(outcomes), ordered=False).matched_count == len(outcomes):
                return []
            ids = {"$in": [outcome.job.id for outcome in outcomes]}
            settled = {found["_id"]: found.get("settled") for found in collection.find({"_id": ids}, {"settled": 1})}
            return [outcome for outcome in outcomes if settled.get(outcome.job.id) != mark(outcome)]

    def _put_back(self, job_id: str, delay: float) -> bool:
        with self._database.translated():
            waiting = {"_id": job_id, "status": {"$in": ["failed", "cancelled", "pending"]}}
            return self._database.jobs.update_one(waiting, [due_after(delay, **cleared())]).matched_count == 1

    def _held_by(self, worker_id: int) -> list[Job]:
        with self._database.translated():
            held = {"status": "running", "worker_id": worker_id}
            return [stored_job(found) for found in self._database.jobs.find(held).hint(HOLDERS)]

    # -- the lease ------------------------------------------------------------------------------------

    def _enlist(self, worker_id: int, name: str) -> None:
        with self._database.translated():
            self._leases.enlist(worker_id, name)

    def _renew(self, worker_id: int) -> bool:
        with self._database.translated():
            return self._leases.renew(worker_id)

    def _retire(self, worker_id: int) -> None:
        with self._database.translated():
            self._leases.retire(worker_id)

    def _rescue(self) -> int:
        with self._database.translated():
            return self._leases.rescue()

    # -- reading and maintenance ----------------------------------------------------------------------

    def _get(self, job_id: str) -> Job | None:
        with self._database.translated():
            found = self._database.jobs.find_one({"_id": job_id})
        return None if found is None else stored_job(found)

    def _list(self, status: JobStatus | None, limit: int | None, queue: str | None) -> list[Job]:
        wanted: Document = {"status": {"$in": ALL} if status is None else str(status)}
        if queue is not None:
            wanted["queue"] = queue
        with self._database.translated():
            return [stored_job(found) for found in self._database.jobs.find(wanted).sort("seq", -1).limit(limit or 0)]

    def export_jobs(self, batch: int = 1000) -> Iterator[list[Job]]:
        """Yield every job, oldest first, in batches. Only one batch is in memory."""
        with self._database.translated():
            jobs: list[Job] = []
            for found in self._database.jobs.find({"status": {"$in": ALL}}).sort("seq", 1).batch_size(batch):
                jobs.append(stored_job(found))
                if len(jobs) == batch:
                    yield jobs
                    jobs = []
            if jobs:
                yield jobs

    def _cancel(self, job_id: str, reason: str | None) -> bool | None:
        error = {} if reason is None else {"error": reason}
        change = {"$set": {"status": "cancelled", **error}, "$currentDate": {"finished_at": True, "updated_at": True}}
        with self._database.translated():
            jobs = self._database.jobs
            if jobs.update_one({"_id": job_id, "status": {"$in": ["pending", "running"]}}, change).matched_count:
                return True
            return None if jobs.find_one({"_id": job_id}, {"_id": 1}) is None else False

    def _prune(self, older_than: timedelta, statuses: list[str], queues: list[str] | None, batch: int) -> int:
        pruned = 0
        with self._database.translated():
            jobs = self._database.jobs
            cutoff = self._database.now() - older_than
            old: Document = {"status": {"$in": statuses}, "finished_at": {"$lte": cutoff}}
            if queues is not None:
                old["queue"] = {"$in": queues}
            while ids := [found["_id"] for found in jobs.find(old, {"_id": 1}).limit(batch)]:
                pruned += jobs.delete_many({"_id": {"$in": ids}, **old}).deleted_count
        return pruned

    def counts(self) -> dict[JobStatus, int]:
        """Return the number of jobs of each status, counted by an index. Every status has an entry."""
        with self._database.translated():
            jobs = self._database.jobs
            return {status: jobs.count_documents({"status": str(status)}) for status in JobStatus}

    def ping(self) -> None:
        """Connect, and create the indexes. Raises StorageUnavailable, SchemaConflict or SchemaTooNew."""
        with self._database.translated():
            self._database.now()
            _ = self._database.jobs

    def close(self) -> None:
        """Close the client, unless it is the caller's. Without leave(), held jobs wait until the lease expires."""
        super().close()
        self._database.close()
