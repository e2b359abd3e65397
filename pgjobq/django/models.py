"""The table of jobs as an unmanaged model, for the admin and for queries. Enqueue by `pgjobq.django.enqueue`."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models

from pgjobq.django.conf import current
from pgjobq.errors import ConfigurationError
from pgjobq.models import JobStatus
from pgjobq.postgres.schema import DEFAULT_SCHEMA


def table() -> str:
    """Return the quoted name of the table with its schema, in a form that Django does not quote again."""
    try:
        schema = current().schema
    except ConfigurationError:  # the system check reports it, which needs the models
        schema = DEFAULT_SCHEMA
    return '"{}"."jobs"'.format(schema.replace('"', '""'))


def columns() -> dict[str, Any]:
    """Return the fields of the model, which its migration uses too."""
    return {
        "id": models.TextField(primary_key=True),
        "queue": models.TextField(),
        "type": models.TextField(),
        "data": models.JSONField(),
        "status": models.TextField(choices=[(str(status), str(status)) for status in JobStatus]),
        "priority": models.IntegerField(),
        "attempts": models.IntegerField(),
        "max_retries": models.IntegerField(),
        "execute_at": models.DateTimeField(null=True),
        "error": models.TextField(null=True),
        "created_at": models.DateTimeField(),
        "started_at": models.DateTimeField(null=True),
        "finished_at": models.DateTimeField(null=True),
        "failed_at": models.DateTimeField(null=True),
        "expires_at": models.DateTimeField(null=True),
    }


class Meta:
    """The options of the model."""

    managed = False
    db_table = table()
    ordering: ClassVar[list[str]] = ["-created_at", "-id"]
    default_permissions = ("change", "view")
    verbose_name = "job"


Job: Any = type("Job", (models.Model,), {**columns(), "__module__": __name__, "__doc__": "A job.", "Meta": Meta})
