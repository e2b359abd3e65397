"""The app 'pgjobq.django'."""

from __future__ import annotations

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class PgjobqConfig(AppConfig):
    """Adds the checks, and brings the schema up to date at the end of every `manage.py migrate`."""

    name = "pgjobq.django"
    label = "pgjobq"
    verbose_name = "Jobs"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register checks and signal receivers."""
        from pgjobq.django import checks
        from pgjobq.django.schema import upgrade_after_migrate

        checks.register()
        post_migrate.connect(upgrade_after_migrate, sender=self)
