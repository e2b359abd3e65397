"""Insert documents, all or none if the server has transactions."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from pymongo import InsertOne
from pymongo.errors import BulkWriteError, ConnectionFailure, PyMongoError

from pgjobq.storage.mongo.connection import Database
from pgjobq.storage.mongo.errors import duplicate_id
from pgjobq.storage.mongo.rows import Document

CONFLICTS = 8  # attempts of a transaction that conflicts with others


def insert_all(database: Database, documents: Sequence[Document]) -> None:
    """Insert all documents or none. Raises pymongo's error for an id that exists."""
    if len(documents) == 1:
        database.jobs.insert_one(documents[0])
    elif database.has_transactions():
        _insert_in_transaction(database, documents)
    else:
        _insert_or_take_back(database, documents)


def insert_unknown(database: Database, documents: Sequence[Document]) -> int:
    """Insert the documents whose ids do not exist, all or none in a transaction. Return how many."""
    added = 0
    while new := _unknown(database, documents):
        try:
            if database.has_transactions():
                _insert_in_transaction(database, new)
            else:
                added += database.jobs.bulk_write(_inserts(new)).inserted_count - len(new)
            return added + len(new)
        except BulkWriteError as error:
            if duplicate_id(error) is None:
                raise
            # Another client has added an id since the check. In a transaction nothing was inserted.
            if not database.has_transactions():
                added += error.details["nInserted"]
    return added


def _unknown(database: Database, documents: Sequence[Document]) -> list[Document]:
    ids = [document["_id"] for document in documents]
    known = {found["_id"] for found in database.jobs.find({"_id": {"$in": ids}}, {"_id": 1})}
    new: dict[str, Document] = {}
    for document in documents:
        if document["_id"] not in known:
            new.setdefault(document["_id"], document)
    return list(new.values())


def _insert_in_transaction(database: Database, documents: Sequence[Document]) -> None:
    jobs = database.jobs
    for left in reversed(range(CONFLICTS)):
        try:
            with (
                jobs.database.client.start_session() as session,
                session.start_transaction(write_concern=jobs.write_concern),
            ):
                jobs.bulk_write(_inserts(documents), session=session)
            return
        except PyMongoError as error:
            # Another transaction inserts one of the ids. The caller handles a server that is away.
            conflict = error.has_error_label("TransientTransactionError") and not isinstance(error, ConnectionFailure)
            if not conflict or not left:
                raise
            time.sleep(0.01 * 2 ** (CONFLICTS - left) * random.random())  # noqa: S311  # jitter need not be secret


def _insert_or_take_back(database: Database, documents: Sequence[Document]) -> None:
    jobs = database.jobs
    ids = [document["_id"] for document in documents]
    # This almost always finds an existing id before a worker can take one of the jobs that are inserted before it.
    fresh = {document["_id"] for document in _unknown(database, documents)}
    known = [document for document in documents if document["_id"] not in fresh]
    if known:
        jobs.insert_one(known[0])  # the server refuses it with the error to raise
    try:
        jobs.bulk_write(_inserts(documents))
    except BulkWriteError:
        ours = {"_id": {"$in": ids}, "seq": {"$in": [document["seq"] for document in documents]}}
        jobs.delete_many(ours | {"status": "pending", "attempts": 0})
        raise


def _inserts(documents: Sequence[Document]) -> list[InsertOne[Document]]:
    return [InsertOne(document) for document in documents]
