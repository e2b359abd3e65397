"""The indexes, and the document that says of which version they are: made at first use, and checked."""

from __future__ import annotations

from contextlib import suppress

from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from pgjobq.errors import SchemaConflict, SchemaTooNew
from pgjobq.storage.mongo.rows import Document

VERSION = 1  # of the documents and indexes
META = "schema"  # the document of the collection meta: version, and the last place in the order of enqueueing

_CLAIM = [("priority", DESCENDING), ("due", ASCENDING), ("sub", ASCENDING), ("seq", ASCENDING)]
# Names of indexes; queries name the one they walk, so that plans do not depend on what the server has seen before.
CLAIM_ANY, CLAIM_QUEUE, HOLDERS, BY_ID = "pgjobq_claim", "pgjobq_claim_queue", "pgjobq_holders", "_id_"
_PENDING, _RUNNING = {"status": "pending"}, {"status": "running"}
INDEXES = [
    # Serve the claim, which walks one of them from its head: pending jobs alone are in it, and each priority's
    # range of `due` ends before those that lie ahead.
    IndexModel(_CLAIM, name=CLAIM_ANY, partialFilterExpression=_PENDING),
    IndexModel([("queue", ASCENDING), *_CLAIM], name=CLAIM_QUEUE, partialFilterExpression=_PENDING),
    # Serves the rescue, which asks it alone who holds jobs, and who holds what.
    IndexModel([("status", ASCENDING), ("worker_id", ASCENDING)], name=HOLDERS, partialFilterExpression=_RUNNING),
    # Serves prune.
    IndexModel([("finished_at", ASCENDING)], name="pgjobq_finished", sparse=True),
    # Serves list_jobs and counts.
    IndexModel([("status", ASCENDING), ("seq", DESCENDING)], name="pgjobq_newest"),
]
ORDER = _CLAIM  # in which jobs are claimed


def prepare(jobs: Collection[Document], meta: Collection[Document]) -> None:
    """Make what is missing. Raises SchemaConflict for documents that are not jobs, SchemaTooNew for a newer version."""
    known = meta.find_one({"_id": META})
    if known is None:
        stranger = jobs.find_one()
        if stranger is not None and not {"seq", "due"} <= set(stranger):
            raise SchemaConflict(f"the collection {jobs.full_name} holds documents that are no jobs; give another")
        with suppress(DuplicateKeyError):  # another was quicker
            meta.insert_one({"_id": META, "version": VERSION, "last": 0})
    elif (version := known.get("version", VERSION)) > VERSION:
        raise SchemaTooNew(f"{jobs.full_name} is of version {version}, and this pgjobq knows {VERSION}; upgrade it")
    jobs.create_indexes(INDEXES)
