"""Fixtures for real databases. Each test gets its own PostgreSQL database, a clone of a template with the schema.

PostgreSQL does not run as root, and pytest-postgresql would start it as the user who runs the tests. Therefore the
server is our dev server, and only the databases on it are managed by pytest-postgresql (its `noproc` factory). Set
PGJOBQ_TEST_DSN to use another server, and PGJOBQ_PG_BIN to use other PostgreSQL programs. The module services starts
the other databases. A test is skipped if its database is not installed.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from helpers.progress import Progress
from helpers.stalling_proxy import StallingProxy
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pytest_postgresql import factories
from services import MariaDB, Redis, SecantusDB, Server, ServiceMissing, Valkey, dynamodb

from pgjobq import JobQueue, Registry
from pgjobq.devserver import DevServer
from pgjobq.postgres.schema import migrate
from pgjobq.storage.postgres_storage import PostgresStorage

Connection = psycopg.Connection[Any]
OwnServer = Callable[..., Server]


def pytest_configure(config: pytest.Config) -> None:
    """Show what runs, in the process that prints."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Progress(config))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI, fail the run if a test was skipped, because a skipped test proves nothing."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def pg_server() -> Iterator[SimpleNamespace]:
    """Return the server's address in the form that depends_on of pytest-postgresql expects."""

    def described(dsn: str) -> SimpleNamespace:
        parts = conninfo_to_dict(dsn)
        return SimpleNamespace(
            host=parts.get("host") or "127.0.0.1",
            port=int(parts.get("port") or 5432),
            user=parts["user"],
            password=parts.get("password"),
            options="",
            maintenance_dbname=parts.get("dbname") or "postgres",
            template_dbname=None,
        )

    if given := os.environ.get("PGJOBQ_TEST_DSN"):
        yield described(given)
        return
    with DevServer(settings={"shared_preload_libraries": "pg_stat_statements"}) as server:
        yield described(server.dsn)


def _load_schema(*, autocommit: bool, **where: Any) -> None:
    migrate(make_conninfo(**where))


# The names differ between runs, because two runs may use one server, or a killed run may have left its databases.
RUN = secrets.token_hex(4)
pg_template = factories.postgresql_noproc(depends_on="pg_server", dbname=f"pgjobq_{RUN}", load=[_load_schema])
pg_empty = factories.postgresql_noproc(depends_on="pg_server", dbname=f"pgjobq_{RUN}_empty")
migrated_database = factories.postgresql("pg_template")
empty_database = factories.postgresql("pg_empty")


def _dsn(conn: Connection) -> str:
    info = conn.info
    return make_conninfo(host=info.host, port=info.port, user=info.user, password=info.password, dbname=info.dbname)


@pytest.fixture
def dsn(migrated_database: Connection) -> str:
    """Return the DSN of a new database with the schema."""
    migrated_database.autocommit = True
    return _dsn(migrated_database)


@pytest.fixture
def empty_dsn(empty_database: Connection) -> str:
    """Return the DSN of a new database without the schema."""
    return _dsn(empty_database)


@pytest.fixture
def connect(dsn: str) -> Iterator[Callable[..., Connection]]:
    """Return a function that connects to the test's database with pgjobq in its search_path. Close all at the end."""
    made: list[Connection] = []

    def make(autocommit: bool = True) -> Connection:
        conn: Connection = psycopg.connect(dsn, autocommit=True, options="-c search_path=pgjobq,public -c timezone=UTC")
        made.append(conn)
        conn.autocommit = autocommit
        return conn

    yield make
    for conn in made:
        conn.close()


@pytest.fixture
def conn(connect: Callable[..., Connection]) -> Connection:
    """Return a connection to the test's database, in autocommit mode."""
    return connect()


@pytest.fixture
def make_storage(dsn: str) -> Iterator[Callable[..., PostgresStorage]]:
    """Return a function that creates storages on the test's database. Close them all at the end."""
    made: list[PostgresStorage] = []

    def make(**options: Any) -> PostgresStorage:
        made.append(PostgresStorage(dsn, **options))
        return made[-1]

    yield make
    for storage in made:
        storage.close()


@pytest.fixture
def storage(make_storage: Callable[..., PostgresStorage]) -> PostgresStorage:
    """Return a storage on the test's database."""
    return make_storage()


@pytest.fixture
def proxy(dsn: str) -> Iterator[StallingProxy]:
    """Return a proxy in front of the test's server that can stop forwarding data."""
    parts = conninfo_to_dict(dsn)
    with StallingProxy(str(parts["host"]), int(str(parts["port"]))) as made:
        yield made


@pytest.fixture
def registry() -> Registry:
    """Return a registry that only this test uses."""
    return Registry()


@pytest.fixture
def queue(storage: PostgresStorage, registry: Registry) -> JobQueue:
    """Return a queue on the storage, with the test's registry."""
    return JobQueue(storage, registry=registry)


def _started(kind: Callable[..., Server], **options: Any) -> Server:
    try:
        return kind(**options).start()
    except ServiceMissing as missing:
        pytest.skip(f"{missing}; run: make services")


@pytest.fixture(scope="session")
def mariadb_url() -> Iterator[str]:
    """Start a MariaDB server. Return SQLAlchemy's URL of the database pgjobq; the user may create others."""
    with _started(MariaDB) as server:
        yield server.url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """Start a Valkey server and return its URL."""
    with _started(Valkey) as server:
        yield server.url


@pytest.fixture(scope="session")
def debian_redis_url() -> Iterator[str]:
    """Start the Redis server of Debian and return its URL."""
    with _started(Redis) as server:
        yield server.url


@pytest.fixture(scope="session")
def mongo_url() -> Iterator[str]:
    """Start a server for MongoDB's protocol. Return its URL, without a database."""
    with _started(SecantusDB) as server:
        yield server.url


@pytest.fixture(scope="session")
def dynamodb_url() -> Iterator[str]:
    """Start a server for DynamoDB's protocol. Return its endpoint, which accepts any region and credentials."""
    with _started(dynamodb) as server:
        yield server.url


@pytest.fixture
def own_server() -> Iterator[OwnServer]:
    """Return a function that starts a server for this test alone, which the test may kill and restart.

    Example: own_server(MariaDB, durable=True).
    """
    with ExitStack() as servers:

        def start(kind: Callable[..., Server], **options: Any) -> Server:
            return servers.enter_context(_started(kind, **options))

        yield start
