"""Tests of how DynamoDBStorage connects and creates its tables, and of servers that are busy or down."""

from __future__ import annotations

import functools
import json
import multiprocessing
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from helpers.dynamodb import ONCE, connect
from helpers.until import until
from services import Server
from services.dynamodb import DynamoDBLocal

from pgjobq import (
    ConfigurationError,
    Job,
    NewJob,
    Registry,
    SchemaConflict,
    SchemaTooNew,
    StorageUnavailable,
    Worker,
    job,
    open_storage,
)
from pgjobq.errors import NotMigrated
from pgjobq.models import JobStatus
from pgjobq.storage.base import Completed, Failed, Outcome
from pgjobq.storage.dynamodb_storage import DynamoDBStorage

OwnServer = Callable[..., Server]
Make = Callable[..., DynamoDBStorage]


# -- connecting ------------------------------------------------------------------------------------


def test_concurrent_storages_create_the_tables_once(make: Make, dynamodb_url: str, client: Any) -> None:
    table = f"jobs_{secrets.token_hex(4)}"
    storages = [make(f"dynamodb://eu-west-1/{table}?endpoint={dynamodb_url}") for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda storage: storage.ping(), storages))
    found = client.describe_table(TableName=table)["Table"]
    assert found["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert {index["IndexName"] for index in found["GlobalSecondaryIndexes"]} == {"by_lane", "by_status"}
    storages[0].enqueue("a", "t", {})
    assert [found.id for found in storages[1].dequeue_many(2)] == ["a"]


def test_tables_are_not_created_if_the_caller_forbids_it(make: Make, dynamodb_url: str, client: Any) -> None:
    table = f"jobs_{secrets.token_hex(4)}"
    where = f"dynamodb://eu-west-1/{table}?endpoint={dynamodb_url}"
    with pytest.raises(NotMigrated, match="the next call creates the table, unless create=False"):
        make(where, create=False).ping()
    assert table not in client.list_tables()["TableNames"]
    make(where).ping()
    make(where, create=False).enqueue("a", "t", {})


def test_table_of_another_program_is_refused(make: Make, dynamodb_url: str, client: Any) -> None:
    table = f"orders_{secrets.token_hex(4)}"
    client.create_table(
        TableName=table,
        KeySchema=[{"AttributeName": "order", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "order", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    with pytest.raises(SchemaConflict, match=f"the table {table} exists and is not pgjobq's; use another name"):
        make(f"dynamodb://eu-west-1/{table}?endpoint={dynamodb_url}").enqueue("a", "t", {})
    assert f"{table}_meta" not in client.list_tables()["TableNames"]


def test_newer_version_is_refused(make: Make, client: Any, tables: str) -> None:
    make().ping()
    client.put_item(TableName=f"{tables}_meta", Item={"id": {"S": "schema"}, "version": {"N": "2"}})
    with pytest.raises(SchemaTooNew, match="has version 2, this pgjobq supports up to 1; upgrade it"):
        make().ping()


def test_deleted_tables_are_created_again(make: Make, dynamodb_url: str, client: Any) -> None:
    table = f"jobs_{secrets.token_hex(4)}"
    storage = make(f"dynamodb://eu-west-1/{table}?endpoint={dynamodb_url}")
    storage.enqueue("a", "t", {})
    for name in (table, f"{table}_meta"):
        client.delete_table(TableName=name)
    with pytest.raises(NotMigrated, match="the next call creates the table"):
        storage.enqueue("a", "t", {})
    storage.enqueue("a", "t", {})
    assert [found.id for found in storage.dequeue_many(2)] == ["a"]


def test_parts_of_the_url(dynamodb_url: str) -> None:
    storage = open_storage(f"dynamodb://eu-north-1/mine?endpoint={dynamodb_url}", lease=5)
    assert isinstance(storage, DynamoDBStorage)
    location = storage._table.location
    assert (location.table, location.region, location.endpoint) == ("mine", "eu-north-1", dynamodb_url)
    assert (storage.lease, storage._table.meta) == (5, "mine_meta")
    given = DynamoDBStorage("dynamodb://eu-north-1/mine", region="us-west-2", endpoint="http://u:s3cret@h:1/")
    assert (given._table.location.region, given._table.location.server) == ("us-west-2", "h:1")
    assert DynamoDBStorage("dynamodb://")._table.jobs == DynamoDBStorage()._table.jobs == "jobs"


@pytest.mark.parametrize(
    "url",
    [
        "dynamodb://u:s3cret@eu-west-1/jobs",
        "dynamodb://eu-west-1/jobs?s3cret=x",
        "dynamodb://eu-west-1/jobs/s3cret",
        "dynamodb://[s3cret/jobs",
        "dynamodb://eu-west-1/jobs?s3cret",
        "redis://eu-west-1/s3cret",
    ],
)
def test_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^dsn: .*; use dynamodb://REGION/TABLE") as told:
        DynamoDBStorage(url)
    assert "s3cret" not in str(told.value).replace("has no option 's3cret';", "")


def test_invalid_settings_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="timeout: 0 is not allowed"):
        DynamoDBStorage(timeout=0)
    with pytest.raises(ConfigurationError, match=r"client: str is not a DynamoDB client; use boto3\.client"):
        DynamoDBStorage(client="dynamodb")


def test_message_about_missing_region_and_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    from pgjobq.storage.dynamodb import location

    location._session.cache_clear()  # so that a new session finds no credentials
    try:
        with pytest.raises(ConfigurationError, match=r"You must specify a region\.; set the region in the URL"):
            DynamoDBStorage().ping()
        with pytest.raises(ConfigurationError, match=r"Unable to locate credentials; .* AWS_ACCESS_KEY_ID"):
            DynamoDBStorage("dynamodb:///jobs?endpoint=http://127.0.0.1:1").ping()
        with pytest.raises(ConfigurationError, match=r"The config profile .* could not be found"):
            DynamoDBStorage("dynamodb:///jobs?profile=nobody").ping()
    finally:
        location._session.cache_clear()


# -- faults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [2, 99])
def test_request_to_a_busy_server_is_retried(make: Make, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = make()
    storage.ping()
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    busy = json.dumps({"__type": "x#ProvisionedThroughputExceededException", "message": "too fast"}).encode()
    asked: list[str] = []

    def refuse(request: Any, **_: Any) -> AWSResponse | None:
        asked.append(request.url)
        return Busy(request.url, 400, {}, busy) if len(asked) <= times else None

    storage._table.client.meta.events.register("before-send.dynamodb", refuse)
    if times == 99:
        with pytest.raises(StorageUnavailable, match=r"^DynamoDB at 127\.0\.0\.1:\d+ does not answer: too fast"):
            storage.get_job("a")
        assert len(asked) == 4
    else:
        assert storage.get_job("a") is None
        assert len(asked) == 3


class Busy(AWSResponse):  # type: ignore[misc]  # botocore has no types
    """An answer with an error, which the test puts in place of the server's."""

    def __init__(self, url: str, status: int, headers: dict[str, str], content: bytes) -> None:
        super().__init__(url, status, headers, None)
        self._content = content


def test_dead_server_is_named_and_used_again_after_its_restart(own_server: OwnServer, make: Make) -> None:
    server = own_server(DynamoDBLocal, durable=True)
    client, registry = connect(server.url, ONCE), Registry()
    storage, at_work = make("jobs", client=client, lease=60), make("jobs", client=client, lease=60)
    storage.enqueue_many([NewJob(id=name, type="t") for name in "abc"])
    a, b = storage.dequeue_many(2)
    began, go = threading.Event(), threading.Event()

    @job(registry=registry)
    def slow() -> None:
        began.set()
        go.wait(60)

    @job(registry=registry)
    def quick() -> None: ...

    storage.enqueue_many(
        [NewJob(id="slow", type="slow", queue="w"), NewJob(id="soon", type="quick", queue="w", delay=2)]
    )
    worker = Worker(at_work, registry=registry, queues=["w"])
    worker.start()
    try:
        assert began.wait(20)
        server.kill()
        go.set()  # the job ends while the server is down
        _each_call_says_so(storage, a, b, server.port)
        server.start()
        outcomes: list[Outcome] = [Completed(a), Failed(b, "boom")]
        assert storage.settle(outcomes) == []
        assert [found.id for found in storage.dequeue_many(5, ["default"])] == ["c"]
        for name in ("slow", "soon"):
            until(functools.partial(_completed, storage, name), seconds=30)
        hasty = make("jobs", client=connect(server.url, ONCE.merge(Config(read_timeout=1))))
        server.freeze()
        error = until(lambda: _unavailable(hasty), seconds=30)
        assert "Read timeout" in str(error)
    finally:
        server.thaw()
        worker.stop(grace=1)
        client.close()


def _each_call_says_so(storage: DynamoDBStorage, a: Job, b: Job, port: int) -> None:
    calls: list[Callable[[], object]] = [
        lambda: storage.enqueue("d", "t", {}),
        lambda: storage.enqueue_many([NewJob(type="t"), NewJob(type="t")]),
        storage.dequeue,
        lambda: storage.complete("a"),
        lambda: storage.settle([Completed(a), Failed(b, "boom")]),
        lambda: storage.get_job("a"),
        lambda: storage.maintain([a]),
        storage.keep,
    ]
    for call in calls:
        with pytest.raises(StorageUnavailable, match=rf"^DynamoDB at 127\.0\.0\.1:{port} does not answer: "):
            call()


def _completed(storage: DynamoDBStorage, job_id: str) -> bool:
    found = storage.get_job(job_id)
    assert found is not None
    return found.status == JobStatus.COMPLETED


def _unavailable(storage: DynamoDBStorage) -> StorageUnavailable | None:
    try:
        storage.ping()
    except StorageUnavailable as error:
        return error
    return None


def test_forked_child_is_a_worker_of_its_own(dynamo: DynamoDBStorage) -> None:
    dynamo.enqueue_many([NewJob(id=name, type="t") for name in "abc"])
    held = dynamo.dequeue_many(2)  # the storage has started its threads
    ours, theirs = multiprocessing.Pipe()

    def child() -> None:
        found = dynamo.dequeue()
        theirs.send(None if found is None else (found.id, found.worker_id))
        dynamo.complete("c")
        dynamo.leave()

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    assert ours.poll(20)
    started = ours.recv()
    process.join(20)
    assert process.exitcode == 0
    assert started[0] == "c"
    assert started[1] != held[0].worker_id
    assert dynamo.complete_many(held) == []
    assert dynamo.counts()[JobStatus.COMPLETED] == 3
