"""StorageContract: storages that keep their promises pass it, and those that do not are told which they break."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from memory_storages import DictStorage, Memory, MemoryStorage

from pgjobq.storage.postgres_storage import PostgresStorage
from pgjobq.testing import StorageContract


class TestPostgresStorage(StorageContract):
    """With everything that it adds to the seven methods."""

    storage_class = PostgresStorage

    @pytest.fixture
    def make_storage(self, dsn: str) -> Callable[[], PostgresStorage]:
        return partial(PostgresStorage, dsn)


class TestSevenMethods(StorageContract):
    """A class of the seven methods alone, which lives in one process."""

    storage_class = DictStorage
    processes = False

    @pytest.fixture
    def make_storage(self) -> Callable[[], DictStorage]:
        return partial(DictStorage, Memory())


class TestMemoryStorage(StorageContract):
    """A storage with everything, for the broken ones below to be made of."""

    storage_class = MemoryStorage
    processes = False

    @pytest.fixture
    def make_storage(self) -> Callable[[], MemoryStorage]:
        return partial(MemoryStorage, Memory())
