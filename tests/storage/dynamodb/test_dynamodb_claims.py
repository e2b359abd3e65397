"""Tests of concurrent claims of DynamoDBStorage, and of an index that lags behind the table."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from helpers.dynamodb import Between
from helpers.until import until

from pgjobq import (
    DuplicateJob,
    Job,
    NewJob,
    StorageUnavailable,
)
from pgjobq.models import JobStatus
from pgjobq.storage import dynamodb_storage
from pgjobq.storage.base import Completed, Failed, Outcome, Released, Retried
from pgjobq.storage.dynamodb_storage import DynamoDBStorage

Make = Callable[..., DynamoDBStorage]


# -- claims ----------------------------------------------------------------------------------------


def test_concurrent_claims_get_different_jobs(through: DynamoDBStorage, between: Between, make: Make) -> None:
    """Another storage claims between the first storage's query and its update."""
    other = make()
    through.enqueue_many([NewJob(id=f"{n}", type="t") for n in range(8)])
    taken: list[Job] = []
    lock = threading.Lock()

    def quicker(name: str, arguments: dict[str, Any]) -> None:
        with lock:
            if name == "update_item" and not taken:
                taken.extend(other.dequeue_many(3))

    through.dequeue_many(1, ["none"])  # registers the worker
    between.before = quicker
    assert [found.id for found in through.dequeue_many(4)] == ["3", "4", "5", "6"]
    assert [found.id for found in taken] == ["0", "1", "2"]


def test_job_that_was_delayed_in_the_meantime_is_not_claimed(
    through: DynamoDBStorage, between: Between, make: Make
) -> None:
    other = make()
    through.enqueue("a", "t", {})

    def put_off(name: str, arguments: dict[str, Any]) -> None:
        if name == "update_item":
            between.before = lambda *_: None
            other.retry("a", 60)

    through.dequeue_many(1, ["none"])
    between.before = put_off
    assert through.dequeue_many(3) == []


def test_jobs_that_fall_due_together_come_in_order(dynamo: DynamoDBStorage) -> None:
    """They are claimed by priority first, although they were stored in the order of their due times."""
    soon = datetime.now(UTC) + timedelta(seconds=0.3)
    for n, priority in enumerate((1, 9, 5)):
        dynamo.enqueue(f"p{priority}", "t", {}, priority=priority, execute_at=soon + timedelta(milliseconds=n))
    dynamo.enqueue("now", "t", {}, priority=7)
    time.sleep(0.4)
    assert [found.id for found in dynamo.dequeue_many(9)] == ["p9", "now", "p5", "p1"]


def test_request_that_the_client_repeats_takes_effect_once(through: DynamoDBStorage, between: Between) -> None:
    """The first request took effect, but its answer was lost. The second recognizes its effect."""

    def again(name: str, arguments: dict[str, Any], answer: Any) -> Any:
        return getattr(between.client, name)(**arguments) if name in {"put_item", "update_item"} else None

    between.after = again
    for name in ("a", "b", "c", "d"):
        through.enqueue(name, "t", {})
    with pytest.raises(DuplicateJob):
        through.enqueue("a", "t", {})
    started = through.dequeue_many(4)
    assert [(found.id, found.attempts) for found in started] == [("a", 1), ("b", 1), ("c", 1), ("d", 1)]
    outcomes: list[Outcome] = [
        Completed(started[0]),
        Failed(started[1], "boom"),
        Retried(started[2], 60, None),
        Released(started[3]),
    ]
    assert through.settle(outcomes) == []
    assert [(found.status, found.attempts) for found in through.list_jobs()] == [
        ("pending", 0),
        ("pending", 1),
        ("failed", 1),
        ("completed", 1),
    ]


# -- an index that lags behind ---------------------------------------------------------------------


@pytest.fixture
def hidden(between: Between) -> set[str]:
    """Return a set of ids. The indexes do not return these jobs."""
    names: set[str] = set()

    def hide(name: str, _: object, answer: Any) -> Any:
        if name != "query" or "Items" not in answer:
            return None
        return {**answer, "Items": [item for item in answer["Items"] if item["id"]["S"] not in names]}

    between.after = hide
    return names


def test_job_that_was_just_started_is_not_lost(through: DynamoDBStorage, hidden: set[str]) -> None:
    through.enqueue_many([NewJob(id="a", type="t"), NewJob(id="b", type="t")])
    a, b = through.dequeue_many(2)
    hidden |= {"a", "b"}
    assert through.maintain([a, b]).lost == []
    DynamoDBStorage.cancel(through, "a")
    assert through.maintain([a, b]).lost == [a]
    through.leave()
    found = through.get_job("b")
    assert found is not None
    assert (found.status, found.attempts) == ("pending", 0)


def test_start_whose_answer_was_lost_is_released_when_the_index_has_it(
    through: DynamoDBStorage, between: Between, hidden: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    through.enqueue("a", "t", {})
    through.dequeue_many(1, ["none"])
    hide = between.after

    def lose(name: str, arguments: dict[str, Any], answer: Any) -> Any:
        if name == "update_item":
            raise EndpointConnectionError(endpoint_url="http://nowhere")
        return hide(name, arguments, answer)

    between.after = lose
    with pytest.raises(StorageUnavailable, match="does not answer: Could not connect"):
        through.dequeue()
    between.after = hide
    hidden.add("a")
    assert through.dequeue() is None  # it releases the unknown starts in the index, of which there are none yet
    hidden.clear()
    through.maintain([])
    assert through.counts()[JobStatus.RUNNING] == 1  # another thread may just have started it
    monkeypatch.setattr(dynamodb_storage, "UNKNOWN_AFTER", 0)
    through.maintain([])
    found = through.dequeue()
    assert found is not None
    assert (found.id, found.attempts) == ("a", 1)
    through.maintain([found])
    assert through.maintain([found]).lost == []  # a known start is kept


def test_dead_worker_is_checked_again_a_lease_later(
    through: DynamoDBStorage, hidden: set[str], make: Make, client: Any, tables: str
) -> None:
    """The index did not have the job yet that the worker claimed just before it died."""
    dead = make(lease=0.2)
    through._leases._lease = 0.2
    through.enqueue_many([NewJob(id="a", type="t"), NewJob(id="last", type="t", max_retries=0)])
    assert len(dead.dequeue_many(2)) == 2
    dead.close()
    hidden |= {"a", "last"}
    time.sleep(0.3)
    assert through.rescue() == 0
    assert len(through._table.workers()) == 1
    hidden.clear()
    assert until(through.rescue, seconds=30) == 2
    a, last = through.get_job("a"), through.get_job("last")
    assert a is not None
    assert last is not None
    assert [(job.status, job.attempts, job.crashes) for job in (a, last)] == [("pending", 1, 1)] * 2
    assert str(last.error).endswith("stopped or died while it held this job (try 1 of 1, crash 1 of 3)")
    until(lambda: through.rescue() == 0 and not through._table.workers(), seconds=30)  # then the worker is deleted


def test_worker_that_was_taken_for_dead_gets_a_new_id(make: Make, client: Any, tables: str) -> None:
    storage, other = make(lease=60), make()
    storage.enqueue("a", "t", {})
    held = storage.dequeue()
    assert held is not None
    client.update_item(
        TableName=f"{tables}_meta",
        Key={"id": {"S": f"worker#{held.worker_id}"}},
        UpdateExpression="SET lease_until = :past",
        ExpressionAttributeValues={":past": {"S": "2020-01-01T00:00:00.000000Z"}},
    )
    assert other.rescue() == 1
    assert storage.maintain([held]).lost == [held]
    storage.keep()
    again = storage.dequeue()
    assert again is not None
    assert (again.id, again.attempts) == ("a", 2)
    assert again.worker_id != held.worker_id
    assert storage.settle([Completed(held)]) == [Completed(held)]
