"""An empty database of each kind, for tests that run on all of them."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy

KINDS = ["sqlite", "mariadb", "redis", "mongo", "dynamodb"]


def place(kind: str, request: pytest.FixtureRequest, folder: Path) -> str:
    """Return the URL of an empty database of this kind, which only this test uses.

    A MariaDB database is dropped after the test. The others are deleted with their server or folder.
    """
    if kind == "sqlite":
        return f"sqlite:///{folder / f'jobs_{secrets.token_hex(2)}.db'}"
    served: str = request.getfixturevalue(f"{kind}_url")
    name = f"test_{secrets.token_hex(4)}"
    make: dict[str, Callable[[], str]] = {
        "mariadb": lambda: _mariadb(served, name, request),
        "redis": lambda: _redis(f"{served}/7"),
        "mongo": lambda: f"{served}/{name}",
        "dynamodb": lambda: f"dynamodb://test/{name}?endpoint={served}",
    }
    return make[kind]()


def _mariadb(served: str, name: str, request: pytest.FixtureRequest) -> str:
    server = sqlalchemy.create_engine(served)

    def run(statement: str) -> None:
        with server.begin() as conn:
            conn.execute(sqlalchemy.text(f"{statement} database {name}"))

    def end() -> None:
        run("drop")
        server.dispose()

    run("create")
    request.addfinalizer(end)
    return f"{served.rpartition('/')[0]}/{name}"


def _redis(url: str) -> str:
    import redis

    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url
