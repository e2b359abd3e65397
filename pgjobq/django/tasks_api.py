"""Django's Tasks API: django.tasks in Django 6.0 and later, else the package django-tasks, which is its backport."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from django.core.exceptions import ImproperlyConfigured

try:
    from django.tasks import base, exceptions, signals
    from django.tasks.backends.base import BaseTaskBackend
except ImportError:
    try:
        from django_tasks import base, exceptions, signals
        from django_tasks.backends.base import BaseTaskBackend
    except ImportError as missing:
        raise ImproperlyConfigured(
            "pgjobq.django.tasks needs Django 6.0 or later, or the package django-tasks; install one of them"
        ) from missing

__all__ = ["BaseTaskBackend", "api", "signals"]

# The backport gives two errors other names.
api: Any = SimpleNamespace(
    Task=base.Task,
    TaskContext=base.TaskContext,
    TaskError=base.TaskError,
    TaskResult=base.TaskResult,
    TaskResultStatus=base.TaskResultStatus,
    InvalidTask=getattr(exceptions, "InvalidTask", None) or exceptions.InvalidTaskError,
    TaskResultDoesNotExist=exceptions.TaskResultDoesNotExist,
)
