"""System checks: the setting PGJOBQ, the kind of the database, and with `--database` whether it is migrated."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core import checks
from django.db import connections

from pgjobq.django.conf import current
from pgjobq.errors import ConfigurationError, PgjobqError
from pgjobq.postgres.drivers import translated
from pgjobq.postgres.schema import newest_version

BACKEND = "pgjobq.django.tasks.PgjobqBackend"


def register() -> None:
    """Register the checks."""
    checks.register(check_setting, "pgjobq")
    checks.register(check_tasks, "pgjobq")
    checks.register(check_database, checks.Tags.database)


def check_setting(**_: Any) -> list[checks.CheckMessage]:
    """Check the setting and the vendor, without a connection."""
    try:
        conf = current()
    except ConfigurationError as error:
        return [checks.Error(str(error), id="pgjobq.E001")]
    if (vendor := connections[conf.database].vendor) != "postgresql":
        return [
            checks.Warning(
                f"The database {conf.database!r} is {vendor}, so pgjobq installs nothing there and enqueues nothing.",
                hint="Name a PostgreSQL database in the setting: PGJOBQ = {'DATABASE': ...}.",
                id="pgjobq.W001",
            )
        ]
    return []


def check_tasks(**_: Any) -> list[checks.CheckMessage]:
    """Check the OPTIONS of the backend for tasks. Django 6 calls no check of a backend by itself."""
    found: list[checks.CheckMessage] = []
    for alias, params in (getattr(settings, "TASKS", None) or {}).items():
        if params.get("BACKEND") != BACKEND:
            continue
        options = params.get("OPTIONS", {})
        for name in options.keys() - {"max_retries"}:
            hint = "The options are: max_retries."
            found.append(checks.Error(f"TASKS[{alias!r}]: {name!r} is not an option.", hint=hint, id="pgjobq.E004"))
        retries = options.get("max_retries", 0)
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            message = f"TASKS[{alias!r}]: max_retries is {retries!r}; use a whole number from 0."
            found.append(checks.Error(message, id="pgjobq.E005"))
    return found


def check_database(*, databases: Sequence[str] | None = None, **_: Any) -> list[checks.CheckMessage]:
    """Check that the schema is at the version of this package, on the databases that Django asks for."""
    try:
        conf = current()
    except ConfigurationError:
        return []  # check_setting reports it
    connection = connections[conf.database]
    if conf.database not in (databases or ()) or connection.vendor != "postgresql":
        return []
    if sys.argv[1:2] == ["migrate"]:  # it runs these checks too, before it does what they ask for
        return []
    table = '"{}".schema_version'.format(conf.schema.replace('"', '""'))
    try:
        with translated(), connection.cursor() as cursor:
            cursor.execute("select to_regclass(%s) is not null", [table])
            found = None
            if cursor.fetchone()[0]:
                cursor.execute(f"select max(version) from {table}")  # noqa: S608  # a quoted name
                found = cursor.fetchone()[0]
    except PgjobqError as error:
        return [checks.Error(f"pgjobq: {error}", id="pgjobq.E002")]
    newest = newest_version()
    if found is None or int(found) < newest:
        state = "is not installed" if found is None else f"is at version {found}, and this pgjobq needs {newest}"
        return [
            checks.Warning(
                f"The schema {conf.schema!r} {state}.",
                hint="Run: manage.py migrate --database " + conf.database,
                id="pgjobq.W002",
            )
        ]
    if int(found) > newest:
        message = f"The schema {conf.schema!r} is at version {found}, and this pgjobq supports only up to {newest}."
        return [checks.Error(message, hint="Upgrade the package pgjobqueue.", id="pgjobq.E003")]
    return []
