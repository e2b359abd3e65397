"""Create engines from URLs, and find out what a database can do."""

from __future__ import annotations

import functools
import importlib.util
import os
import weakref
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import URL, Connection, Dialect, Engine, create_engine, event, func, text, type_coerce
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import PoolResetState, QueuePool, StaticPool
from sqlalchemy.sql import ColumnElement

from pgjobq.errors import ConfigurationError
from pgjobq.forks import close_in_child
from pgjobq.limits import Limited
from pgjobq.room import Room
from pgjobq.storage.sqlalchemy.sqlite import Closing, is_memory, not_in, open_sqlite
from pgjobq.storage.sqlalchemy.types import MYSQL, Moment

LOCKING, EXCLUSIVE, OPTIMISTIC = "locking", "exclusive", "optimistic"
_IN_TRANSACTION = 1  # of MySQL's status flags


@dataclass(frozen=True)
class Traits:
    """The best way to use a database.

    claiming: LOCKING locks rows with FOR UPDATE SKIP LOCKED, EXCLUSIVE takes SQLite's write lock, and OPTIMISTIC counts
    the rows that its updates found. now: the database's clock, or None to use the clock of the process. planning: what
    a claim selects first, so that its plans do not depend on statistics.
    """

    claiming: str
    now: ColumnElement[Any] | None
    returning: bool  # UPDATE ... RETURNING
    planning: tuple[ColumnElement[Any], ...] = ()


_MYSQL_NOW = type_coerce(func.utc_timestamp(text("6")), Moment)
_POSTGRESQL_NOW = type_coerce(func.statement_timestamp(), Moment)
# If the statistics say that there are no pending jobs, the plan would read and sort them all.
_POSTGRESQL_PLANNING = tuple(
    func.set_config(name, "off", True).label(name) for name in ("enable_sort", "enable_seqscan", "enable_bitmapscan")
)


class GrowingPool(QueuePool):
    """The pool of an engine that pgjobq created. It logs under the name of SQLAlchemy's pools."""

    _sqla_logger_namespace = "sqlalchemy.pool.impl.GrowingPool"

    def grow(self, size: int) -> None:
        """Allow up to size connections at once. Connections beyond pool_size are closed when they are returned."""
        self._max_overflow = max(self._max_overflow, size - self.size())


def traits_of(dialect: Dialect) -> Traits:
    """Return the traits of a database. Its engine must have connected once."""
    returning = bool(dialect.update_returning)
    if dialect.name == "postgresql":
        return Traits(LOCKING, _POSTGRESQL_NOW, returning, _POSTGRESQL_PLANNING)
    if dialect.name in MYSQL:
        return Traits(LOCKING if _skips_locked(dialect) else OPTIMISTIC, _MYSQL_NOW, returning=False)
    if dialect.name == "sqlite":
        return Traits(EXCLUSIVE, None, returning)
    return Traits(OPTIMISTIC, None, returning)


def _skips_locked(dialect: Dialect) -> bool:
    server: Any = dialect
    return bool(server.server_version_info >= ((10, 6) if server.is_mariadb else (8, 0, 1)))


def identity_of(conn: Connection) -> object:
    """Return a value that identifies a database among others of its kind, or () if there is no such value.

    It does not depend on the name under which the server is reached. It may change when the server restarts.
    """
    match conn.dialect.name:
        case "sqlite":
            file = next((row[2] for row in conn.exec_driver_sql("PRAGMA database_list") if row[1] == "main"), "")
            return os.path.realpath(file) if file else object()  # every database in memory is different
        case "postgresql":
            # Two servers often have databases with the same name and the same oid.
            found = conn.exec_driver_sql(
                "select oid, datname, pg_postmaster_start_time() from pg_database where datname = current_database()"
            )
            return tuple(found.one())
        case "mysql" | "mariadb":
            return tuple(conn.exec_driver_sql("select database(), @@hostname, @@port, @@datadir").one())
    return ()


def open_engine(target: str | URL, timeout: float) -> tuple[Engine, Closing | None]:
    """Create an engine for a URL. Also return the object that must live as long as the engine, if there is one.

    Raises ConfigurationError for an invalid URL.
    """
    try:
        url = make_url(target)
        if (
            url.host and "@" in f"{url.host}{url.database}"
        ):  # the password contains an @, so a part of the password would be shown as the host
            raise ValueError
        if url.get_backend_name() == "sqlite":
            return open_sqlite(url, timeout)
        return _open_server(_with_psycopg(url), timeout), None
    except (ArgumentError, NoSuchModuleError, ValueError) as error:  # ValueError: the port is not a number
        # The library's message may contain the password.
        raise ConfigurationError(
            "url: SQLAlchemy does not understand this URL; use a URL such as sqlite:///jobs.db or"
            " mysql+pymysql://user:password@host:3306/name, and percent-encode special characters in the user and"
            " the password"
        ) from (error if isinstance(error, NoSuchModuleError) else None)


def _with_psycopg(url: URL) -> URL:
    """Select psycopg 3 for a plain postgresql:// URL, because SQLAlchemy 2.0 would use psycopg2."""
    if url.drivername == "postgresql" and importlib.util.find_spec("psycopg2") is None:
        return url.set(drivername="postgresql+psycopg")
    return url


def _open_server(url: URL, timeout: float) -> Engine:
    options: dict[str, Any] = {"pool_timeout": timeout}
    dialect: Any = url.get_dialect()
    if dialect.get_pool_class(url) is QueuePool:
        options["poolclass"] = GrowingPool
    seconds = max(2, round(timeout))
    arguments: dict[str, Any] = {}
    match url.get_driver_name():
        case "psycopg" | "psycopg2":
            arguments = {"connect_timeout": seconds, "tcp_user_timeout": seconds * 1000}
        case "mysqldb" | "mariadbconnector":
            arguments = {"connect_timeout": seconds, "read_timeout": seconds, "write_timeout": seconds}
        case "pymysql":
            arguments = {"connect_timeout": seconds, "read_timeout": timeout, "write_timeout": timeout}
            options["pool_reset_on_return"] = None  # see below
    if url.get_backend_name() in MYSQL:
        # At READ COMMITTED a claim does not lock the gaps into which enqueues insert.
        options["isolation_level"] = "READ COMMITTED"
    engine = create_engine(url, connect_args=not_in(url, arguments), **options)
    if engine.driver == "psycopg":
        event.listen(engine, "do_connect", functools.partial(_connect_limited, timeout))
    if engine.driver == "pymysql":
        event.listen(engine, "reset", _reset_pymysql)
    return engine


def _connect_limited(timeout: float, dialect: Any, _record: Any, arguments: Any, options: Any) -> Any:
    return _limited(dialect.dbapi.Connection, timeout).connect(*arguments, **options)


@functools.cache
def _limited(base: Any, timeout: float) -> Any:
    """Return a subclass of psycopg's Connection, which is not imported here, with a time limit in the client."""
    return type("LimitedConnection", (Limited, base), {"answer_time": timeout})


def _reset_pymysql(connection: Any, _record: Any, state: PoolResetState) -> None:
    # Roll back only inside a transaction, because any other rollback would be a useless round trip.
    if not state.terminate_only and connection.server_status & _IN_TRANSACTION:
        connection.rollback()


def room_in(engine: Engine, timeout: float) -> Room:
    """Return the Room for handlers' transactions in the engine's pool.

    On SQLite these transactions take turns before they take a connection.
    """
    pool = engine.pool
    overflow: int = getattr(pool, "_max_overflow", -1)  # a pool has no public attribute for it; -1: no limit
    if engine.dialect.name == "sqlite" or not isinstance(pool, QueuePool) or overflow < 0 or not pool.size():
        return Room(None, timeout)
    size = pool.size() + overflow
    # Look up engine.pool at each use, because engine.dispose() creates another pool.
    grow = (lambda size: cast("GrowingPool", engine.pool).grow(size)) if isinstance(pool, GrowingPool) else None
    return Room(size, pool.timeout(), grow)


def check_engine(engine: Engine) -> None:
    """Raise ConfigurationError for an engine that a queue cannot use."""
    if engine.dialect.is_async:
        raise ConfigurationError("engine: it is async; use a sync Engine or a URL")
    if engine.dialect.name == "sqlite" and is_memory(engine.url) and not isinstance(engine.pool, StaticPool):
        raise ConfigurationError(
            "engine: each thread would have its own database in memory;"
            " create it with poolclass=sqlalchemy.pool.StaticPool, or use the URL sqlite:///:memory:"
        )


class _Socket:
    """The socket of a driver's connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = weakref.ref(connection)

    def fileno(self) -> int:
        """Return the file descriptor. Raises when there is none."""
        connection: Any = self._connection()
        fd: int = connection.fileno() if hasattr(connection, "fileno") else connection._sock.fileno()  # noqa: SLF001  # PyMySQL says it nowhere else
        return fd


def close_socket_in_child(connection: Any, record: Any) -> None:
    """Handle the event connect, so that a forked child does not keep the server's session alive."""
    with suppress(TypeError):  # such a connection allows no weak references, and has no known socket
        record.info["pgjobq socket"] = socket = _Socket(connection)
        close_in_child(socket)
