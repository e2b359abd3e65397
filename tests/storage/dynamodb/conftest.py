"""Fixtures for the tests of DynamoDBStorage: tables, clients and storages."""

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
    """Set arbitrary credentials, so that boto3 does not use the user's."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def tables(dynamodb_url: str) -> str:
    """Create tables for all tests, because this takes longer than most tests."""
    return f"jobs_{secrets.token_hex(6)}"


@pytest.fixture
def client(dynamodb_url: str) -> Iterator[Any]:
    """Return a client for this test."""
    client = connect(dynamodb_url)
    yield client
    client.close()


@pytest.fixture
def url(dynamodb_url: str, tables: str, client: Any) -> str:
    """Empty the tables and return their name."""
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
    """Return a function that creates storages on the tables. They are closed at the end."""
    made: list[DynamoDBStorage] = []

    def make(table: str = url, **options: Any) -> DynamoDBStorage:
        made.append(DynamoDBStorage(table, **{"lease": LEASE, "poll_interval": 0.1, **options}))
        return made[-1]

    yield make
    for storage in made:
        storage.close()


@pytest.fixture
def dynamo(make: Make) -> DynamoDBStorage:
    """Return a storage on the tables."""
    return make()


@pytest.fixture
def between(client: Any) -> Between:
    return Between(client)


@pytest.fixture
def through(make: Make, tables: str, between: Between) -> DynamoDBStorage:
    """Return a storage that uses the client `between`."""
    storage = make(tables, client=between, lease=60)  # so long that no renewal is recorded
    storage.ping()
    between.calls.clear()
    return storage
