"""Tests of how MongoStorage connects, and of servers that are down or do not answer."""

from __future__ import annotations

import functools
import multiprocessing
import threading
from collections.abc import Callable
from typing import Any

import pytest
from helpers.until import until
from pymongo import MongoClient
from services import SecantusDB, Server

from pgjobq import (
    ConfigurationError,
    NewJob,
    Registry,
    SchemaConflict,
    SchemaTooNew,
    StorageUnavailable,
    Worker,
    job,
    open_storage,
)
from pgjobq.models import JobStatus
from pgjobq.storage.base import Completed, Failed, Outcome
from pgjobq.storage.mongo_storage import MongoStorage

OwnServer = Callable[..., Server]
Database = Any  # pymongo's class is generic in its documents
URI_QUICK = "serverSelectionTimeoutMS=300&connectTimeoutMS=500&socketTimeoutMS=500"


# -- connecting ------------------------------------------------------------------------------------


def test_uri_names_the_database(mongo_url: str, name: str, database: Database) -> None:
    storage = open_storage(f"{mongo_url}/{name}", lease=5, collection="mine")
    storage.ping()
    assert "pgjobq_claim" in database.mine.index_information()
    storage.close()
    assert (
        MongoStorage(f"{mongo_url}/admin")._database._names[0] == "jobqueue"
    )  # admin is the database for authentication
    assert MongoStorage(mongo_url)._database._names == ("jobqueue", "jobs")


def test_callers_client_is_not_closed(mongo_url: str, name: str) -> None:
    with MongoClient[Any](mongo_url, w=1) as client:
        storage = MongoStorage(client, name)
        storage.enqueue("a", "t", {})
        assert storage._database.jobs.write_concern.document == {"w": 1}
        storage.close()
        assert client[name].jobs.count_documents({}) == 1


def test_writes_wait_for_a_majority_and_reads_go_to_the_primary(mongo: MongoStorage) -> None:
    jobs = mongo._database.jobs
    assert jobs.write_concern.document["w"] == "majority"
    assert jobs.read_preference.mongos_mode == "primary"


def test_collection_with_other_documents_is_refused(mongo: MongoStorage, database: Database) -> None:
    database.jobs.insert_one({"_id": 1, "title": "Baker"})
    with pytest.raises(SchemaConflict, match=rf"the collection {database.name}.jobs holds documents that are not jobs"):
        mongo.enqueue("a", "t", {})
    assert list(database.jobs.find()) == [{"_id": 1, "title": "Baker"}]
    assert database.list_collection_names() == ["jobs"]
    assert list(database.jobs.index_information()) == ["_id_"]


def test_newer_version_is_refused(make: Callable[..., MongoStorage], database: Database) -> None:
    make().ping()
    database.jobs_meta.update_one({"_id": "schema"}, {"$set": {"version": 2}})
    with pytest.raises(SchemaTooNew, match=r"has version 2, this pgjobq supports up to 1; upgrade it"):
        make().ping()


@pytest.mark.parametrize("uri", ["mongodb://u:s3cret/x@h", "http://u:s3cret@h", "mongodb://u:s3cret@h:port"])
def test_invalid_uri_is_refused_without_its_password(uri: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^uri: MongoDB does not understand this URI") as told:
        MongoStorage(uri)
    assert "s3cret" not in str(told.value)


@pytest.mark.parametrize("options", [{"database": "a b"}, {"collection": "a$b"}, {"timeout": 0}, {"lease": 0}])
def test_invalid_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        MongoStorage("mongodb://127.0.0.1:1", **options)


# -- faults ----------------------------------------------------------------------------------------


def test_missing_server_is_named_without_password(make: Callable[..., MongoStorage]) -> None:
    storage = make("mongodb://user:s3cret@127.0.0.1:1", timeout=0.2)
    with pytest.raises(StorageUnavailable, match=r"^MongoDB at 127\.0\.0\.1:1 does not answer: ") as told:
        storage.enqueue("a", "t", {})
    assert "s3cret" not in str(told.value)


def test_call_fails_when_the_server_stops_answering(own_server: OwnServer, make: Callable[..., MongoStorage]) -> None:
    server = own_server(SecantusDB)
    storage = make(f"{server.url}/?{URI_QUICK}")
    storage.enqueue("a", "t", {})
    server.freeze()
    try:
        error = until(lambda: _unavailable(storage))  # SIGSTOP does not take effect at once
        assert "does not answer" in str(error)
    finally:
        server.thaw()
    until(lambda: storage.get_job("a"))


def test_every_call_reports_a_dead_server_and_works_after_its_restart(
    own_server: OwnServer, make: Callable[..., MongoStorage]
) -> None:
    server = own_server(SecantusDB, durable=True)
    storage = make(f"{server.url}/?{URI_QUICK}", lease=60)
    storage.enqueue_many([NewJob(id=name, type="t") for name in "abc"])
    a, b = storage.dequeue_many(2)
    server.kill()
    calls: list[Callable[[], object]] = [
        lambda: storage.enqueue("d", "t", {}),
        lambda: storage.enqueue_many([NewJob(type="t"), NewJob(type="t")]),
        storage.dequeue,
        lambda: storage.complete("a"),
        lambda: storage.settle([Failed(b, "boom")]),
        lambda: storage.get_job("a"),
        lambda: storage.maintain([a]),
        storage.keep,
    ]
    for call in calls:
        with pytest.raises(StorageUnavailable, match=rf"^MongoDB at 127\.0\.0\.1:{server.port} does not answer: "):
            call()
    server.start()
    until(lambda: not _unavailable(storage))
    outcomes: list[Outcome] = [Completed(a), Failed(b, "boom")]
    assert storage.settle(outcomes) == []
    assert [found.id for found in storage.dequeue_many(5)] == ["c"]
    assert {str(status): n for status, n in storage.counts().items() if n} == {
        "completed": 1,
        "failed": 1,
        "running": 1,
    }


def _unavailable(storage: MongoStorage) -> StorageUnavailable | None:
    try:
        storage.ping()
    except StorageUnavailable as error:
        return error
    return None


def test_worker_continues_after_a_restart_of_the_server(
    own_server: OwnServer, make: Callable[..., MongoStorage]
) -> None:
    server, registry = own_server(SecantusDB, durable=True), Registry()
    began, go = threading.Event(), threading.Event()

    @job(registry=registry)
    def slow() -> None:
        began.set()
        go.wait(30)

    @job(registry=registry)
    def quick() -> None: ...

    storage = make(f"{server.url}/?{URI_QUICK}", lease=60)
    worker = Worker(storage, registry=registry)
    storage.enqueue_many([NewJob(id="slow", type="slow"), NewJob(id="soon", type="quick", delay=1.0)])
    worker.start()
    try:
        assert began.wait(10)
        server.kill()
        go.set()  # the job ends while the server is down
        server.start()
        for name in ("slow", "soon"):
            until(functools.partial(_completed, storage, name))
    finally:
        go.set()
        worker.stop(grace=1)


def _completed(storage: MongoStorage, job_id: str) -> bool:
    try:
        found = storage.get_job(job_id)
    except StorageUnavailable:
        return False
    assert found is not None, "the acknowledged job is lost"
    return found.status == JobStatus.COMPLETED


def test_forked_child_is_a_worker_of_its_own(mongo: MongoStorage) -> None:
    mongo.enqueue_many([NewJob(id=name, type="t") for name in "ab"])
    held = mongo.dequeue()
    assert held is not None
    ours, theirs = multiprocessing.Pipe()

    def child() -> None:
        found = mongo.dequeue()
        theirs.send(None if found is None else (found.id, found.worker_id))
        mongo.complete("b")
        mongo.leave()

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    assert ours.poll(20)
    started = ours.recv()
    process.join(20)
    assert process.exitcode == 0
    assert started[0] == "b"
    assert started[1] != held.worker_id
    mongo.complete("a")
    assert mongo.counts()[JobStatus.COMPLETED] == 2
