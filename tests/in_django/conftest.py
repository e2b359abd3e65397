"""A Django project for each test. The folder is not called django, because mypy would take it for Django."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.django_project import PSYCOPG2, Project


@pytest.fixture
def bare_project(empty_dsn: str, tmp_path: Path) -> Iterator[Project]:
    """The project on a database without tables."""
    made = Project(empty_dsn, tmp_path)
    yield made
    made.stop()


@pytest.fixture
def project(bare_project: Project) -> Project:
    """The project after `manage.py migrate`."""
    bare_project.manage("migrate", "-v", "0")
    return bare_project


@pytest.fixture(params=["psycopg", "psycopg2"])
def driver(request: pytest.FixtureRequest) -> str:
    """What a script begins with, so that Django uses psycopg 3 or psycopg2."""
    return PSYCOPG2 if request.param == "psycopg2" else ""
