"""Tests of the app: the setting, the migration and the checks."""

from __future__ import annotations

import psycopg
from helpers.django_project import Project


def version(project: Project) -> int | None:
    with psycopg.connect(project.dsn) as conn:
        row = conn.execute("select to_regclass('pgjobq.schema_version') is not null").fetchone()
        assert row is not None
        if not row[0]:
            return None
        newest = conn.execute("select max(version) from pgjobq.schema_version").fetchone()
        assert newest is not None
        return int(newest[0])


def test_migrate_installs_and_upgrades(bare_project: Project) -> None:
    assert "pgjobq.W002" in bare_project.manage("check", "--database", "default")
    said = bare_project.manage("migrate")
    assert "pgjobq.0001_initial... OK" in said
    assert "W002" not in said
    assert "no issues" in bare_project.manage("check", "--database", "default")
    newest = version(bare_project)
    assert newest is not None
    assert bare_project.manage("makemigrations", "--check", "--dry-run").strip() == "No changes detected"
    with psycopg.connect(bare_project.dsn, autocommit=True) as conn:
        conn.execute("drop function pgjobq.edit_job")  # as if the package had a new function
    bare_project.manage("migrate")
    with psycopg.connect(bare_project.dsn) as conn:
        assert conn.execute(
            "select count(*) from pg_proc where proname = 'edit_job' and pronamespace = 'pgjobq'::regnamespace"
        ).fetchone() == (1,)


def test_psycopg2_installs_too(bare_project: Project, driver: str) -> None:
    bare_project.script(
        "from django.core.management import call_command\ncall_command('migrate', verbosity=0)", before=driver
    )
    assert version(bare_project) is not None


def test_checks_name_an_older_and_a_newer_schema(project: Project) -> None:
    newest = version(project)
    assert newest is not None
    with psycopg.connect(project.dsn, autocommit=True) as conn:
        conn.execute("insert into pgjobq.schema_version (version) values (999)")
        done = project.call(str(project.manage_py), "check", "--database", "default")
        assert "pgjobq.E003" in done.stderr
        conn.execute("delete from pgjobq.schema_version where version >= %s", [newest])
    assert f"is at version {newest - 1}" in project.manage("check", "--database", "default")


def test_mistakes_in_the_setting(bare_project: Project) -> None:
    for given, said in {
        "{'SCHEMA': 'pg_x'}": "'pg_x' is not a valid name",
        "{'SCHMA': 'x'}": "'SCHMA' is not a key",
        "{'DATABASE': 'x'}": "DATABASE 'x' is not in DATABASES",
        "{'MODULES': 'x'}": "MODULES 'x' is not a list",
        "'x'": "'x' is not a dict",
    }.items():
        bare_project.settings(f"PGJOBQ = {given}")
        done = bare_project.call(str(bare_project.manage_py), "check")
        assert done.returncode != 0
        assert said in done.stderr
        assert "Traceback" not in done.stderr, done.stderr


def test_another_vendor_is_skipped(bare_project: Project) -> None:
    bare_project.settings("DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': 'x.db'}}")
    assert "pgjobq.W001" in bare_project.manage("check")
    assert "pgjobq.0001_initial... OK" in bare_project.manage("migrate")
    done = bare_project.call(str(bare_project.manage_py), "pgjobq", "stats")
    assert done.returncode == 1
    assert done.stderr.startswith("pgjobq: DATABASES['default']: pgjobq needs PostgreSQL, but this is sqlite;")
    assert version(bare_project) is None


def test_own_schema_in_another_database_of_the_project(bare_project: Project) -> None:
    bare_project.settings(
        """
        DATABASES = {"jobs": DATABASES["default"], "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "x.db"}}
        PGJOBQ = {"DATABASE": "jobs", "SCHEMA": "own%s"}
        """
    )
    bare_project.manage("migrate", "-v", "0")
    bare_project.manage("migrate", "-v", "0", "--database", "jobs")
    assert bare_project.script("from pgjobq.django import enqueue\nenqueue('ping')\n") == []
    assert "ping" in bare_project.manage("pgjobq", "list")
    with psycopg.connect(bare_project.dsn) as conn:
        assert conn.execute('select count(*) from "own%s".jobs').fetchone() == (1,)


def test_importing_pgjobq_does_not_import_django(bare_project: Project) -> None:
    done = bare_project.call(
        "-c", "import sys, pgjobq, pgjobq.cli, pgjobq.worker, pgjobq.queue; print('django' in sys.modules)"
    )
    assert done.stdout == "False\n", done.stderr
