"""Empty databases for the tests of SQLAlchemyStorage, and functions with which child processes create storages."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import create_engine, make_url

from pgjobq.storage.sqlalchemy.engine import OPTIMISTIC
from pgjobq.storage.sqlalchemy_storage import SQLAlchemyStorage


@contextmanager
def mariadb_database(server_url: str) -> Iterator[str]:
    """Create a database on this server, yield its URL, and drop it at the end."""
    name = f"t_{secrets.token_hex(6)}"
    engine = create_engine(server_url)
    with engine.begin() as conn:
        conn.exec_driver_sql(f"create database {name}")
    try:
        yield make_url(server_url).set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.begin() as conn:
            conn.exec_driver_sql(f"drop database {name}")
        engine.dispose()


def postgres_url(dsn: str) -> str:
    """Convert a libpq conninfo to a URL for SQLAlchemy that does not name a driver."""
    parts = conninfo_to_dict(dsn)
    user = f"{parts['user']}:{parts['password']}" if parts.get("password") else parts["user"]
    return f"postgresql://{user}@{parts['host']}:{parts['port']}/{parts['dbname']}"


def driven(url: str) -> str:
    """Add psycopg 3 to the URL, because SQLAlchemy 2.0 would use psycopg2 for create_engine."""
    return url.replace("postgresql://", "postgresql+psycopg://")


def at_isolation(url: str, level: str, **options: Any) -> SQLAlchemyStorage:
    """Return a storage on an engine with this isolation level."""
    return SQLAlchemyStorage(create_engine(driven(url), isolation_level=level), **options)


def optimistic(url: str, *, returning: bool, **options: Any) -> SQLAlchemyStorage:
    """Return a storage that claims as in a database without SKIP LOCKED."""
    storage = SQLAlchemyStorage(url, **options)
    database = storage._database
    database._traits = replace(database.traits, claiming=OPTIMISTIC, returning=returning and database.traits.returning)
    return storage
