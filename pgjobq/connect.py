"""open_storage creates the storage that a URL names."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from pgjobq.errors import ConfigurationError, PgjobqError
from pgjobq.storage.base import BaseStorage


@dataclass(frozen=True)
class _Kind:
    """A storage class, its module, and the extra that installs its driver, with the requirement of that extra."""

    module: str
    name: str
    extra: str = ""
    requires: str = ""

    def load(self) -> Callable[..., BaseStorage]:
        found: Callable[..., BaseStorage] = getattr(import_module(f"pgjobq.storage.{self.module}"), self.name)
        return found


POSTGRES = _Kind("postgres_storage", "PostgresStorage")
SQLALCHEMY = _Kind("sqlalchemy_storage", "SQLAlchemyStorage")
MYSQL = _Kind("sqlalchemy_storage", "SQLAlchemyStorage", "mysql", "pymysql[rsa]>=1.1")
REDIS = _Kind("redis_storage", "RedisStorage", "redis", "redis>=6")
MONGO = _Kind("mongo_storage", "MongoStorage", "mongo", "pymongo>=4.9")
DYNAMODB = _Kind("dynamodb_storage", "DynamoDBStorage", "dynamodb", "boto3>=1.34")

_KINDS = {
    "postgresql": POSTGRES,
    "postgres": POSTGRES,
    "sqlite": SQLALCHEMY,
    "mysql": MYSQL,
    "mariadb": MYSQL,
    "redis": REDIS,
    "rediss": REDIS,
    "valkey": REDIS,
    "valkeys": REDIS,
    "unix": REDIS,
    "mongodb": MONGO,
    "dynamodb": DYNAMODB,
}
# Schemes that the library behind the storage spells differently.
_WRITTEN = {"postgres": "postgresql", "valkey": "redis", "valkeys": "rediss"}
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9.-]*)(\+[a-zA-Z0-9_.+-]+)?://")
_SQLALCHEMY_PREFIX = "sqlalchemy+"


def open_storage(url: str = "", **options: Any) -> BaseStorage:
    """Return the storage for a URL or libpq conninfo. It connects at its first call. options: those of the storage.

    | URL | storage |
    |---|---|
    | `postgresql://user@host/db`, `postgres://...`, `host=... dbname=...`, the empty string (libpq's environment variables) | PostgresStorage |
    | `sqlite:///jobs.db`, `mysql://...`, `mariadb://...`, any other SQLAlchemy dialect | SQLAlchemyStorage |
    | `sqlalchemy+postgresql://...` | SQLAlchemyStorage, on PostgreSQL |
    | `redis://...`, `rediss://...`, `valkey://...`, `unix:///path/to/socket` | RedisStorage |
    | `mongodb://...`, `mongodb+srv://...` | MongoStorage |
    | `dynamodb://...` | DynamoDBStorage |

    Raises ConfigurationError if the scheme names no storage, if the storage does not have an option, or if its driver
    is not installed; the message names the extra that installs the driver.
    """  # noqa: E501  # a table row must be one line
    kind, scheme = _kind_of(url)
    try:
        make = kind.load()
        _check_options(kind, make, options)
        return make(_written(url, kind), **options)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("pgjobq"):
            raise
        raise ConfigurationError(_missing(kind, scheme, error.name or str(error))) from error
    except PgjobqError:
        raise
    except Exception as error:
        if not _is_about_url(error):
            raise
        # The library's message may contain the password or a part of it.
        raise ConfigurationError(
            f"dsn: {kind.name} cannot parse this {scheme}:// URL; use {scheme}://user:password@host:port/name,"
            " and percent-encode special characters in the user and the password"
        ) from None


def is_postgres(url: str) -> bool:
    """Return whether open_storage creates a PostgresStorage for this URL or conninfo."""
    return _kind_of(url)[0] is POSTGRES


def sqlalchemy_url(url: str) -> str | None:
    """Return the URL as SQLAlchemy expects it, or None if open_storage does not create a SQLAlchemyStorage for it."""
    kind = _kind_of(url)[0]
    return _written(url, kind) if kind in (SQLALCHEMY, MYSQL) else None


def _kind_of(url: str) -> tuple[_Kind, str]:
    if url.startswith(_SQLALCHEMY_PREFIX):
        return SQLALCHEMY, url.split("://", maxsplit=1)[0]
    found = _SCHEME.match(url)
    if found is None:
        return POSTGRES, "postgresql"
    scheme = found[1].lower()
    if scheme in _KINDS:
        return _KINDS[scheme], scheme
    if _is_dialect(found[1] + (found[2] or "")):
        return SQLALCHEMY, scheme
    names = ", ".join(f"{name}://" for name in _KINDS)
    raise ConfigurationError(
        f"dsn: no storage supports {scheme}://; use one of {names} or a URL of another SQLAlchemy dialect"
    )


def _is_dialect(name: str) -> bool:
    from sqlalchemy.dialects import registry
    from sqlalchemy.exc import NoSuchModuleError

    try:
        registry.load(name.replace("+", "."))
    except NoSuchModuleError:
        return False
    return True


def _written(url: str, kind: _Kind) -> str:
    """Return the URL as the storage expects it."""
    if url.startswith(_SQLALCHEMY_PREFIX):
        return url[len(_SQLALCHEMY_PREFIX) :]
    found = _SCHEME.match(url)
    if found is None:
        return url
    scheme, driver, rest = found[1].lower(), found[2] or "", url[found.end() :]
    if kind is POSTGRES:
        driver = ""  # SQLAlchemy names a driver in the scheme; PostgresStorage always uses psycopg
    elif kind is MYSQL and not driver:
        driver = "+pymysql"  # the extra installs pymysql; SQLAlchemy's default driver needs a compiler
    return f"{_WRITTEN.get(scheme, scheme)}{driver}://{rest}"


def _check_options(kind: _Kind, make: Callable[..., BaseStorage], options: dict[str, Any]) -> None:
    parameters = list(inspect.signature(make).parameters.values())
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in parameters[1:]]
    for name in options:
        if name not in known:
            raise ConfigurationError(f"{name}: {kind.name} has no such option; it has: {', '.join(known) or 'none'}")


def _missing(kind: _Kind, scheme: str, module: str) -> str:
    if kind.extra:
        return (
            f"dsn: {scheme}:// needs the module {module!r}, which the extra {kind.extra} installs; "
            f"install it: pip install '{kind.requires}'"
        )
    return f"dsn: {scheme}:// needs the module {module!r}; install it, or use another driver: {scheme}+DRIVER://"


def _is_about_url(error: Exception) -> bool:
    """Return whether the error is a library's complaint about the URL."""
    if isinstance(error, ValueError):  # redis, urllib
        return True
    module = type(error).__module__
    return module.startswith(("sqlalchemy.exc", "pymongo.errors"))
