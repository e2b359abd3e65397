"""Install pgjobq's schema, or upgrade it, on Django's connection."""

from __future__ import annotations

import random
import time
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from pgjobq.django.conf import current
from pgjobq.errors import JobsHeld, StorageError, StorageUnavailable
from pgjobq.postgres.drivers import translated
from pgjobq.postgres.schema import PATIENCE, PAUSE, migration_sql

_installed: set[tuple[str, str]] = set()  # the database's name and the schema, for those that this process installed


def install(connection: BaseDatabaseWrapper, schema: str, patience: float = PATIENCE) -> None:
    """Run the installation, which is one transaction, and safe to repeat. It must not run inside another transaction.

    If a table is in use, it waits half a second at a time, and retries for patience seconds.
    """
    if connection.in_atomic_block:
        raise StorageError("pgjobq's schema cannot be installed inside a transaction; use atomic = False")
    script, deadline = migration_sql(schema), time.monotonic() + patience
    while True:
        try:
            with translated(), connection.cursor() as cursor:
                try:
                    cursor.execute(script)
                except Exception:
                    cursor.execute("rollback")  # the script began the transaction, so Django knows nothing of it
                    raise
            break
        except (JobsHeld, StorageUnavailable):
            pause = PAUSE * random.uniform(0.5, 1.5)  # noqa: S311  # jitter need not be secret
            if time.monotonic() + pause > deadline:
                raise
            time.sleep(pause)
    _installed.add(_key(connection, schema))


def install_for_migration(_apps: Any, schema_editor: Any) -> None:
    """Install for the migration 0001. Does nothing on other databases of the project, and on other vendors."""
    conf, connection = current(), schema_editor.connection
    if connection.alias == conf.database and connection.vendor == "postgresql":
        install(connection, conf.schema)


def upgrade_after_migrate(*, using: str, plan: Any = None, **_: Any) -> None:
    """Bring the functions up to date after `manage.py migrate`, unless its migration did. Other senders have no plan.

    A release of pgjobq may change functions alone. With this, it needs no migration of Django's for that.
    """
    conf, connection = current(), connections[using]
    if plan is None or using != conf.database or connection.vendor != "postgresql" or connection.in_atomic_block:
        return
    if _key(connection, conf.schema) not in _installed and _is_applied(connection):
        install(connection, conf.schema)


def _is_applied(connection: BaseDatabaseWrapper) -> bool:
    """Return whether the app's migration was applied, because `migrate pgjobq zero` must not install."""
    from django.db.migrations.recorder import MigrationRecorder

    return ("pgjobq", "0001_initial") in MigrationRecorder(connection).applied_migrations()


def _key(connection: BaseDatabaseWrapper, schema: str) -> tuple[str, str]:
    return str(connection.settings_dict["NAME"]), schema
