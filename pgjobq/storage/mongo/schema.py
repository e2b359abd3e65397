"""The indexes, and the document with their version. They are created at the first use, and checked."""

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
# Names of indexes. Queries name their index, so that plans do not depend on earlier queries.
CLAIM_ANY, CLAIM_QUEUE, HOLDERS, BY_ID = "pgjobq_claim", "pgjobq_claim_queue", "pgjobq_holders", "_id_"
_PENDING, _RUNNING = {"status": "pending"}, {"status": "running"}
INDEXES = [
    # For claims, which read one of these indexes from its beginning. It contains only pending jobs, and in each
    # priority a claim stops at the first job that is not due.
    IndexModel(_CLAIM, name=CLAIM_ANY, partialFilterExpression=_PENDING),
    IndexModel([("queue", ASCENDING), *_CLAIM], name=CLAIM_QUEUE, partialFilterExpression=_PENDING),
    # For the rescue, which reads only this index to find the holders and their jobs.
    IndexModel([("status", ASCENDING), ("worker_id", ASCENDING)], name=HOLDERS, partialFilterExpression=_RUNNING),
    # For prune.
    IndexModel([("finished_at", ASCENDING)], name="pgjobq_finished", sparse=True),
    # For list_jobs and counts.
    IndexModel([("status", ASCENDING), ("seq", DESCENDING)], name="pgjobq_newest"),
]
ORDER = _CLAIM  # the order in which jobs are claimed


def prepare(jobs: Collection[Document], meta: Collection[Document]) -> None:
    """Create the missing parts. Raises SchemaConflict if documents are not jobs, SchemaTooNew for a newer version."""
    known = meta.find_one({"_id": META})
    if known is None:
        stranger = jobs.find_one()
        if stranger is not None and not {"seq", "due"} <= set(stranger):
            raise SchemaConflict(f"the collection {jobs.full_name} holds documents that are not jobs; use another")
        with suppress(DuplicateKeyError):  # another process has inserted it
            meta.insert_one({"_id": META, "version": VERSION, "last": 0})
    elif (version := known.get("version", VERSION)) > VERSION:
        raise SchemaTooNew(f"{jobs.full_name} has version {version}, this pgjobq supports up to {VERSION}; upgrade it")
    jobs.create_indexes(INDEXES)
