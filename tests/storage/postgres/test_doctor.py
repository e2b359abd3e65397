"""Tests of the findings of `pgjobq check`, and of the messages about refused connections."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgjobq import JobQueue, StorageUnavailable
from pgjobq.devserver import DevServer
from pgjobq.postgres.doctor import Finding, examine
from pgjobq.postgres.errors import translate
from pgjobq.postgres.schema import migrate

Connection = psycopg.Connection[Any]


def finding(dsn: str, name: str) -> Finding:
    (found,) = [found for found in examine(dsn, "pgjobq") if found.name == name]
    return found


# -- the schema -------------------------------------------------------------------------------------


def test_newer_schema_asks_for_an_upgrade_of_pgjobq(dsn: str, conn: Connection) -> None:
    conn.execute("insert into schema_version values (999)")
    found = finding(dsn, "schema")
    assert not found.ok
    assert found.remedy == "Upgrade pgjobq to the version that migrated the schema, or to a later one."
    assert "migrate" not in found.detail


def test_missing_schema_asks_for_a_migration_of_that_schema(dsn: str) -> None:
    (found,) = examine(dsn, "my jobs")
    assert (found.ok, found.remedy) == (False, "Run: pgjobq migrate --schema 'my jobs'")


# -- publications -----------------------------------------------------------------------------------


@pytest.fixture
def publish(conn: Connection) -> Callable[[str], None]:
    """Return a function that publishes tables. The server's warning about wal_level is suppressed."""

    def create(what: str) -> None:
        conn.execute(f"set client_min_messages = error; create publication pgjobq_test {what}".encode())

    return create


def lacking(conn: Connection) -> set[str]:
    """Return the tables from which PostgreSQL refuses to delete because they are published."""
    tables = conn.execute("select relname from pg_class where relnamespace = 'pgjobq'::regnamespace and relkind = 'r'")
    refused = set()
    for (table,) in tables.fetchall():
        try:
            conn.execute(f"delete from {table} where false")
        except psycopg.errors.ObjectNotInPrerequisiteState:
            refused.add(table)
    return refused


@pytest.mark.parametrize("what", ["for all tables", "for tables in schema pgjobq"])
def test_published_table_without_a_replica_identity_is_found(
    dsn: str, conn: Connection, publish: Callable[[str], None], what: str
) -> None:
    conn.execute("alter table jobs replica identity nothing; alter table claims drop constraint claims_pkey")
    assert finding(dsn, "publications").ok
    publish(what)
    refused = lacking(conn)
    assert refused >= {"jobs", "claims"}
    found = finding(dsn, "publications")
    assert not found.ok
    statements = re.findall(r"alter table .*? replica identity full", found.remedy)
    assert {statement.split('"')[3] for statement in statements} == refused
    for statement in statements:
        conn.execute(statement.encode())
    assert finding(dsn, "publications").ok
    assert lacking(conn) == set()


def test_other_publications_need_no_replica_identity(
    dsn: str, conn: Connection, publish: Callable[[str], None]
) -> None:
    conn.execute("alter table jobs replica identity nothing; create table public.orders (id integer)")
    publish("for table public.orders")
    assert finding(dsn, "publications").ok
    conn.execute("drop publication pgjobq_test")
    publish("for all tables with (publish = 'insert, truncate')")
    assert finding(dsn, "publications").ok


def test_index_may_be_the_replica_identity(dsn: str, conn: Connection, publish: Callable[[str], None]) -> None:
    conn.execute("create unique index by_seq on claims (id); alter table claims replica identity using index by_seq")
    publish("for table claims")
    assert finding(dsn, "publications").ok
    conn.execute("drop index by_seq")
    assert not finding(dsn, "publications").ok


# -- connections ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowded() -> Iterator[DevServer]:
    """Start a server with few connections, and with logins that it refuses for one reason each."""
    settings = {"max_connections": "8", "superuser_reserved_connections": "2"}
    with DevServer(settings=settings) as server:
        migrate(server.dsn)
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            conn.execute("create role barred password 'p'; create role many login password 'p' connection limit 0")
            conn.execute("create role plain login password 'p'")
            conn.execute("create database closed")
            conn.execute("revoke connect on database closed from public")
        yield server


PLAIN = {"user": "plain", "password": "p"}
REFUSED: dict[str, tuple[dict[str, str], str]] = {
    "wrong password": ({"password": "wrong"}, r'password authentication failed for user "\w+"; set the right user'),
    "no such user": ({"user": "ghost", "password": "p"}, r'password authentication failed for user "ghost"; set'),
    "not a login": ({"user": "barred", "password": "p"}, r'role "barred" is not permitted to log in; use a user'),
    "no such database": ({"dbname": "ghost"}, r'database "ghost" does not exist; create the database'),
    "may not connect": ({**PLAIN, "dbname": "closed"}, r"permission denied for .*; grant connect"),
    "too many of the role": ({"user": "many", "password": "p"}, r'too many connections for role "many"; raise max_connections'),
}  # fmt: skip


@pytest.mark.parametrize(("wrong", "told"), REFUSED.values(), ids=REFUSED)
def test_message_about_a_refused_connection_names_the_reason(
    crowded: DevServer, wrong: dict[str, str], told: str
) -> None:
    dsn = make_conninfo(crowded.dsn, **wrong)
    for call in (lambda: examine(dsn, "pgjobq"), lambda: migrate(dsn), lambda: JobQueue(dsn).enqueue("t")):
        with pytest.raises(StorageUnavailable, match=f"^PostgreSQL refuses the connection: {told}"):
            call()


def test_missing_password(crowded: DevServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGPASSWORD", raising=False)
    dsn = make_conninfo(crowded.dsn, password="", passfile="/nowhere")
    with pytest.raises(StorageUnavailable, match="refuses the connection: fe_sendauth: no password supplied; set"):
        examine(dsn, "pgjobq")


def fill(dsn: str, held: ExitStack) -> None:
    """Open all connections that this login may have."""
    while True:
        held.enter_context(psycopg.connect(dsn))


def test_server_without_a_free_connection(crowded: DevServer) -> None:
    plain = make_conninfo(crowded.dsn, **PLAIN)
    told = r"^PostgreSQL refuses the connection: {}.*; raise max_connections"
    with ExitStack() as held:
        for dsn, words in (
            (plain, "remaining connection slots are reserved"),
            (crowded.dsn, "sorry, too many clients"),
        ):
            with pytest.raises(psycopg.OperationalError, match=words):
                fill(dsn, held)
            with pytest.raises(StorageUnavailable, match=told.format(words)):
                examine(dsn, "pgjobq")


def test_missing_server() -> None:
    with pytest.raises(StorageUnavailable, match=r"^PostgreSQL does not answer: "):
        examine("postgresql://u:s3cret@127.0.0.1:1/app", "pgjobq")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ('FATAL:  Passwort-Authentifizierung für Benutzer "x" fehlgeschlagen', "refuses the connection: Passwort-"),
        ("FATAL:  the database system is starting up", "is starting up; try again in a moment"),
        (
            'FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "x", database "y", no encryption',
            "; allow this user, host and database in the server's pg_hba",
        ),
        ("FATAL:  no more connections allowed (max_client_conn)", "; raise max_connections"),
    ],
)
def test_messages_of_servers_that_the_tests_do_not_have(words: str, told: str) -> None:
    error = psycopg.OperationalError(
        f'connection failed: connection to server at "10.0.0.2", port 5432 failed: {words}'
    )
    assert told in str(translate(error))
