"""MongoStorage: the seam on MongoDB."""

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
from pgjobq.storage.mongo.rows import Document, arrived_document, new_document, stored_job
from pgjobq.storage.mongo.schema import HOLDERS
from pgjobq.storage.mongo.settling import cleared, due_after, mark, updates

ALL = [str(status) for status in JobStatus]


class MongoStorage(LeasedStorage):
    """Jobs in a collection of MongoDB >= 4.4; its indexes are made at the first use.

    Give a URI, or a pymongo MongoClient of your own. database: by default the one that the URI names, unless that
    is admin, else jobqueue. collection: of the jobs; collection_workers and collection_meta stand beside it.
    timeout: seconds to wait for a server to be found, for a connection, and for a majority to confirm; what the
    URI says of them goes first. lease, poll_interval: see LeasedStorage.

    A job's data is a document, which you may query; data that BSON cannot hold (numbers beyond 64 bits, keys with
    a dot or dollar, nesting beyond 90) is kept as its JSON text. A job has at most 16 MB. Times come from the
    server's clock, in milliseconds; execute_at keeps its microseconds, and no job starts early.

    What MongoDB cannot promise: enqueue_many is all or none on a replica set or a sharded cluster; a standalone
    server has no transactions, so there a process that dies amid the call leaves a part, and a job of a batch
    that turns out to hold a known id may have run before it is taken back. Writes wait for a majority of a
    replica set; with a write concern of your own, w=1, or on a standalone server without journal, a failover or
    crash may undo a completion, and the job runs again. A handler cannot complete its job in a transaction of its
    own. Workers poll: there is no bell.
    """

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
                raise DuplicateJob(f"job_id: {found or jobs[0].id!r} exists already; give another id") from None

    def import_jobs(self, jobs: Sequence[Job]) -> int:
        """Add jobs with their state; those whose id exists are left as they are. How many were added.

        All or none on a replica set or a sharded cluster; elsewhere repeat it after an error.
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

    # -- looking after jobs ---------------------------------------------------------------------------

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
        """Every job, oldest first, in batches; one batch is in memory."""
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
        """How many jobs there are of each status, all statuses named; each counted by an index."""
        with self._database.translated():
            jobs = self._database.jobs
            return {status: jobs.count_documents({"status": str(status)}) for status in JobStatus}

    def ping(self) -> None:
        """Connect, and make the indexes. Raises StorageUnavailable, SchemaConflict or SchemaTooNew."""
        with self._database.translated():
            self._database.now()
            _ = self._database.jobs

    def close(self) -> None:
        """Close the client, if it is this object's own. Without leave(), jobs still held wait for the lease to end."""
        super().close()
        self._database.close()
