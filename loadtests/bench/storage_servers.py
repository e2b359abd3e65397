"""The servers for storages.py, which are as durable as possible. Each function yields a URL and a description."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version

import psycopg
import sqlalchemy
from services import MariaDB, Redis, SecantusDB, Valkey, dynamodb

from bench.harness import SETTINGS, files
from pgjobq.devserver import DevServer
from pgjobq.postgres.schema import migrate


@contextmanager
def postgres(prefix: str = "") -> Iterator[tuple[str, str]]:
    """Start a durable PostgreSQL with pgjobq's schema."""
    with DevServer(settings=SETTINGS, durable=True) as server:
        migrate(server.dsn)
        with psycopg.connect(server.dsn) as conn:
            number = conn.info.parameter_status("server_version")
        yield prefix + server.dsn, f"PostgreSQL {number}, synced at commit"


@contextmanager
def sqlite() -> Iterator[tuple[str, str]]:
    """Use a SQLite file."""
    with files() as folder:
        yield f"sqlite:///{folder / 'jobs.db'}", f"SQLite {sqlite3.sqlite_version}, WAL, synced at commit"


class SyncedMariaDB(MariaDB):
    """MariaDB with a sync at each commit."""

    def command(self) -> Sequence[str]:
        """Append the settings, because the last value of a setting counts."""
        return [*super().command(), "--innodb-flush-log-at-trx-commit=1", "--innodb-buffer-pool-size=512M"]


@contextmanager
def mariadb() -> Iterator[tuple[str, str]]:
    """Start a durable MariaDB."""
    with SyncedMariaDB() as server:
        engine = sqlalchemy.create_engine(server.url)
        with engine.connect() as conn:
            number = str(conn.execute(sqlalchemy.text("select version()")).scalar()).split("-")[0]
        engine.dispose()
        yield server.url, f"MariaDB {number}, synced at commit"


@contextmanager
def redis_like(kind: type[Redis | Valkey]) -> Iterator[tuple[str, str]]:
    """Start Valkey or Redis with an append-only file that is synced once a second, which is the default."""
    with kind("appendfsync everysec", durable=True) as server:
        import redis

        with redis.Redis.from_url(server.url) as client:
            info = client.info("server")
        number = info.get("valkey_version") or info["redis_version"]
        yield server.url, f"{kind.name} {number}, synced every second"


@contextmanager
def mongo() -> Iterator[tuple[str, str]]:
    """Start the emulator of MongoDB."""
    with SecantusDB(durable=True) as server:
        yield server.url, f"{SecantusDB.name} {version('SecantusDB')}, an emulator"


@contextmanager
def dynamodb_table() -> Iterator[tuple[str, str]]:
    """Use a table of DynamoDB Local or of moto's server, which accept any credentials."""
    os.environ |= {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}
    with dynamodb() as server:
        yield f"dynamodb://bench/jobs?endpoint={server.url}", f"{server.name}, in memory"
