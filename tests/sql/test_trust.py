"""An installer, often a superuser, runs no code of another role, and says what prevents the installation."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgjobq import NotMigrated, SchemaConflict, StorageError
from pgjobq.devserver import DevServer
from pgjobq.postgres.doctor import examine
from pgjobq.postgres.schema import check_schema, migrate

Connection = psycopg.Connection[Any]
MakeRole = Callable[..., str]

ARGUMENTS = "text, jsonb, bigint, timestamptz, integer, text, text, text, text, interval, text, interval, timestamptz"
# These functions match an installation's calls better than PostgreSQL's own, and each records its caller.
TRAP = """
create table {schema}.caught (who text);
grant insert on {schema}.caught to public;
create function {schema}.trap() returns boolean language plpgsql as $$
begin
  insert into {schema}.caught values (current_user);
  return true;
end $$;
create function {schema}.quote_ident(name) returns text language plpgsql as $$
begin
  perform {schema}.trap();
  return pg_catalog.quote_ident($1::text);
end $$;
create function {schema}.to_regclass("char") returns regclass language plpgsql as $$
begin
  perform {schema}.trap();
end $$;
"""


@pytest.fixture
def conn(empty_dsn: str) -> Iterator[Connection]:
    """A superuser's connection to a database without pgjobq."""
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        yield conn


@pytest.fixture
def make_role(conn: Connection) -> Iterator[MakeRole]:
    """Return a function that creates roles. They are dropped at the end with everything that they own."""
    made: list[str] = []

    def make(options: str = "") -> str:
        made.append(f"pgjobq_test_{secrets.token_hex(4)}")
        conn.execute(f"create role {made[-1]} {options}")
        return made[-1]

    yield make
    for role in made:
        conn.execute(f"drop owned by {role} cascade")
    for role in made:
        conn.execute(f"drop role {role}")


def acting_as(dsn: str, role: str) -> str:
    return make_conninfo(dsn, options=f"-c role={role}")


def test_schema_of_another_role_is_refused_and_its_code_does_not_run(
    empty_dsn: str, conn: Connection, make_role: MakeRole
) -> None:
    mallory = make_role()
    conn.execute(f"create schema pgjobq authorization {mallory}; create schema loot authorization {mallory}")
    conn.execute(f"set role {mallory}")
    conn.execute(TRAP.format(schema="pgjobq"))
    # This view looks like pgjobq's table, and runs a function when it is read.
    conn.execute("create view pgjobq.schema_version as select 1 as version where pgjobq.trap()")
    conn.execute(
        "comment on view pgjobq.schema_version is 'Migrations of pgjobq applied to this schema, one row each.'"
    )
    conn.execute("reset role")
    with pytest.raises(SchemaConflict, match=f"pgjobq belongs to role {mallory}.*connect as {mallory}.*--schema"):
        migrate(empty_dsn)
    assert not examine(empty_dsn, "pgjobq")[0].ok
    with pytest.raises(NotMigrated):
        check_schema(conn, "pgjobq")
    assert conn.execute("select * from pgjobq.caught").fetchall() == []


@pytest.mark.parametrize("given", ["create", "all"])
def test_schema_in_which_another_role_can_create_objects_is_refused(
    empty_dsn: str, conn: Connection, make_role: MakeRole, given: str
) -> None:
    mallory = make_role()
    conn.execute(f"create schema pgjobq; grant {given} on schema pgjobq to {mallory}")
    conn.execute(f"set role {mallory}")
    if given == "all":
        conn.execute(TRAP.format(schema="pgjobq"))
    conn.execute("reset role")
    with pytest.raises(SchemaConflict, match=rf"roles other than the owner .*{mallory}; run: revoke create on schema"):
        migrate(empty_dsn)
    conn.execute(f"revoke create on schema pgjobq from {mallory}")
    if given == "all":
        with pytest.raises(SchemaConflict, match=rf"objects of other roles: .*trap\(\) of {mallory}"):
            migrate(empty_dsn)
        assert conn.execute("select * from pgjobq.caught").fetchall() == []
    else:
        migrate(empty_dsn)


@pytest.mark.parametrize("schema", ["public", "pgjobq"])
def test_schema_in_which_every_role_can_create_objects_is_refused(
    empty_dsn: str, conn: Connection, schema: str
) -> None:
    conn.execute(f"create schema if not exists {schema}; grant create on schema {schema} to public")
    with pytest.raises(SchemaConflict, match=rf"may create objects in schema {schema}: public; run: revoke create"):
        migrate(empty_dsn, schema=schema)
    conn.execute(f"revoke create on schema {schema} from public")
    for _ in range(2):
        migrate(empty_dsn, schema=schema)
    assert conn.execute(f"select {schema}.enqueue_job('t')").fetchone() is not None


def test_member_of_the_owning_role_counts_as_the_owner(empty_dsn: str, conn: Connection, make_role: MakeRole) -> None:
    owner = make_role()
    make_role(f"in role {owner}")
    conn.execute(f"create schema pgjobq authorization {owner}")
    migrate(acting_as(empty_dsn, owner))
    with pytest.raises(SchemaConflict, match=f"pgjobq belongs to role {owner}"):
        migrate(empty_dsn)


def test_different_superusers_can_migrate(empty_dsn: str, conn: Connection, make_role: MakeRole) -> None:
    conn.execute("create schema pgjobq")
    boss = make_role("superuser")
    migrate(acting_as(empty_dsn, boss))
    migrate(empty_dsn)


@pytest.mark.parametrize(
    "created",
    [
        "create function pgjobq.promote_jobs(max_jobs integer default 1000) returns integer return 0",
        "create function pgjobq.mine() returns integer return 0",
        "create view pgjobq.mine as select 1",
        "create type pgjobq.mine as enum ('a')",
        "create domain pgjobq.mine as text",
        "create operator pgjobq.* (function = dpow, leftarg = float8, rightarg = float8)",
    ],
)
def test_object_of_another_role_is_refused(empty_dsn: str, conn: Connection, make_role: MakeRole, created: str) -> None:
    owner, other = make_role(), make_role()
    conn.execute(f"create schema pgjobq authorization {owner}")
    for role in (other, "postgres"):
        conn.execute(f"grant all on schema pgjobq to {other}")
        conn.execute(f"set role {role}")
        conn.execute(created.encode())
        conn.execute(f"reset role; revoke create on schema pgjobq from {other}")
        with pytest.raises(SchemaConflict, match=rf"objects of other roles: .* of {role}; drop them or give them to"):
            migrate(acting_as(empty_dsn, owner))
        conn.execute("drop schema pgjobq cascade")
        conn.execute(f"create schema pgjobq authorization {owner}")
    migrate(acting_as(empty_dsn, owner))


def test_object_of_an_extension_does_not_count_as_another_roles(
    empty_dsn: str, conn: Connection, make_role: MakeRole
) -> None:
    owner = make_role()
    conn.execute(f"create schema pgjobq authorization {owner}; create extension pg_stat_statements schema pgjobq")
    for _ in range(2):
        migrate(acting_as(empty_dsn, owner))


def test_public_function_of_another_role_is_not_replaced(empty_dsn: str, conn: Connection, make_role: MakeRole) -> None:
    """A replaced function would keep its owner, who could change it later."""
    mallory = make_role()
    migrate(empty_dsn)
    conn.execute(f"alter function public.enqueue_job({ARGUMENTS}) owner to {mallory}")
    assert any("was not replaced" in notice for notice in migrate(empty_dsn).notices)


def test_renamed_schema_is_reported_and_repaired_without_using_the_old_name(
    empty_dsn: str, conn: Connection, make_role: MakeRole
) -> None:
    migrate(empty_dsn)
    conn.execute("alter schema pgjobq rename to work")
    mallory = make_role()
    conn.execute(f"create schema pgjobq authorization {mallory}")
    conn.execute(f"set role {mallory}")
    conn.execute(TRAP.format(schema="pgjobq"))
    conn.execute("create table pgjobq.jobs (id text default pgjobq.trap()::text, queue text, type text, data jsonb)")
    conn.execute("reset role")
    with pytest.raises(
        NotMigrated, match=r"'work' was renamed.*use the schema pgjobq; run: pgjobq migrate --schema work"
    ):
        check_schema(conn, "work")
    found = examine(empty_dsn, "work")[0]
    assert (found.ok, found.remedy) == (False, "Run: pgjobq migrate --schema work")
    assert any("was renamed" in notice for notice in migrate(empty_dsn, schema="work").notices)
    check_schema(conn, "work")
    conn.execute("select work.enqueue_job('t'), public.enqueue_job('t')")
    conn.execute("insert into work.jobs (type) values ('t')")
    assert conn.execute("select count(*) from work.jobs join work.ready on job_id = id").fetchone() == (3,)
    assert conn.execute("select * from pgjobq.caught").fetchall() == []
    assert migrate(empty_dsn, schema="work").notices == []


def test_function_of_a_user_keeps_its_search_path(empty_dsn: str, conn: Connection) -> None:
    migrate(empty_dsn)
    conn.execute("create function pgjobq.mine() returns text language sql set search_path = public as 'select 1::text'")
    migrate(empty_dsn)
    query = "select proconfig from pg_proc where oid = 'pgjobq.mine()'::regprocedure"
    assert conn.execute(query).fetchone() == (["search_path=public"],)


def test_error_without_the_right_to_create_a_schema_says_what_to_ask_for(
    empty_dsn: str, conn: Connection, make_role: MakeRole
) -> None:
    role = make_role()
    with pytest.raises(
        StorageError,
        match=f"may not create it; ask an administrator to run: create schema pgjobq authorization {role};$",
    ):
        migrate(acting_as(empty_dsn, role))


# -- the server -------------------------------------------------------------------------------------


def test_read_only_database_is_refused(empty_dsn: str, conn: Connection) -> None:
    migrate(empty_dsn)
    conn.execute(f"alter database {conn.info.dbname} set default_transaction_read_only = on")
    with pytest.raises(StorageError, match=r"is read-only for role .*default_transaction_read_only"):
        migrate(empty_dsn)
    (found,) = examine(empty_dsn, "pgjobq")
    assert (found.name, found.ok) == ("server", False)
    assert "default_transaction_read_only" in found.remedy


def test_standby_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, *list(tmp_path.parents)[:3]):  # the server may run as another user, which needs access
        if path.stat().st_uid == os.geteuid():
            path.chmod(path.stat().st_mode | 0o011)
    with DevServer(tmp_path / "server") as server:
        migrate(server.dsn)
    (data,) = (path.parent for path in (tmp_path / "server").rglob("postgresql.auto.conf"))
    (data / "standby.signal").touch()
    with DevServer(tmp_path / "server") as server:
        with pytest.raises(StorageError, match="this server is a standby, which is read-only; connect to the primary"):
            migrate(server.dsn)
        (found,) = examine(server.dsn, "pgjobq")
        assert (found.name, found.ok, found.remedy) == ("server", False, "Connect to the primary server.")
