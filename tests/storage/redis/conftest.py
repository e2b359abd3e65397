"""Fixtures for the tests of RedisStorage: a prefix for each test, storages, a client and workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from helpers.redis_keys import fresh_prefix

from pgjobq import (
    Registry,
    Worker,
)
from pgjobq.storage.redis_storage import RedisStorage

MakeStorage = Callable[..., RedisStorage]


@pytest.fixture
def prefix() -> str:
    """Return the prefix of the keys of this test."""
    return fresh_prefix()


@pytest.fixture
def make(redis_url: str, prefix: str) -> Iterator[MakeStorage]:
    """Return a function that creates storages with the test's prefix. They are closed at the end."""
    made: list[RedisStorage] = []

    def make(url: Any = redis_url, **options: Any) -> RedisStorage:
        made.append(RedisStorage(url, **{"prefix": prefix, **options}))
        return made[-1]

    yield make
    for storage in made:
        storage.close()


@pytest.fixture
def storage(make: MakeStorage) -> RedisStorage:
    """Return a storage with the test's prefix."""
    return make()


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    """Return redis-py's client of the server."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def start(registry: Registry) -> Iterator[Callable[..., Worker]]:
    """Return a function that starts workers. They are stopped at the end."""
    workers: list[Worker] = []

    def start(storage: RedisStorage, **options: Any) -> Worker:
        workers.append(Worker(storage, registry=registry, **options))
        workers[-1].start()
        return workers[-1]

    yield start
    for worker in workers:
        worker.stop(grace=1)
