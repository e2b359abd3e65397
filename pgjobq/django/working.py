"""What a worker needs in a Django project: the apps, their handlers, and clean connections round each job."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from functools import wraps
from typing import Any

import django
from asgiref.sync import sync_to_async
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import close_old_connections, connections, reset_queries
from django.utils.module_loading import autodiscover_modules

from pgjobq.django.conf import current
from pgjobq.errors import ConfigurationError
from pgjobq.explaining import headline
from pgjobq.handlers import Handler, Registry

DISCOVERED = ("jobs", "tasks")  # modules of the installed apps


def set_up() -> None:
    """Call django.setup(), unless that was done. Raises ConfigurationError if the settings cannot be used."""
    if apps.ready:
        return
    try:
        django.setup()
    except (ImportError, ImproperlyConfigured) as error:
        name = os.environ.get("DJANGO_SETTINGS_MODULE")
        first = headline(error).splitlines()[0]
        raise ConfigurationError(
            f"DJANGO_SETTINGS_MODULE: {name!r} cannot be used: {first}; correct it, or unset the variable"
        ) from error


def import_handlers() -> None:
    """Import the modules `jobs` and `tasks` of the installed apps, and the MODULES of the setting PGJOBQ.

    Does nothing if 'pgjobq.django' is not in INSTALLED_APPS.
    """
    if apps.is_installed("pgjobq.django"):
        autodiscover_modules(*DISCOVERED)
        for name in current().modules:
            importlib.import_module(name)


def keep_connections_clean(registry: Registry) -> None:
    """Close the connections that are lost or too old before and after each job, as Django does round a request."""
    connections.close_all()  # those of the main thread, which runs no job
    registry.wrap(_clean)


def _clean(handler: Handler) -> Callable[..., Any]:
    function = handler.function
    if handler.is_async:

        @wraps(function)
        async def run_async(*args: Any, **kwargs: Any) -> Any:
            await _clean_async()
            try:
                return await function(*args, **kwargs)
            finally:
                await _clean_async()

        return run_async

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        _clean_now()
        try:
            return function(*args, **kwargs)
        finally:
            _clean_now()

    return run


def _clean_now() -> None:
    reset_queries()  # with DEBUG, Django keeps every query until then
    close_old_connections()


# In the thread in which Django's async ORM works.
_clean_async = sync_to_async(_clean_now)
