"""The command line on databases of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.cli import NOWHERE, Cli, made
from helpers.demos import Demo


@pytest.fixture
def cli(dsn: str, tmp_path: Path) -> Iterator[Cli]:
    """On the test's database, with the schema in it."""
    yield from made(dsn, tmp_path)


@pytest.fixture
def empty_cli(empty_dsn: str, tmp_path: Path) -> Iterator[Cli]:
    """On a database without the schema."""
    yield from made(empty_dsn, tmp_path)


@pytest.fixture
def lone_cli(tmp_path: Path) -> Iterator[Cli]:
    """Without a database: what it complains of, it finds before it asks one."""
    yield from made(NOWHERE, tmp_path)


@pytest.fixture
def demos() -> Iterator[list[Demo]]:
    """Those started; nothing of them outlives the test."""
    started: list[Demo] = []
    yield started
    for demo in started:
        demo.kill()
