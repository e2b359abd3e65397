"""Tests of MongoStorage: the contract, and what only this storage does.

The server is SecantusDB, which has MongoDB's protocol. It plans queries in another way than MongoDB, so the tests do
not check plans by EXPLAIN. They check which indexes the commands name.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import Int64
from helpers.mongo import LEASE
from pymongo import MongoClient, monitoring
from pymongo.errors import AutoReconnect
from services import SecantusDB, Server

from pgjobq import (
    DuplicateJob,
    InvalidJob,
    Job,
    NewJob,
    StorageUnavailable,
)
from pgjobq.copying import copy_jobs
from pgjobq.models import JobStatus
from pgjobq.storage.base import Completed, Failed, Released, Retried
from pgjobq.storage.mongo import claiming, enqueueing
from pgjobq.storage.mongo_storage import MongoStorage
from pgjobq.testing import StorageContract

OwnServer = Callable[..., Server]
Database = Any  # pymongo's class is generic in its documents


class TestContract(StorageContract):
    storage_class = MongoStorage
    jobs, batch = 40, 100
    examples, steps = 5, 12  # the emulator is slow

    @pytest.fixture
    def make_storage(self, mongo_url: str, name: str) -> Callable[[], MongoStorage]:
        return functools.partial(MongoStorage, mongo_url, name, lease=LEASE, poll_interval=0.1)


# -- documents -------------------------------------------------------------------------------------


def test_microseconds_of_execute_at_are_stored_and_ordered(mongo: MongoStorage) -> None:
    """MongoDB stores only milliseconds. Within one, the jobs are enqueued in another order than they are due."""
    ms = datetime(2024, 5, 6, 7, 8, 9, 123000, tzinfo=UTC)
    for micros in (999, 0, 1000, 500, 1):
        mongo.enqueue(f"{micros}", "t", {}, execute_at=ms + timedelta(microseconds=micros))
    started = mongo.dequeue_many(9)
    assert [found.id for found in started] == ["0", "1", "500", "999", "1000"]
    assert [found.execute_at for found in started] == [ms + timedelta(microseconds=n) for n in (0, 1, 500, 999, 1000)]


def test_due_is_never_before_execute_at(mongo: MongoStorage, database: Database) -> None:
    at = datetime(2024, 5, 6, 7, 8, 9, 123001, tzinfo=UTC)
    mongo.enqueue("a", "t", {}, execute_at=at)
    assert database.jobs.find_one({"_id": "a"})["due"] == datetime(2024, 5, 6, 7, 8, 9, 124000)  # noqa: DTZ001  # pymongo returns naive times


def test_data_can_be_queried(mongo: MongoStorage, database: Database) -> None:
    mongo.enqueue("a", "t", {"customer": {"id": 7}, "tags": ["x"]})
    assert database.jobs.count_documents({"data.customer.id": 7, "data.tags": "x"}) == 1


def nested(levels: int) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for _ in range(levels):
        data = {"in": data}
    return data


@pytest.mark.parametrize(
    "data", [{"n": 2**70}, {"n": -(2**63) - 1}, {"$ref": "x", "$id": 1}, {"a.b": [{}]}, nested(400)]
)
def test_data_that_bson_cannot_represent_is_stored_as_text(
    mongo: MongoStorage, database: Database, data: dict[str, Any]
) -> None:
    mongo.enqueue("a", "t", data)
    assert mongo.dequeue_many(2)[0].data == data
    assert isinstance(database.jobs.find_one({"_id": "a"})["data"], str)


def test_numbers_are_plain_ints(mongo: MongoStorage) -> None:
    mongo.enqueue("a", "t", {"n": 2**40})
    found = mongo.dequeue()
    assert found is not None
    assert type(found.data["n"]) is int
    assert not isinstance(found.worker_id, Int64)


def test_invalid_stored_data_does_not_block_the_queue(mongo: MongoStorage, database: Database) -> None:
    mongo.enqueue_many([NewJob(id="a", type="t"), NewJob(id="b", type="t")])
    database.jobs.update_one({"_id": "a"}, {"$set": {"data": "{"}})
    database.jobs.update_one({"_id": "b"}, {"$set": {"data": [1]}})
    first, second = mongo.dequeue_many(2)
    assert "JSONDecodeError" in getattr(first.data, "reason", "")
    assert "not a document" in getattr(second.data, "reason", "")


def test_document_that_is_too_large_to_settle_is_refused(mongo: MongoStorage) -> None:
    """MongoDB would accept the document, but not the update that adds an error to it."""
    with pytest.raises(InvalidJob, match=r"data: its document has 16700.* bytes, more than the 16515072"):
        mongo.enqueue_many([NewJob(id="ok", type="t"), NewJob(id="big", type="t", data={"x": "x" * 16_700_000})])
    # This list is small as JSON and large as BSON, in which every item has a key.
    with pytest.raises(InvalidJob, match="data: its document has"):
        mongo.enqueue("flat", "t", {"x": [1] * 1_900_000})
    assert mongo.list_jobs() == []


@pytest.mark.parametrize("error", ["nul \0 in it", "half \ud800 of a pair", "$status", "é" * 200_000])
def test_any_error_can_be_stored(mongo: MongoStorage, error: str) -> None:
    """A job whose error could not be stored could never be settled."""
    mongo.enqueue_many([NewJob(id="a", type="t"), NewJob(id="b", type="t")])
    a, b = mongo.dequeue_many(2)
    assert mongo.settle([Failed(a, error), Retried(b, 60, error)]) == []
    for name in "ab":
        found = mongo.get_job(name)
        assert found is not None
        assert found.error is not None
        assert found.error[:4] == error[:4]
        assert len(found.error.encode()) <= 2**17


# -- claims ----------------------------------------------------------------------------------------


class Watch(monitoring.CommandListener):
    """Records the commands of a client. It calls `before` with the name of each command before it is sent."""

    def __init__(self) -> None:
        self.commands: list[dict[str, Any]] = []
        self.before: Callable[[str], None] = lambda _: None

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.commands.append(dict(event.command))
        self.before(event.command_name)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None: ...

    def failed(self, event: monitoring.CommandFailedEvent) -> None: ...

    def names(self) -> list[str]:
        return [next(iter(command)) for command in self.commands]


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def watched(make: Callable[..., MongoStorage], mongo_url: str, watch: Watch) -> Iterator[MongoStorage]:
    """Return a storage whose client is watched."""
    with MongoClient[Any](mongo_url, event_listeners=[watch]) as client:
        yield make(client, lease=60)  # so long that no renewal is recorded


def test_claims_take_few_round_trips_and_name_an_index_of_pending_jobs(
    watched: MongoStorage, watch: Watch, database: Database
) -> None:
    watched.enqueue_many([NewJob(id=f"{n}", type="t", queue="ab"[n % 2]) for n in range(60)])
    watched.dequeue()
    for queues, index in ((None, "pgjobq_claim"), (["a"], "pgjobq_claim_queue"), (["a", "b"], "pgjobq_claim_queue")):
        watch.commands.clear()
        assert len(watched.dequeue_many(10, queues)) == 10
        assert watch.names() == ["hello", "find", "update", "find"]
        assert watch.commands[1]["hint"] == index
        assert (watch.commands[2]["updates"][0]["hint"], watch.commands[3]["hint"]) == ("_id_", "_id_")
        watch.commands.clear()
        assert len(watched.dequeue_many(1, queues)) == 1
        assert watch.names() == ["hello", "findAndModify"]
        assert watch.commands[1]["hint"] == index
    indexes = database.jobs.index_information()
    order = [("priority", -1), ("due", 1), ("sub", 1), ("seq", 1)]
    assert (indexes["pgjobq_claim"]["key"], indexes["pgjobq_claim_queue"]["key"]) == (order, [("queue", 1), *order])
    for index in ("pgjobq_claim", "pgjobq_claim_queue"):
        assert indexes[index]["partialFilterExpression"] == {"status": "pending"}


def test_settling_many_takes_one_round_trip(watched: MongoStorage, watch: Watch) -> None:
    watched.enqueue_many([NewJob(id=f"{n}", type="t") for n in range(40)])
    jobs = watched.dequeue_many(40)
    watch.commands.clear()
    assert watched.settle([*map(Completed, jobs[:20]), *map(Released, jobs[20:38]), Failed(jobs[38], "x")]) == []
    assert watch.names() == ["update"]
    assert [update["hint"] for update in watch.commands[0]["updates"]] == ["_id_"] * 3


def test_concurrent_claims_get_different_jobs(
    watched: MongoStorage, watch: Watch, make: Callable[..., MongoStorage]
) -> None:
    """Another storage claims between the first storage's query and its update."""
    other = make()
    watched.enqueue_many([NewJob(id=f"{n}", type="t") for n in range(6)])
    taken: list[Job] = []

    def quicker(command: str) -> None:
        if command == "update" and not taken:
            taken.extend(other.dequeue_many(3))

    watched.dequeue_many(1, ["none"])  # registers the worker
    watch.before = quicker
    assert [found.id for found in watched.dequeue_many(4)] == ["3", "4", "5"]
    assert [found.id for found in taken] == ["0", "1", "2"]


def test_job_that_was_delayed_in_the_meantime_is_not_claimed(
    watched: MongoStorage, watch: Watch, make: Callable[..., MongoStorage]
) -> None:
    other = make()
    watched.enqueue_many([NewJob(id=f"{n}", type="t") for n in range(3)])

    def put_off(command: str) -> None:
        if command == "update":
            watch.before = lambda _: None
            other.retry("1", 60)

    watched.dequeue_many(1, ["none"])
    watch.before = put_off
    assert [found.id for found in watched.dequeue_many(3)] == ["0", "2"]


def test_claim_whose_answer_was_lost_is_given_back(mongo: MongoStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    mongo.enqueue_many([NewJob(id=f"{n}", type="t") for n in range(3)])

    def lost(document: object) -> Job:
        raise AutoReconnect("connection closed")

    with monkeypatch.context() as patch:
        patch.setattr(claiming, "stored_job", lost)
        with pytest.raises(StorageUnavailable, match="connection closed"):
            mongo.dequeue_many(2)
    assert mongo.counts()[JobStatus.RUNNING] == 2
    assert [(found.id, found.attempts) for found in mongo.dequeue_many(3)] == [("0", 1), ("1", 1), ("2", 1)]


def test_dropped_indexes_are_created_again(mongo: MongoStorage, database: Database) -> None:
    mongo.enqueue("a", "t", {})
    database.jobs.drop_indexes()
    with pytest.raises(Exception, match=r"an index was dropped .* the next call creates it"):
        mongo.dequeue()
    found = mongo.dequeue()
    assert found is not None
    assert found.id == "a"


def test_dropped_database_is_created_again(mongo: MongoStorage, database: Database) -> None:
    mongo.enqueue("a", "t", {})
    database.client.drop_database(database.name)
    mongo.enqueue("a", "t", {})
    assert [found.id for found in mongo.dequeue_many(2)] == ["a"]


# -- adding ----------------------------------------------------------------------------------------


class Standalone(SecantusDB):
    """Hides that it is a replica set, so that the storage uses no transactions."""

    def command(self) -> Sequence[str]:
        return [*super().command(), "--standalone"]


def test_batch_with_a_known_id_is_undone_on_a_standalone_server(
    own_server: OwnServer, make: Callable[..., MongoStorage], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = make(own_server(Standalone).url)
    assert not storage._database.has_transactions()
    storage.enqueue("known", "t", {"v": 1})
    new = [NewJob(id=name, type="t") for name in ("a", "known", "b")]
    with pytest.raises(DuplicateJob, match="job_id: 'known' exists already; use another id"):
        storage.enqueue_many(new)
    # The id is added between the query and the insert.
    monkeypatch.setattr(enqueueing, "_unknown", lambda _, documents: documents)
    with pytest.raises(DuplicateJob, match="job_id: 'known' exists already"):
        storage.enqueue_many(new)
    monkeypatch.undo()
    with pytest.raises(DuplicateJob, match="job_id: 'x' exists already"):
        storage.enqueue_many([NewJob(id="x", type="t"), NewJob(id="x", type="t")])
    assert [(found.id, found.data) for found in storage.list_jobs()] == [("known", {"v": 1})]
    assert storage.enqueue_many([NewJob(id=name, type="t") for name in "ab"]) == ["a", "b"]
    jobs = [Job(id=name, type="t", status=JobStatus.COMPLETED) for name in "abcd"]
    assert (storage.import_jobs(jobs), storage.import_jobs(jobs)) == (2, 0)


def test_concurrent_enqueues_of_the_same_jobs(make: Callable[..., MongoStorage]) -> None:
    """Exactly one of them succeeds. Transactions that conflict are retried."""
    storages = [make() for _ in range(4)]
    barrier = threading.Barrier(4)

    def work(storage: MongoStorage) -> bool:
        barrier.wait(10)
        try:
            storage.enqueue_many([NewJob(id=f"{n}", type="t") for n in range(20)])
        except DuplicateJob:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, storages)) == 1
    assert len(storages[0].list_jobs()) == 20


def test_copied_jobs_keep_their_state_and_order(make: Callable[..., MongoStorage]) -> None:
    source, copy = make(), make(collection="copy")
    source.enqueue_many([NewJob(id=f"{n}", type="t", priority=n % 3, data={"n": n}) for n in range(9)])
    source.enqueue("later", "t", {}, execute_at=datetime(2100, 1, 1, 0, 0, 0, 5, tzinfo=UTC))
    jobs = {found.id: found for found in source.dequeue_many(4)}
    source.settle([Completed(jobs["2"]), Failed(jobs["5"], "boom"), Retried(jobs["8"], 0.0, "again")])
    source.cancel("0")
    for added in (10, 0):
        *_, report = copy_jobs(source, copy, 4)
        assert (report.read, report.added, report.running) == (10, added, 1)
    assert [found.id for found in copy.list_jobs()] == [found.id for found in source.list_jobs()]
    same = {"0", "2", "3", "4", "5", "6", "7", "8", "later"}
    assert all(copy.get_job(name) == source.get_job(name) or name in {"2", "5", "8"} for name in same)
    failed, was_running = copy.get_job("5"), copy.get_job("1")
    assert failed is not None
    assert was_running is not None
    assert (failed.status, failed.error, failed.worker_id) == ("failed", "boom", None)
    assert (was_running.status, was_running.attempts) == ("pending", 1)
    order = [found.id for found in copy.dequeue_many(20)]
    assert (order[0], order[1:]) == ("8", ["1", "4", "7", "3", "6"])


# -- live and dead workers--------------------------------------------------------------------------


def test_worker_that_was_taken_for_dead_gets_a_new_id(make: Callable[..., MongoStorage], database: Database) -> None:
    storage, other = make(lease=60), make()
    storage.enqueue("a", "t", {})
    held = storage.dequeue()
    assert held is not None
    database.jobs_workers.update_one(
        {"_id": held.worker_id}, {"$set": {"lease_until": datetime(2020, 1, 1, tzinfo=UTC)}}
    )
    assert other.rescue() == 1
    assert storage.maintain([held]).lost == [held]
    storage.keep()
    again = storage.dequeue()
    assert again is not None
    assert (again.id, again.attempts) == ("a", 2)
    assert again.worker_id != held.worker_id
    assert storage.settle([Completed(held)]) == [Completed(held)]


def test_job_of_a_worker_that_is_not_registered_is_rescued(mongo: MongoStorage, database: Database) -> None:
    """The worker that rescued it died before it had released the jobs."""
    mongo.enqueue_many([NewJob(id="a", type="t"), NewJob(id="last", type="t", max_retries=0)])
    held = mongo.dequeue_many(2)
    database.jobs_workers.delete_one({"_id": held[0].worker_id})
    assert mongo.rescue() == 2
    a, last = mongo.get_job("a"), mongo.get_job("last")
    assert a is not None
    assert last is not None
    assert (a.status, a.attempts, last.status) == ("pending", 1, "pending")
    told = f"worker {held[0].worker_id} stopped or died while it held this job"
    assert last.error == f"{told} (try 1 of 1, crash 1 of 3)"
    database.jobs.update_one({"_id": "last"}, {"$set": {"status": "running", "crashes": 2, "attempts": 3}})
    assert mongo.rescue() == 1
    last = mongo.get_job("last")
    assert last is not None
    assert last.error == f"{told} (try 1 of 1, crash 3 of 3); it failed because of its crashes"
    assert last.failed_at == last.finished_at is not None
