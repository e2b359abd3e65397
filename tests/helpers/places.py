"""Databases of each kind for tests that run on all of them: a URL of the test's own, which is empty."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy

KINDS = ["sqlite", "mariadb", "redis", "mongo", "dynamodb"]


def place(kind: str, request: pytest.FixtureRequest, folder: Path) -> str:
    """The URL of a database of the kind; what the test made there is removed with its server, or at once."""
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
