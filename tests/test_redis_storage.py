"""RedisStorage on Valkey and on Redis: the contract, and what Redis alone can do to it."""

from __future__ import annotations

import secrets
from functools import partial

import pytest

from pgjobq.storage.redis_storage import RedisStorage
from pgjobq.testing import StorageContract


def fresh_prefix() -> str:
    return f"test-{secrets.token_hex(4)}"


class TestOnValkey(StorageContract):
    """What every storage promises."""

    storage_class = RedisStorage

    @pytest.fixture
    def make_storage(self, redis_url: str) -> partial[RedisStorage]:
        """Storages with a prefix of the test's own."""
        return partial(RedisStorage, redis_url, prefix=fresh_prefix(), lease=1.5)


class TestOnRedis(TestOnValkey):
    """The same on Debian's Redis."""

    @pytest.fixture
    def make_storage(self, debian_redis_url: str) -> partial[RedisStorage]:
        """Storages with a prefix of the test's own."""
        return partial(RedisStorage, debian_redis_url, prefix=fresh_prefix(), lease=1.5)
