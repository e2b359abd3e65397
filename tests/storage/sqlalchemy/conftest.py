"""Fixtures for the tests of SQLAlchemyStorage: databases of each kind, and storages on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.sqlalchemy_databases import mariadb_database, postgres_url
from sqlalchemy import Engine, create_engine, text

from pgjobq.storage.sqlalchemy_storage import SQLAlchemyStorage

MakeStorage = Callable[..., SQLAlchemyStorage]
EACH = ("sqlite", "mariadb", "postgresql")


@pytest.fixture(params=EACH)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return the URL of an empty database, one of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/jobs.db"
    elif request.param == "postgresql":
        yield postgres_url(request.getfixturevalue("empty_dsn"))
    else:
        with mariadb_database(request.getfixturevalue("mariadb_url")) as made:
            yield made


@pytest.fixture
def make(url: str) -> Iterator[MakeStorage]:
    """Return a function that creates storages on this or another URL. They are closed at the end."""
    made: list[SQLAlchemyStorage] = []

    def make(target: Any = None, **options: Any) -> SQLAlchemyStorage:
        made.append(SQLAlchemyStorage(target if target is not None else url, **options))
        return made[-1]

    yield make
    for storage in made:
        storage.close()


@pytest.fixture
def storage(make: MakeStorage) -> SQLAlchemyStorage:
    """Return a storage on the database."""
    return make()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[SQLAlchemyStorage]:
    """Return a storage on a SQLite file."""
    storage = SQLAlchemyStorage(f"sqlite:///{tmp_path}/jobs.db")
    yield storage
    storage.close()


@pytest.fixture
def business(storage: SQLAlchemyStorage) -> Iterator[Engine]:
    """Return the caller's engine on the storage's database, which has a table of business data."""
    engine = create_engine(storage.engine.url)
    with engine.begin() as conn:
        conn.execute(text("create table orders (id integer primary key)"))
    yield engine
    engine.dispose()
