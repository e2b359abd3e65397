"""Install pgjobq's schema. Later releases need no other migration; see upgrade_after_migrate."""

from __future__ import annotations

from typing import ClassVar

from django.db import migrations

from pgjobq.django.models import columns, table
from pgjobq.django.schema import install_for_migration


class Migration(migrations.Migration):
    """Other apps whose migrations call enqueue_job depend on this one."""

    initial = True
    atomic = False  # the installation is a transaction of its own
    dependencies: ClassVar[list[tuple[str, str]]] = []
    operations: ClassVar[list[migrations.operations.base.Operation]] = [
        # The schema and its jobs are kept when the migration is unapplied.
        migrations.RunPython(install_for_migration, migrations.RunPython.noop),
        migrations.CreateModel(
            name="Job",
            fields=list(columns().items()),
            options={
                "managed": False,
                "db_table": table(),
                "ordering": ["-created_at", "-id"],
                "default_permissions": ("change", "view"),
                "verbose_name": "job",
            },
        ),
    ]
