"""Translate errors of MongoDB to pgjobq's errors, whose messages name the remedy."""

from __future__ import annotations

from typing import Any

from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    DocumentTooLarge,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    WTimeoutError,
)

from pgjobq.errors import InvalidJob, PgjobqError, SchemaConflict, StorageError, StorageUnavailable

DUPLICATE_KEY = 11000
BAD_VALUE = 2
_REFUSED = {13, 18, 8000}  # unauthorized, authentication failed, Atlas's own error
_OTHER_INDEX = {85, 86}  # an index of this name, or these fields, with other options
# Temporary errors: the server is stopping, is not the primary any more, or exceeded a time limit.
_AWAY = {6, 7, 50, 64, 89, 91, 100, 189, 262, 9001, 10107, 11600, 11602, 13435, 13436}


def translate(error: Exception, server: str) -> PgjobqError:
    """Return the pgjobq error for an error of pymongo or bson. server: its name, without password."""
    # Cut off the dump of the topology or of the answer that follows the message.
    message = _words(error).split(", full error:")[0].split(", Timeout:")[0].split(" (configured timeouts:")[0]
    code = _code(error)
    if isinstance(error, DocumentTooLarge):
        return InvalidJob(f"data: {message}; store the large part elsewhere and enqueue a reference", field="data")
    if isinstance(error, ConnectionFailure | ExecutionTimeout | WTimeoutError) or code in _AWAY:
        return StorageUnavailable(f"MongoDB at {server} does not answer: {message}")
    if code in _REFUSED:
        return StorageError(f"MongoDB at {server}: {message}; check user and password, and grant the role readWrite")
    if code in _OTHER_INDEX:
        return SchemaConflict(f"MongoDB at {server}: {message}; use another collection")
    if is_missing_index(error):
        return StorageError(f"MongoDB at {server}: an index was dropped ({message}); the next call creates it")
    return StorageError(f"MongoDB at {server}: {message}")


def is_missing_index(error: Exception) -> bool:
    """Return whether a hint named an index that does not exist."""
    return _code(error) == BAD_VALUE and "hint" in str(error)


def duplicate_id(error: PyMongoError) -> str | None:
    """Return the id that exists already, "" if the error does not name it, or None for any other error."""
    details = error.details if isinstance(error, OperationFailure) else None
    if isinstance(error, BulkWriteError) and details is not None:
        details = next(iter(details.get("writeErrors", ())), None)
    if not details or details.get("code") != DUPLICATE_KEY:
        return None
    found = details.get("keyValue", {}).get("_id") or details.get("op", {}).get("_id") or ""
    return str(found)


def _code(error: Exception) -> int | None:
    if isinstance(error, BulkWriteError):
        return next((problem.get("code") for problem in _problems(error)), None)
    return error.code if isinstance(error, OperationFailure) else None


def _words(error: Exception) -> str:
    problems = _problems(error) if isinstance(error, BulkWriteError) else []
    # The message of a BulkWriteError does not contain the errors of the writes.
    return next((str(problem["errmsg"]) for problem in problems if "errmsg" in problem), str(error))


def _problems(error: BulkWriteError) -> list[dict[str, Any]]:
    details = error.details or {}
    return [*details.get("writeErrors", ()), *details.get("writeConcernErrors", ())]
