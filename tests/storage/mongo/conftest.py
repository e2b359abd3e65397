"""Fixtures for the tests of MongoStorage: a database for each test, and storages on it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers.mongo import LEASE
from pymongo import MongoClient

from pgjobq.storage.mongo_storage import MongoStorage

Database = Any  # pymongo's class is generic in its documents


@pytest.fixture
def name(mongo_url: str) -> Iterator[str]:
    """Return the name of an empty database, which is dropped at the end."""
    name = f"pgjobq_{secrets.token_hex(6)}"
    yield name
    with MongoClient[Any](mongo_url) as client:
        client.drop_database(name)


@pytest.fixture
def database(mongo_url: str, name: str) -> Iterator[Database]:
    """Return pymongo's object for the database."""
    with MongoClient[Any](mongo_url) as client:
        yield client[name]


@pytest.fixture
def make(mongo_url: str, name: str) -> Iterator[Callable[..., MongoStorage]]:
    """Return a function that creates storages on the database. They are closed at the end."""
    made: list[MongoStorage] = []

    def make(uri: Any = mongo_url, **options: Any) -> MongoStorage:
        made.append(MongoStorage(uri, name, **{"lease": LEASE, "poll_interval": 0.1, **options}))
        return made[-1]

    yield make
    for storage in made:
        storage.close()


@pytest.fixture
def mongo(make: Callable[..., MongoStorage]) -> MongoStorage:
    """Return a storage on the test's database."""
    return make()
