"""The setting PGJOBQ of a Django project, and the address of its database for pgjobq's own connections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections
from psycopg.conninfo import make_conninfo
from psycopg.pq import Conninfo

from pgjobq.errors import ConfigurationError
from pgjobq.postgres.schema import DEFAULT_SCHEMA, check_name

KEYS = ("DATABASE", "MODULES", "SCHEMA")


@dataclass(frozen=True, kw_only=True)
class Conf:
    """The setting PGJOBQ: the alias of a database, the schema, and more modules with handlers for workers."""

    database: str = DEFAULT_DB_ALIAS
    schema: str = DEFAULT_SCHEMA
    modules: tuple[str, ...] = ()


def current() -> Conf:
    """Read the setting. Raises ConfigurationError, which names the key that is wrong."""
    given = getattr(settings, "PGJOBQ", {})
    if not isinstance(given, dict):
        raise ConfigurationError(f"PGJOBQ: {given!r} is not a dict; use a dict with {', '.join(KEYS)}")
    for key in given:
        if key not in KEYS:
            raise ConfigurationError(f"PGJOBQ: {key!r} is not a key of it; the keys are {', '.join(KEYS)}")
    conf = Conf(**{key.lower(): value for key, value in given.items() if key != "MODULES"}, modules=_modules(given))
    if conf.database not in settings.DATABASES:
        known = ", ".join(settings.DATABASES)
        raise ConfigurationError(f"PGJOBQ: DATABASE {conf.database!r} is not in DATABASES; use one of: {known}")
    if not isinstance(conf.schema, str):
        raise ConfigurationError(f"PGJOBQ: SCHEMA {conf.schema!r} is not a name; use the name of a schema")
    check_name(conf.schema)
    return conf


def _modules(given: dict[str, Any]) -> tuple[str, ...]:
    modules = given.get("MODULES", ())
    if isinstance(modules, str) or not all(isinstance(name, str) for name in modules):
        raise ConfigurationError(f"PGJOBQ: MODULES {modules!r} is not a list of names of modules; use a list")
    return tuple(modules)


def conninfo(alias: str) -> str:
    """Return libpq's connection string for a database of the project. Raises ConfigurationError for another vendor."""
    connection = connections[alias]
    if connection.vendor != "postgresql":
        raise ConfigurationError(
            f"DATABASES[{alias!r}]: pgjobq needs PostgreSQL, but this is {connection.vendor}; name another database in"
            " the setting PGJOBQ: {'DATABASE': ...}"
        )
    known = {option.keyword.decode() for option in Conninfo.get_defaults()}
    # The backend's own options, such as the cursor's class, are not libpq's.
    return make_conninfo(**{key: v for key, v in connection.get_connection_params().items() if key in known})
