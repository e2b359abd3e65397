"""open_storage: the storage that a URL names."""

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
    """A class of storages, where it is, and the extra that brings its driver, with what it requires."""

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
# What a scheme is written as for the library behind the storage.
_WRITTEN = {"postgres": "postgresql", "valkey": "redis", "valkeys": "rediss"}
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9.-]*)(\+[a-zA-Z0-9_.+-]+)?://")
_SQLALCHEMY_PREFIX = "sqlalchemy+"


def open_storage(url: str = "", **options: Any) -> BaseStorage:
    """The storage for a URL or libpq conninfo; options are its own. Connects at the first call, not here.

    | URL | storage |
    |---|---|
    | `postgresql://user@host/db`, `postgres://...`, `host=... dbname=...`, the empty text (libpq's own variables) | PostgresStorage |
    | `sqlite:///jobs.db`, `mysql://...`, `mariadb://...`, any other dialect of SQLAlchemy | SQLAlchemyStorage |
    | `sqlalchemy+postgresql://...` | SQLAlchemyStorage, on PostgreSQL |
    | `redis://...`, `rediss://...`, `valkey://...`, `unix:///path/to/socket` | RedisStorage |
    | `mongodb://...`, `mongodb+srv://...` | MongoStorage |
    | `dynamodb://...` | DynamoDBStorage |

    Raises ConfigurationError for a scheme that names no storage, an option that the storage does not take, and a
    driver that is not installed: with the extra that brings it.
    """  # noqa: E501  # a row of a table is a line
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
        # The library's own words may hold the password, or a part of it.
        raise ConfigurationError(
            f"dsn: this is no {scheme}:// URL that {kind.name} understands; give {scheme}://user:password@host:port/name,"
            " and percent-encode what is special in user and password"
        ) from None


def is_postgres(url: str) -> bool:
    """Whether open_storage makes a PostgresStorage of this URL or conninfo."""
    return _kind_of(url)[0] is POSTGRES


def sqlalchemy_url(url: str) -> str | None:
    """The URL as SQLAlchemy takes it, when open_storage makes a SQLAlchemyStorage of it."""
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
        f"dsn: no storage is known for {scheme}://; give one of {names} or a URL of another SQLAlchemy dialect"
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
    """The URL as the storage takes it."""
    if url.startswith(_SQLALCHEMY_PREFIX):
        return url[len(_SQLALCHEMY_PREFIX) :]
    found = _SCHEME.match(url)
    if found is None:
        return url
    scheme, driver, rest = found[1].lower(), found[2] or "", url[found.end() :]
    if kind is POSTGRES:
        driver = ""  # SQLAlchemy's way of naming one; here it is always psycopg
    elif kind is MYSQL and not driver:
        driver = "+pymysql"  # the one that the extra brings; SQLAlchemy's own choice needs a compiler
    return f"{_WRITTEN.get(scheme, scheme)}{driver}://{rest}"


def _check_options(kind: _Kind, make: Callable[..., BaseStorage], options: dict[str, Any]) -> None:
    parameters = list(inspect.signature(make).parameters.values())
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in parameters[1:]]
    for name in options:
        if name not in known:
            raise ConfigurationError(f"{name}: {kind.name} takes no such option; it has: {', '.join(known) or 'none'}")


def _missing(kind: _Kind, scheme: str, module: str) -> str:
    if kind.extra:
        return (
            f"dsn: {scheme}:// needs the module {module!r}, which the extra {kind.extra} brings; "
            f"install it: pip install '{kind.requires}'"
        )
    return f"dsn: {scheme}:// needs the module {module!r}; install it, or name another driver: {scheme}+DRIVER://"


def _is_about_url(error: Exception) -> bool:
    """Whether a library said so of the URL that it was given."""
    if isinstance(error, ValueError):  # redis, urllib
        return True
    module = type(error).__module__
    return module.startswith(("sqlalchemy.exc", "pymongo.errors"))
