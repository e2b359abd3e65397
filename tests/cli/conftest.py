"""Fixtures that run the command line on databases of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.cli import NOWHERE, Cli, made
from helpers.demos import Demo


@pytest.fixture
def cli(dsn: str, tmp_path: Path) -> Iterator[Cli]:
    """The command line on the test's database, with the schema installed."""
    yield from made(dsn, tmp_path)


@pytest.fixture
def empty_cli(empty_dsn: str, tmp_path: Path) -> Iterator[Cli]:
    """The command line on a database without the schema."""
    yield from made(empty_dsn, tmp_path)


@pytest.fixture
def lone_cli(tmp_path: Path) -> Iterator[Cli]:
    """The command line without a database, for mistakes that it must report before it connects."""
    yield from made(NOWHERE, tmp_path)


@pytest.fixture
def demos() -> Iterator[list[Demo]]:
    """A list for the demos that a test starts. They are killed at the end of the test."""
    started: list[Demo] = []
    yield started
    for demo in started:
        demo.kill()
