"""Keys in Redis for the tests, storages on them, and workers."""

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
    """Of the test's own keys."""
    return fresh_prefix()


@pytest.fixture
def make(redis_url: str, prefix: str) -> Iterator[MakeStorage]:
    """Makes storages on the test's keys; closed at the end."""
    made: list[RedisStorage] = []

    def make(url: Any = redis_url, **options: Any) -> RedisStorage:
        made.append(RedisStorage(url, **{"prefix": prefix, **options}))
        return made[-1]

    yield make
    for storage in made:
        storage.close()


@pytest.fixture
def storage(make: MakeStorage) -> RedisStorage:
    """One such storage."""
    return make()


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    """The server, as redis-py sees it."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def start(registry: Registry) -> Iterator[Callable[..., Worker]]:
    """Starts workers; stopped at the end."""
    workers: list[Worker] = []

    def start(storage: RedisStorage, **options: Any) -> Worker:
        workers.append(Worker(storage, registry=registry, **options))
        workers[-1].start()
        return workers[-1]

    yield start
    for worker in workers:
        worker.stop(grace=1)
