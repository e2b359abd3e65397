"""A real PostgreSQL for every test: one server, one template database with the schema, a clone for each test.

PostgreSQL refuses root, and pytest-postgresql starts it as whoever runs the tests; so the server is our own dev
server, and pytest-postgresql's `noproc` factory manages databases on it. PGJOBQ_TEST_DSN names another server,
PGJOBQ_PG_BIN other programs. The other databases are of services: a test that needs one which is not installed is
skipped.
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
    """In CI a test that was skipped proved nothing, and must not look as if it had."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def pg_server() -> Iterator[SimpleNamespace]:
    """The server, in the form that pytest-postgresql's depends_on reads."""

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


# Two runs on one server, or one after a run that was killed, must not meet each other's databases.
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
    """The test's own database, with the schema in it."""
    migrated_database.autocommit = True
    return _dsn(migrated_database)


@pytest.fixture
def empty_dsn(empty_database: Connection) -> str:
    """The test's own database, without the schema."""
    return _dsn(empty_database)


@pytest.fixture
def connect(dsn: str) -> Iterator[Callable[..., Connection]]:
    """Makes connections to the test's database that see the schema pgjobq; closed at the end."""
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
    """One such connection, in autocommit."""
    return connect()


@pytest.fixture
def make_storage(dsn: str) -> Iterator[Callable[..., PostgresStorage]]:
    """Makes storages on the test's database; closed at the end."""
    made: list[PostgresStorage] = []

    def make(**options: Any) -> PostgresStorage:
        made.append(PostgresStorage(dsn, **options))
        return made[-1]

    yield make
    for storage in made:
        storage.close()


@pytest.fixture
def storage(make_storage: Callable[..., PostgresStorage]) -> PostgresStorage:
    """One such storage."""
    return make_storage()


@pytest.fixture
def proxy(dsn: str) -> Iterator[StallingProxy]:
    """A way to the test's server that can swallow everything."""
    parts = conninfo_to_dict(dsn)
    with StallingProxy(str(parts["host"]), int(str(parts["port"]))) as made:
        yield made


@pytest.fixture
def registry() -> Registry:
    """A registry of the test's own."""
    return Registry()


@pytest.fixture
def queue(storage: PostgresStorage, registry: Registry) -> JobQueue:
    """A queue on the storage, with the test's own registry."""
    return JobQueue(storage, registry=registry)


def _started(kind: Callable[..., Server], **options: Any) -> Server:
    try:
        return kind(**options).start()
    except ServiceMissing as missing:
        pytest.skip(f"{missing}; run: make services")


@pytest.fixture(scope="session")
def mariadb_url() -> Iterator[str]:
    """A MariaDB server, as SQLAlchemy's URL of the database pgjobq; its user may make others."""
    with _started(MariaDB) as server:
        yield server.url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Valkey server."""
    with _started(Valkey) as server:
        yield server.url


@pytest.fixture(scope="session")
def debian_redis_url() -> Iterator[str]:
    """A Redis server as Debian has it."""
    with _started(Redis) as server:
        yield server.url


@pytest.fixture(scope="session")
def mongo_url() -> Iterator[str]:
    """A server that speaks MongoDB's protocol; without a database in the URL."""
    with _started(SecantusDB) as server:
        yield server.url


@pytest.fixture(scope="session")
def dynamodb_url() -> Iterator[str]:
    """The HTTP endpoint of a server that speaks DynamoDB's protocol; any region and credentials do."""
    with _started(dynamodb) as server:
        yield server.url


@pytest.fixture
def own_server() -> Iterator[OwnServer]:
    """Starts a server of a kind for this test alone, own_server(MariaDB, durable=True), that it may kill and start."""
    with ExitStack() as servers:

        def start(kind: Callable[..., Server], **options: Any) -> Server:
            return servers.enter_context(_started(kind, **options))

        yield start
