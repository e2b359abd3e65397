"""Databases of MongoDB for the tests, and storages on them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers.mongo import LEASE
from pymongo import MongoClient

from pgjobq.storage.mongo_storage import MongoStorage

Database = Any  # pymongo's is generic in its documents


@pytest.fixture
def name(mongo_url: str) -> Iterator[str]:
    """The test's own database, empty; dropped at the end."""
    name = f"pgjobq_{secrets.token_hex(6)}"
    yield name
    with MongoClient[Any](mongo_url) as client:
        client.drop_database(name)


@pytest.fixture
def database(mongo_url: str, name: str) -> Iterator[Database]:
    """The same, as pymongo sees it."""
    with MongoClient[Any](mongo_url) as client:
        yield client[name]


@pytest.fixture
def make(mongo_url: str, name: str) -> Iterator[Callable[..., MongoStorage]]:
    """Makes storages on the test's database; closed at the end."""
    made: list[MongoStorage] = []

    def make(uri: Any = mongo_url, **options: Any) -> MongoStorage:
        made.append(MongoStorage(uri, name, **{"lease": LEASE, "poll_interval": 0.1, **options}))
        return made[-1]

    yield make
    for storage in made:
        storage.close()


@pytest.fixture
def mongo(make: Callable[..., MongoStorage]) -> MongoStorage:
    """One such storage."""
    return make()
