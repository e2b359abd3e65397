"""Convert jobs to items and items to jobs, and compute the places of items in the indexes.

An item has the fields of Job and some more. `lane` and `place` are the keys of the index by_lane, which has a lane for
the pending jobs of each queue, one for scheduled jobs, and one for the running jobs of each worker. `seq` is the place
in the order of enqueueing, and with `status` the key of the index by_status. `claim` is the number of the claim that
started the job last, which is never used again. `settled` is the claim of the last start that was settled, and its
outcome. Times are texts in UTC that sort like the times.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pgjobq.arrival import arriving_result
from pgjobq.checks import check_result
from pgjobq.errors import InvalidJob
from pgjobq.forks import renew_in_child
from pgjobq.models import Job, JobStatus, NewJob, UnreadableData
from pgjobq.storage.errortext import storable_error
from pgjobq.storage.holds import Claimant
from pgjobq.storage.results import read_result

Item = dict[str, Any]

MAX_DATA = 350_000  # bytes; an item has at most 400 kB, its keys and error included
MAX_ERROR = 30_000  # bytes
MAX_RESULT = 30_000  # bytes; a completed job has no error
SCHEDULED = "scheduled"

_TIMES = ("execute_at", "created_at", "updated_at", "started_at", "finished_at", "failed_at")

_OTHERS = ("status", "queue", "priority", "attempts", "max_retries", "crashes", "error")


def encode(values: Mapping[str, str | int | None]) -> dict[str, dict[str, str]]:
    """Convert values to the form of DynamoDB's client, without those that are None."""
    return {
        name: {"N": str(value)} if isinstance(value, int) else {"S": value}
        for name, value in values.items()
        if value is not None
    }


def decode(item: Mapping[str, Mapping[str, Any]]) -> Item:
    """Convert an item from the form of DynamoDB's client to plain values."""
    return {
        name: int(value) if kind == "N" else value
        for name, typed in item.items()
        for kind, value in typed.items()
        if kind in {"N", "S", "SS"}
    }


class Clock:
    """Numbers that grow with time, in microseconds, and are unique in a process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0
        renew_in_child(self)

    def after_fork(self) -> None:
        """Replace the lock, because a thread of the parent may have held it."""
        self._lock = threading.Lock()

    def next(self) -> int:
        """The next number."""
        with self._lock:
            self._last = max(self._last + 1, time.time_ns() // 1000)
            return self._last


def seq_text(number: int) -> str:
    """A number of the order of enqueueing, as it is stored."""
    return f"{max(0, number):017d}"


def in_text(moment: datetime) -> str:
    """A time as it is stored."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def ready(queue: str) -> str:
    """The lane of a queue's jobs that are due."""
    return f"ready#{queue}"


def running(worker_id: int) -> str:
    """The lane of the jobs that a worker holds."""
    return f"running#{worker_id}"


def position(queue: str, priority: int, due: datetime, seq: str, now: datetime) -> Item:
    """Return the lane and place of a pending job."""
    rank, when = f"{2**31 - 1 - priority:010d}", in_text(due)
    if due > now:
        return {"lane": SCHEDULED, "place": f"{when}#{rank}#{seq}"}
    return {"lane": ready(queue), "place": f"{rank}#{when}#{seq}"}


def promoted(item: Item) -> Item:
    """Return the lane and place of a scheduled job that is due now."""
    when, rank, seq = item["place"].split("#")
    return {"lane": ready(item["queue"]), "place": f"{rank}#{when}#{seq}"}


def new_item(job: NewJob, number: int, now: datetime) -> Item:
    """Return the item of a job that is enqueued now. Raises InvalidJob if DynamoDB cannot store it."""
    execute_at = job.execute_at if job.delay is None else now + timedelta(seconds=job.delay)
    seq = seq_text(number)
    item = {
        "id": job.id,
        "type": job.type,
        "queue": job.queue,
        "data": _checked(job.json),
        "status": "pending",
        "priority": job.priority,
        "attempts": 0,
        "max_retries": job.max_retries,
        "seq": seq,
        "created_at": in_text(now),
        "updated_at": in_text(now),
    }
    try:
        item |= position(job.queue, job.priority, execute_at or now, seq, now)
        item["execute_at"] = None if execute_at is None else in_text(execute_at)
    except OverflowError:
        raise InvalidJob(
            "execute_at: is outside the years 1 to 9999 in UTC; use a time within them", field="execute_at"
        ) from None
    return item


def arrived_item(job: Job, encoded: str, number: int, now: datetime) -> Item:
    """Return the item of a job that is imported with its state and with its data as JSON."""
    seq = seq_text(number)
    item: Item = {
        "id": job.id,
        "type": job.type,
        "queue": job.queue,
        "data": _checked(encoded),
        "status": str(job.status),
        "priority": job.priority,
        "attempts": job.attempts,
        "max_retries": job.max_retries,
        "crashes": job.crashes,
        "error": None if job.error is None else storable_error(job.error, MAX_ERROR),
        "seq": seq,
        "result": _checked_result(arriving_result(job)),
    }
    item |= {name: in_text(moment) for name in _TIMES if (moment := getattr(job, name)) is not None}
    if job.status == "pending":
        item |= position(job.queue, job.priority, job.execute_at or job.created_at, seq, now)
    return item


def stored_job(item: Item) -> Job:
    """Convert an item to a job."""
    values: dict[str, Any] = {name: datetime.fromisoformat(item[name]) for name in _TIMES if name in item}
    values |= {name: item[name] for name in _OTHERS if name in item}
    values["worker_id"] = Claimant.stored(item.get("worker_id"), item.get("claim"))
    if item["status"] == "completed":
        values["result"] = read_result(item.get("result"))
    return Job(id=item["id"], type=item["type"], data=_read_data(item["data"]), **values)


def held_job(entry: Item) -> Job:
    """Convert an entry of the index to a running job without data and times."""
    names = ("id", "type", "queue", "attempts", "max_retries")
    values: dict[str, Any] = {name: entry[name] for name in names}
    worker_id = Claimant.stored(entry["worker_id"], entry.get("claim"))
    return Job(status=JobStatus.RUNNING, worker_id=worker_id, **values)


def _checked(encoded: str) -> str:
    if (size := len(encoded.encode())) > MAX_DATA:
        raise InvalidJob(
            f"data: it has {size} bytes, more than the {MAX_DATA} that DynamoDB can store beside the other fields;"
            " store the large part elsewhere and enqueue a reference to it",
            field="data",
        )
    return encoded


def _checked_result(encoded: str | None) -> str | None:
    check_result(encoded, MAX_RESULT)
    return encoded


def _read_data(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        return UnreadableData(f"{type(error).__name__}: {error}")
    return data if isinstance(data, dict) else UnreadableData(f"data is a {type(data).__name__}, not an object")
