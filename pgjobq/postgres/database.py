"""The database as a storage sees it: a pool, and one call for each SQL function."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool

from pgjobq.errors import ConfigurationError
from pgjobq.postgres.errors import translated
from pgjobq.postgres.pool import Connection, open_pool, parameters, pool_parameters
from pgjobq.postgres.schema import check_schema
from pgjobq.postgres.settling import fetch
from pgjobq.postgres.statements import statements


class Database:
    """Opened at the first call, when the schema is checked; errors come as children of PgjobqError."""

    def __init__(
        self,
        conninfo: str | ConnectionPool[Any],
        *,
        schema: str,
        pooled: bool,
        min_size: int,
        max_size: int,
        timeout: float,
        application_name: str,
    ) -> None:
        self.schema = schema
        self.statements = statements(schema)
        self._own_pool = isinstance(conninfo, str)
        self._opened, self._lock = False, threading.Lock()
        self.pool: ConnectionPool[Connection]
        if isinstance(conninfo, str):
            self.parameters = connection_parameters(conninfo, application_name)
            if pooled:  # a prepared statement belongs to a session, which a transaction pooler does not keep
                self.parameters["prepare_threshold"] = None
            self.pool = open_pool(self.parameters, pooled=pooled, min_size=min_size, max_size=max_size, timeout=timeout)
        else:
            self.pool, self.parameters = conninfo, pool_parameters(conninfo)

    def open(self) -> None:
        """Connect and check the schema, once. Raises StorageUnavailable, NotMigrated or SchemaTooNew."""
        if self._opened:
            return
        with self._lock:
            if self._opened:
                return
            with translated():
                if self._own_pool:
                    # First by hand: the pool would not say why it gets no connection.
                    with psycopg.connect(**self.parameters, autocommit=True) as conn:
                        check_schema(conn, self.schema)
                    self.pool.open()
                else:
                    with self.pool.connection() as conn:
                        check_schema(conn, self.schema)
            self._opened = True

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection from the pool."""
        self.open()
        with translated(), self.pool.connection() as conn:
            yield conn

    def rows(self, name: str, arguments: Sequence[Any], *, binary: bool = False) -> list[Any]:
        """The rows of a statement, by its name, in a transaction of its own."""
        with self.connection() as conn:
            return fetch(conn, self.statements[name], arguments, binary=binary)

    def close(self) -> None:
        """Close the pool, unless it is the caller's."""
        if self._own_pool:
            self.pool.close()


def connection_parameters(conninfo: str, application_name: str) -> dict[str, Any]:
    """The keyword arguments for psycopg.connect. Raises ConfigurationError for what is no conninfo."""
    try:
        return parameters(conninfo, application_name)
    except psycopg.ProgrammingError as error:
        raise ConfigurationError(f"dsn: {str(error).strip()}; give postgresql://user@host/database") from error
