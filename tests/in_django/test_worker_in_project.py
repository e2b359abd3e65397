"""Tests of `manage.py pgjobq`: a worker in a Django project."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from helpers.django_project import Project

PATIENCE = 30.0  # seconds

HANDLERS = """
import os
from asgiref.sync import sync_to_async
from django.db import connection
from pgjobq import job
from shop.models import Order

def pid():
    with connection.cursor() as cursor:
        cursor.execute("select pg_backend_pid()")
        return cursor.fetchone()[0]

@job
def place() -> int:
    return pid()

@job
async def place_async() -> int:
    return await sync_to_async(pid)()

@job(isolate="process")
def apart() -> int:
    return Order.objects.count()
"""


def until(what: Callable[[], Any], project: Project) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := what()):
        assert time.monotonic() < deadline, project.log()
        time.sleep(0.05)
    return found


def result_of(project: Project, job_id: str) -> Any:
    """Wait until a job has completed, and return its result."""

    def look() -> Any:
        with psycopg.connect(project.dsn) as conn:
            row = conn.execute(
                "select status, pgjobq.job_result(id), error from pgjobq.jobs where id = %s", [job_id]
            ).fetchone()
            assert row is not None
            assert row[0] != "failed", row
            return (row[1],) if row[0] == "completed" else None

    return until(look, project)[0]


def enqueue(project: Project, job_type: str, data: str = "{}") -> str:
    with psycopg.connect(project.dsn) as conn:
        row = conn.execute("select pgjobq.enqueue_job(%s, %s::jsonb)", [job_type, data]).fetchone()
        assert row is not None
        return str(row[0])


@pytest.fixture
def with_handlers(project: Project) -> Project:
    (project.folder / "own_jobs.py").write_text(HANDLERS)
    project.settings("PGJOBQ = {'MODULES': ['own_jobs']}\nDATABASES['default']['CONN_MAX_AGE'] = None")
    return project


def test_handlers_of_the_apps_use_the_orm(with_handlers: Project) -> None:
    project = with_handlers
    job_id = project.script(
        """
        from django.test import Client
        print(Client().get("/order/ann").json()["job"])
        """
    )[0]
    project.worker()
    assert result_of(project, job_id) == "Invoice 1 for ann"
    assert result_of(project, enqueue(project, "count_orders")) == 1
    assert result_of(project, enqueue(project, "apart")) == 1


@pytest.mark.parametrize("job_type", ["place", "place_async"])
def test_lost_connection_fails_at_most_one_try(with_handlers: Project, job_type: str) -> None:
    project = with_handlers
    project.worker("--concurrency", "1")
    first = result_of(project, enqueue(project, job_type))
    assert result_of(project, enqueue(project, job_type)) == first, "the connection is not kept for the next job"
    with psycopg.connect(project.dsn, autocommit=True) as conn:
        conn.execute("select pg_terminate_backend(%s, 5000)", [first])
    second = result_of(project, enqueue(project, job_type))
    assert second != first
    assert result_of(project, enqueue(project, job_type)) == second


@pytest.mark.parametrize("job_type", ["place", "place_async"])
def test_connection_is_closed_after_its_age(with_handlers: Project, job_type: str) -> None:
    project = with_handlers
    project.settings("PGJOBQ = {'MODULES': ['own_jobs']}\nDATABASES['default']['CONN_MAX_AGE'] = 0")
    project.worker("--concurrency", "1")
    places = {result_of(project, enqueue(project, job_type)) for _ in range(3)}
    assert len(places) == 3


def test_processes_share_no_connection(with_handlers: Project) -> None:
    project = with_handlers
    project.worker("--processes", "2", "--concurrency", "1")
    ids = [enqueue(project, "place") for _ in range(20)]
    assert all(result_of(project, job_id) for job_id in ids)


def test_lone_pgjobq_worker_sets_django_up(project: Project) -> None:
    job_id = enqueue(project, "count_orders")
    project.start("-m", "pgjobq", "worker", "--dsn", project.dsn)
    assert result_of(project, job_id) == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("nowhere", "DJANGO_SETTINGS_MODULE: 'nowhere' cannot be used: ModuleNotFoundError"),
        ("broken", "DJANGO_SETTINGS_MODULE: 'broken' cannot be used: django.core.exceptions.ImproperlyConfigured"),
    ],
)
def test_settings_that_cannot_be_used_are_one_line(bare_project: Project, settings: str, said: str) -> None:
    (bare_project.folder / "broken.py").write_text("SECRET_KEY = ''\nINSTALLED_APPS = ['no_such_app_']\n")
    if settings == "broken":
        (bare_project.folder / "broken.py").write_text(
            "from django.core.exceptions import ImproperlyConfigured\nraise ImproperlyConfigured('SHOP_KEY is missing')\n"
        )
    bare_project.env["DJANGO_SETTINGS_MODULE"] = settings
    done = bare_project.call("-m", "pgjobq", "worker", "--dsn", bare_project.dsn)
    assert done.returncode in {1, 2}
    assert done.stderr.startswith(f"pgjobq: {said}")
    assert done.stderr.count("\n") == 1, done.stderr


def test_commands_use_the_database_of_the_project(project: Project) -> None:
    enqueue(project, "ping")
    assert "schema pgjobq is up to date" in project.manage("pgjobq", "migrate")
    assert "ping" in project.manage("pgjobq", "list")
    assert "pending" in project.manage("pgjobq", "stats")
    done = project.call(str(project.manage_py), "pgjobq", "show", "nowhere")
    assert done.returncode == 3
    assert project.call(str(project.manage_py), "pgjobq", "nonsense").returncode == 2


def test_a_worker_without_modules_needs_a_project(bare_project: Project) -> None:
    del bare_project.env["DJANGO_SETTINGS_MODULE"]
    done = bare_project.call("-m", "pgjobq", "worker", "--dsn", bare_project.dsn)
    assert done.returncode == 2
    assert "MODULE" in done.stderr


def test_reload(with_handlers: Project) -> None:
    project = with_handlers
    supervisor = project.worker("--reload")
    assert result_of(project, enqueue(project, "count_orders")) == 0
    (project.folder / "own_jobs.py").write_text(
        "from pgjobq import job\n\n@job\ndef fresh() -> str:\n    return 'new'\n"
    )
    assert result_of(project, enqueue(project, "fresh")) == "new"
    supervisor.terminate()
    assert supervisor.wait(PATIENCE) == 0
    with psycopg.connect(project.dsn) as conn:
        until(lambda: conn.execute("select count(*) from pgjobq.worker_status where alive").fetchone() == (0,), project)
