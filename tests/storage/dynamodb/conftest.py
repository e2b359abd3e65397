"""Tables of DynamoDB for the tests, and storages on them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from helpers.dynamodb import LEASE, Between, connect

from pgjobq.storage.dynamodb_storage import DynamoDBStorage

Make = Callable[..., DynamoDBStorage]


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any will do; nobody's own are looked at."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def tables(dynamodb_url: str) -> str:
    """Tables for all tests: making them takes longer than most tests."""
    return f"jobs_{secrets.token_hex(6)}"


@pytest.fixture
def client(dynamodb_url: str) -> Iterator[Any]:
    """A client of the test's own."""
    client = connect(dynamodb_url)
    yield client
    client.close()


@pytest.fixture
def url(dynamodb_url: str, tables: str, client: Any) -> str:
    """The tables, empty."""
    for table in (tables, f"{tables}_meta"):
        with suppress(client.exceptions.ResourceNotFoundException):
            found = client.get_paginator("scan").paginate(TableName=table, ProjectionExpression="id")
            keys = [item for page in found for item in page["Items"]]
            for start in range(0, len(keys), 25):
                deletes = [{"DeleteRequest": {"Key": key}} for key in keys[start : start + 25]]
                client.batch_write_item(RequestItems={table: deletes})
    return f"dynamodb://eu-west-1/{tables}?endpoint={dynamodb_url}"


@pytest.fixture
def make(url: str) -> Iterator[Make]:
    """Makes storages on the test's tables; closed at the end."""
    made: list[DynamoDBStorage] = []

    def make(table: str = url, **options: Any) -> DynamoDBStorage:
        made.append(DynamoDBStorage(table, **{"lease": LEASE, "poll_interval": 0.1, **options}))
        return made[-1]

    yield make
    for storage in made:
        storage.close()


@pytest.fixture
def dynamo(make: Make) -> DynamoDBStorage:
    """One such storage."""
    return make()


@pytest.fixture
def between(client: Any) -> Between:
    return Between(client)


@pytest.fixture
def through(make: Make, tables: str, between: Between) -> DynamoDBStorage:
    """A storage whose client is in the test's hands."""
    storage = make(tables, client=between, lease=60)  # a renewal would be seen, too
    storage.ping()
    between.calls.clear()
    return storage
