"""Claim jobs in the order of an index that contains only pending jobs."""

from __future__ import annotations

from collections.abc import Sequence

from pymongo import ReturnDocument

from pgjobq.models import Job
from pgjobq.storage.holds import Claimant
from pgjobq.storage.mongo.connection import Database
from pgjobq.storage.mongo.rows import Document, stored_job
from pgjobq.storage.mongo.schema import BY_ID, CLAIM_ANY, CLAIM_QUEUE, ORDER


def claim(
    database: Database, worker_id: Claimant, limit: int, queues: Sequence[str] | None, except_types: Sequence[str]
) -> list[Job]:
    """Claim up to limit due jobs of these queues (None: all) and not of these types for the worker, in order.

    A claim of one job is a single update. A claim of several jobs takes three round trips: it finds jobs, updates those
    that no other worker has taken in the meantime, and reads them again.
    """
    jobs = database.jobs
    due: Document = {"status": "pending", "due": {"$lte": database.now()}}
    index = CLAIM_ANY
    if queues is not None:
        due["queue"] = queues[0] if len(queues) == 1 else {"$in": list(queues)}
        index = CLAIM_QUEUE
    if except_types:
        due["type"] = {"$nin": list(except_types)}
    start = {
        "$set": {"status": "running", "worker_id": int(worker_id), "claim": worker_id.claim},
        "$inc": {"attempts": 1},
        "$currentDate": {"started_at": True, "updated_at": True},
        "$unset": {"settled": 1},
    }
    if limit == 1:
        found = jobs.find_one_and_update(due, start, sort=ORDER, hint=index, return_document=ReturnDocument.AFTER)
        return [] if found is None else [stored_job(found)]
    claimed: list[Job] = []
    while len(claimed) < limit:
        head = jobs.find(due, {"_id": 1}).sort(ORDER).hint(index).limit(limit - len(claimed))
        ids = [document["_id"] for document in head]
        if not ids:
            break
        # A worker that comes second gets the jobs that are left, and searches again.
        if jobs.update_many({"_id": {"$in": ids}, **due}, start, hint=BY_ID).modified_count:
            ours = {"_id": {"$in": ids}, "status": "running", "claim": worker_id.claim}
            started = {document["_id"]: stored_job(document) for document in jobs.find(ours).hint(BY_ID)}
            claimed += [started[job_id] for job_id in ids if job_id in started]
    return claimed
