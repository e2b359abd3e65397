"""Convert jobs to documents, and documents to jobs.

A document has the fields of Job, with `_id` for the id and the result as JSON text, and five more: `due` and `sub` are
the due time; `seq` is the place in the order of enqueueing; `claim` is the number of the claim that started the job
last, which is never used again; `settled` is the claim of the last start that was settled, and its outcome. MongoDB
stores milliseconds. `due` is rounded up, so that no job starts early, and `sub` has the microseconds below the
millisecond, so that the order and execute_at are exact.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
from bson.codec_options import CodecOptions, TypeDecoder, TypeRegistry

from pgjobq.arrival import arriving_result
from pgjobq.errors import InvalidJob
from pgjobq.models import Job, NewJob, UnreadableData
from pgjobq.storage.errortext import storable_error
from pgjobq.storage.holds import Claimant
from pgjobq.storage.results import read_result

Document = dict[str, Any]

MAX_DOCUMENT = 16 * 2**20  # bytes; MongoDB's limit
ROOM = 2**18  # bytes of a document that are reserved for later fields: times, an error
MAX_ERROR = 2**17  # bytes
MAX_RESULT = 2**17  # bytes; a completed job has no error
SMALL_JSON = 2**20  # characters; a document of this many is smaller than MAX_DOCUMENT in any encoding
MAX_LEVELS = 90  # nested documents and arrays; MongoDB's limit is 100
WHOLE = 1000  # `sub` of a time without microseconds, which sorts after the times rounded up to the same millisecond


class _PlainInt(TypeDecoder):
    # bson returns numbers of more than 32 bits as instances of its own class.
    bson_type = bson.Int64

    def transform_bson(self, value: Any) -> int:
        return int(value)


CODEC: CodecOptions[Document] = CodecOptions(tz_aware=True, tzinfo=UTC, type_registry=TypeRegistry([_PlainInt()]))


def new_document(job: NewJob, seq: int, now: datetime) -> Document:
    """Return the document of a job that is enqueued now. Raises InvalidJob if MongoDB cannot store it."""
    execute_at = job.execute_at if job.delay is None else now + timedelta(seconds=job.delay)
    document = {
        "_id": job.id,
        "type": job.type,
        "queue": job.queue,
        "data": _stored_data(job.json),
        "status": "pending",
        "priority": job.priority,
        "attempts": 0,
        "max_retries": job.max_retries,
        "error": None,
        **_due(execute_at, now),
        "seq": seq,
        "created_at": now,
        "updated_at": now,
    }
    _check_size(document, len(job.json))
    return document


def arrived_document(job: Job, encoded: str, seq: int) -> Document:
    """Return the document of a job that is imported with its state and with its data as JSON."""
    document = {
        "_id": job.id,
        "type": job.type,
        "queue": job.queue,
        "data": _stored_data(encoded),
        "status": str(job.status),
        "priority": job.priority,
        "attempts": job.attempts,
        "max_retries": job.max_retries,
        "crashes": job.crashes,
        "error": None if job.error is None else storable_error(job.error, MAX_ERROR),
        **_due(job.execute_at, job.created_at),
        "seq": seq,
        "created_at": job.created_at,
        "updated_at": job.updated_at,
        "result": arriving_result(job),
    }
    times = {name: getattr(job, name) for name in ("started_at", "finished_at", "failed_at")}
    document |= {name: value for name, value in times.items() if value is not None}
    _check_size(document, len(encoded) + len(document["result"] or ""))
    return document


def stored_job(document: Document) -> Job:
    """Convert a document to a job."""
    get = document.get
    execute_at = get("execute_at")
    if execute_at is not None and get("sub", WHOLE) != WHOLE:
        execute_at += timedelta(microseconds=document["sub"])
    return Job(
        id=document["_id"],
        type=document["type"],
        data=_read_data(get("data")),
        status=document["status"],
        queue=get("queue", "default"),
        priority=get("priority", 5),
        attempts=get("attempts", 0),
        max_retries=get("max_retries", 3),
        crashes=get("crashes", 0),
        execute_at=execute_at,
        error=get("error"),
        created_at=document["created_at"],
        updated_at=document["updated_at"],
        started_at=get("started_at"),
        finished_at=get("finished_at"),
        failed_at=get("failed_at"),
        worker_id=Claimant.stored(get("worker_id"), get("claim")),
        result=read_result(get("result")) if document["status"] == "completed" else None,
    )


def _due(execute_at: datetime | None, now: datetime) -> Document:
    try:
        moment = (now if execute_at is None else execute_at).astimezone(UTC)
        micros = moment.microsecond % 1000
        whole = moment - timedelta(microseconds=micros)
        due = whole + timedelta(milliseconds=1) if micros else whole
    except OverflowError:
        raise InvalidJob(
            "execute_at: is outside the years 1 to 9999 in UTC; use a time within them", field="execute_at"
        ) from None
    return {"execute_at": None if execute_at is None else whole, "due": due, "sub": micros or WHOLE}


def _stored_data(encoded: str) -> Any:
    """Return the data as a document that can be queried, or as JSON text if BSON cannot store it."""
    data = json.loads(encoded)
    return data if _fits(data, 1) else encoded


def _fits(value: Any, level: int) -> bool:
    if isinstance(value, dict):
        return level <= MAX_LEVELS and all(
            not key.startswith("$") and "." not in key and _fits(inner, level + 1) for key, inner in value.items()
        )
    if isinstance(value, list):
        return level <= MAX_LEVELS and all(_fits(inner, level + 1) for inner in value)
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def _read_data(data: Any) -> dict[str, Any]:
    if isinstance(data, str):
        try:
            data = json.loads(data)
        except (ValueError, RecursionError) as error:
            return UnreadableData(f"{type(error).__name__}: {error}")
    return data if isinstance(data, dict) else UnreadableData(f"data is a {type(data).__name__}, not a document")


def _check_size(document: Document, characters: int) -> None:
    if characters < SMALL_JSON:
        return
    if (size := len(bson.encode(document))) > MAX_DOCUMENT - ROOM:
        raise InvalidJob(
            f"data: its document has {size} bytes, more than the {MAX_DOCUMENT - ROOM} that MongoDB can store;"
            " store the large part elsewhere and enqueue a reference to it",
            field="data",
        )
