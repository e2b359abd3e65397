"""open_storage: the storage that a URL names."""

from __future__ import annotations

from typing import Any

from pgjobq.errors import ConfigurationError
from pgjobq.storage.base import BaseStorage


def open_storage(url: str = "", **options: Any) -> BaseStorage:
    """The storage for a URL or libpq conninfo; options are its own. Connects at the first call, not here.

    postgresql://user@host/db, postgres://..., "host=... dbname=..." and "" (libpq's own variables) are a
    PostgresStorage. Raises ConfigurationError for a scheme that names no storage.
    """
    scheme = url.split("://", maxsplit=1)[0] if "://" in url else "postgresql"
    if scheme.split("+")[0] in ("postgresql", "postgres"):
        from pgjobq.storage.postgres_storage import PostgresStorage

        if "+" in scheme:  # SQLAlchemy's way of naming a driver
            url = "postgresql" + url[len(scheme) :]
        return PostgresStorage(url, **options)
    raise ConfigurationError(f"dsn: no storage is known for {scheme}://; give postgresql://user@host/database")
