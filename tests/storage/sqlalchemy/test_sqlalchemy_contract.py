"""Runs the contract on SQLAlchemyStorage, with each database and each way of claiming."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from helpers.sqlalchemy_databases import at_isolation, mariadb_database, optimistic, postgres_url
from sqlalchemy import StaticPool, create_engine

from pgjobq.storage.sqlalchemy_storage import SQLAlchemyStorage
from pgjobq.testing import StorageContract

LEASE = 1.5  # seconds
MakeStorage = Callable[[], SQLAlchemyStorage]


class SQLAlchemyContract(StorageContract):
    """The settings that the classes below share."""

    storage_class = SQLAlchemyStorage


class Briefly:
    """Fewer examples and jobs, for a class that tests the same database in another way."""

    jobs, examples, steps = 100, 8, 15


class TestSQLiteFile(SQLAlchemyContract):
    @pytest.fixture
    def make_storage(self, tmp_path: Path) -> MakeStorage:
        return partial(SQLAlchemyStorage, f"sqlite:///{tmp_path}/jobs.db", lease=LEASE)


class TestSQLiteInMemory(SQLAlchemyContract):
    """The storages share one engine, because each engine on :memory: has its own database."""

    processes = reopens = False

    @pytest.fixture
    def make_storage(self) -> Iterator[MakeStorage]:
        with closing(SQLAlchemyStorage("sqlite:///:memory:")) as first:
            yield partial(SQLAlchemyStorage, first.engine, lease=LEASE)


class OneConnection(SQLAlchemyStorage):
    """Lets a Worker use the program's only connection, because here the program leaves it alone."""

    def check_threads(self) -> None: ...


class TestSQLiteOneConnection(Briefly, SQLAlchemyContract):
    """All threads share one connection, as they do with a StaticPool."""

    processes = reopens = False

    @pytest.fixture
    def make_storage(self) -> Iterator[MakeStorage]:
        engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        yield partial(OneConnection, engine, lease=LEASE)
        engine.dispose()


class TestOptimistic(SQLAlchemyContract):
    """Claims by updates and their row counts."""

    @pytest.fixture
    def make_storage(self, tmp_path: Path) -> MakeStorage:
        return partial(optimistic, f"sqlite:///{tmp_path}/jobs.db", returning=False, lease=LEASE)


class TestOptimisticReturning(Briefly, SQLAlchemyContract):
    """Claims by updates that return their rows."""

    @pytest.fixture
    def make_storage(self, tmp_path: Path) -> MakeStorage:
        return partial(optimistic, f"sqlite:///{tmp_path}/jobs.db", returning=True, lease=LEASE)


class TestPostgreSQL(SQLAlchemyContract):
    @pytest.fixture
    def make_storage(self, empty_dsn: str) -> MakeStorage:
        return partial(SQLAlchemyStorage, postgres_url(empty_dsn), lease=LEASE)


@pytest.fixture
def mariadb(mariadb_url: str) -> Iterator[str]:
    """Return the URL of a database for this test."""
    with mariadb_database(mariadb_url) as url:
        yield url


class TestMariaDBAtReadCommitted(SQLAlchemyContract):
    """The isolation level that SQLAlchemyStorage sets if it gets a URL."""

    @pytest.fixture
    def make_storage(self, mariadb: str) -> MakeStorage:
        return partial(SQLAlchemyStorage, mariadb, lease=LEASE)


class TestMariaDBAtRepeatableRead(Briefly, SQLAlchemyContract):
    """The default isolation level of MySQL. A storage of the caller's engine cannot be reopened."""

    reopens = False

    @pytest.fixture
    def make_storage(self, mariadb: str) -> MakeStorage:
        return partial(at_isolation, mariadb, "REPEATABLE READ", lease=LEASE)
