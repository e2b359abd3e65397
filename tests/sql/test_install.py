"""Installation: repeated, concurrent, beside other schemas, by psql alone, and refused where it would do harm."""

from __future__ import annotations

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgjobq import ConfigurationError, NotMigrated, SchemaConflict, SchemaTooNew
from pgjobq.devserver import find_bindir
from pgjobq.postgres.errors import translate
from pgjobq.postgres.schema import check_schema, migrate, migration_sql, migrations, newest_version
from pgjobq.postgres.script import psql_script, sql_dir

Connection = psycopg.Connection[Any]

OBJECTS = """
select 'relation', relname, relkind::text from pg_class where relnamespace = %(schema)s::regnamespace and relkind in ('r', 'v', 'S', 'i')
union all
select 'function', proname || pg_get_function_arguments(oid), md5(prosrc) || array_to_string(proconfig, ',')
  from pg_proc where pronamespace = %(schema)s::regnamespace
union all
select 'trigger', tgname, pg_get_triggerdef(oid) from pg_trigger where tgrelid = (%(schema)s || '.jobs')::regclass
union all
select 'column', attrelid::regclass || '.' || attname, format_type(atttypid, atttypmod) || coalesce(pg_get_expr(adbin, adrelid), '')
  from pg_attribute join pg_class on pg_class.oid = attrelid left join pg_attrdef on adrelid = attrelid and adnum = attnum
 where relnamespace = %(schema)s::regnamespace and relkind = 'r' and attnum > 0
 order by 1, 2, 3
"""


def objects(dsn: str, schema: str = "pgjobq") -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as conn:
        return conn.execute(OBJECTS, {"schema": schema}).fetchall()


def test_second_install_changes_nothing(empty_dsn: str) -> None:
    first = migrate(empty_dsn)
    assert (first.before, first.after) == (None, newest_version())
    before = objects(empty_dsn)
    assert len(before) > 80
    assert migrate(empty_dsn).before == newest_version()
    assert objects(empty_dsn) == before


def test_twenty_concurrent_installations_succeed(empty_dsn: str) -> None:
    with ThreadPoolExecutor(20) as pool:
        reports = list(pool.map(lambda _: migrate(empty_dsn), range(20)))
    assert {report.after for report in reports} == {newest_version()}
    with psycopg.connect(empty_dsn) as conn:
        assert conn.execute("select count(*) from pgjobq.schema_version").fetchone() == (newest_version(),)
        assert conn.execute("select enqueue_job('t')").fetchone() is not None


def test_upgrade_restores_every_function(empty_dsn: str) -> None:
    migrate(empty_dsn)
    before = objects(empty_dsn)
    with psycopg.connect(empty_dsn) as conn:
        conn.execute("drop function pgjobq.promote_jobs")
        conn.execute(
            "create or replace function pgjobq.cancel_job(id text, reason text default null) returns boolean language sql as 'select false'"
        )
        conn.execute("drop trigger jobs_updated on pgjobq.jobs")
    migrate(empty_dsn)
    assert objects(empty_dsn) == before


def test_two_schemas_are_independent(empty_dsn: str) -> None:
    migrate(empty_dsn)
    report = migrate(empty_dsn, schema="My Jobs")
    assert any("was not replaced" in notice for notice in report.notices)
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        conn.execute("select enqueue_job('t', job_id => 'first')")
        conn.execute("""select "My Jobs".enqueue_job('t', job_id => 'second')""")
        for schema, job in (("pgjobq", "first"), ('"My Jobs"', "second")):
            claim = f"select id from {schema}.claim_jobs({schema}.register_worker('w'), null, 9)"
            assert conn.execute(claim.encode()).fetchall() == [(job,)]
        # Workers with the same id in both schemas: each schema sees only its own keys.
        conn.execute("select pgjobq.register_worker('w')")
        assert conn.execute("select count(*) from pgjobq.live_workers()").fetchone() == (2,)
        assert conn.execute("""select count(*) from "My Jobs".live_workers()""").fetchone() == (1,)


def test_no_function_has_the_name_of_a_type(conn: Connection) -> None:
    # PostgreSQL reads list_attempts('a') as a cast if a type has that name, and each table and view is one.
    query = """
        select proname from pg_proc join pg_type on typname = proname
         where pronamespace = 'pgjobq'::regnamespace and typnamespace = pronamespace and pronargs >= 1"""
    assert conn.execute(query).fetchall() == []


def test_public_function_can_be_left_out(empty_dsn: str) -> None:
    migrate(empty_dsn, public_function=False)
    with psycopg.connect(empty_dsn) as conn:
        assert conn.execute("select to_regproc('public.enqueue_job')").fetchone() == (None,)


def test_public_function_is_inlined(empty_dsn: str) -> None:
    migrate(empty_dsn)
    migrate(empty_dsn)  # the second migration recognizes the function
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        plan = conn.execute("explain (verbose) select enqueue_job('t', queue => 'mail')").fetchall()
        assert any("pgjobq.enqueue_job('t'" in line for (line,) in plan)
        conn.execute("drop schema pgjobq cascade")
        assert conn.execute("select to_regproc('public.enqueue_job')").fetchone() == (None,)


def test_public_function_of_a_user_is_kept(empty_dsn: str) -> None:
    arguments = "text, jsonb, bigint, timestamptz, integer, text, text"
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        conn.execute(f"create function public.enqueue_job({arguments}) returns text return 'theirs'")
        report = migrate(empty_dsn)
        assert any("was not replaced" in notice for notice in report.notices)
        call = "select public.enqueue_job('t', '{}', 5, null, 3, 'default', null)"
        assert conn.execute(call).fetchone() == ("theirs",)
        conn.execute("drop function public.enqueue_job")
        calls_ours = "return pgjobq.enqueue_job($1, $2, $3, $4, $5, 'audited', $7)"
        conn.execute(f"create function public.enqueue_job({arguments}) returns text {calls_ours}")
        conn.execute("create function public.enqueue_job(integer) returns text return 'another'")
        assert any("was not replaced" in notice for notice in migrate(empty_dsn).notices)
        conn.execute(call)
        assert conn.execute("select queue from pgjobq.jobs").fetchone() == ("audited",)


def test_second_schema_of_another_owner_has_its_grants(empty_dsn: str) -> None:
    migrate(empty_dsn, schema="first", public_function=False)  # this creates the roles
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        owners = ["pgjobq_test_owner_a", "pgjobq_test_owner_b"]
        for owner in owners:
            conn.execute(f"create role {owner}")
        try:
            conn.execute(f"grant create on schema public to {owners[0]}")
            conn.execute(f"grant create on database {conn.info.dbname} to {', '.join(owners)}")
            for owner, schema in zip(owners, ("pgjobq", "others"), strict=True):
                conn.execute(f"create schema {schema} authorization {owner}")
                migrate(make_conninfo(empty_dsn, options=f"-c role={owner}"), schema=schema)
            right = "select has_function_privilege('pgjobq_enqueue', 'others.enqueue_job'::regproc, 'execute')"
            assert conn.execute(right).fetchone() == (True,)
        finally:
            conn.execute("drop schema if exists pgjobq, others cascade")
            conn.execute(f"drop owned by {', '.join(owners)}; drop role {', '.join(owners)}")


def test_new_id_uses_no_operator_of_the_caller(empty_dsn: str) -> None:
    """The function that creates ids has no search_path of its own, because it must be inlined."""
    migrate(empty_dsn)
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        conn.execute("create schema evil; create function evil.m(float8, integer) returns float8 return 1 / 0")
        conn.execute("create operator evil.* (function = evil.m, leftarg = float8, rightarg = integer)")
        conn.execute("create function evil.c(text, text) returns text return (1 / 0)::text")
        conn.execute("create operator evil.|| (function = evil.c, leftarg = text, rightarg = text)")
        conn.execute("set search_path = evil, pgjobq, public, pg_catalog")
        conn.execute("insert into pgjobq.jobs (type) values ('t')")


def test_newer_database_is_refused(empty_dsn: str) -> None:
    migrate(empty_dsn)
    with psycopg.connect(empty_dsn) as conn:
        conn.execute("insert into pgjobq.schema_version values (999)")
    with psycopg.connect(empty_dsn) as conn, pytest.raises(SchemaTooNew, match="999"):
        check_schema(conn)
    with pytest.raises(SchemaTooNew, match=r"999.*upgrade pgjobq to the version that migrated the schema"):
        migrate(empty_dsn)


@pytest.mark.parametrize("table", ["jobs", "customers", "schema_version"])
def test_schema_with_other_tables_is_refused_and_left_unchanged(empty_dsn: str, table: str) -> None:
    with psycopg.connect(empty_dsn) as conn:
        conn.execute(f"create schema pgjobq; create table pgjobq.{table} (mine text)")
    with pytest.raises(SchemaConflict, match=rf"{table}.*--schema"):
        migrate(empty_dsn)
    with psycopg.connect(empty_dsn) as conn:
        found = conn.execute(
            "select relname from pg_class where relnamespace = 'pgjobq'::regnamespace and relkind = 'r'"
        )
        assert found.fetchall() == [(table,)]


# -- functions of an earlier version ------------------------------------------------------------------

OLD = {
    "private": """create function pgjobq.is_held(text) returns integer return 1;
                  comment on function pgjobq.is_held(text) is 'Private: an earlier one.'""",
    "trigger": """create function pgjobq.place_new_jobs(text) returns integer return 1;
                  comment on function pgjobq.place_new_jobs(text) is 'Trigger: an earlier one.'""",
    "public": """create function pgjobq.cancel_job(text, integer) returns boolean return true;
                 comment on function pgjobq.cancel_job(text, integer) is 'Cancel.  Part of pgjobq.'""",
    "gone": """create function pgjobq.had_its_time() returns integer return 1;
               comment on function pgjobq.had_its_time() is 'Private: gone.  Part of pgjobq.'""",
}
OWN = {
    "no comment": "create function pgjobq.cancel_job(integer) returns boolean return true",
    "a comment": """create function pgjobq.report() returns integer return 1;
                    comment on function pgjobq.report() is 'Counts what the boss wants.'""",
    "a comment like ours": """create function pgjobq.report() returns integer return 1;
                              comment on function pgjobq.report() is 'Private: do not tell.'""",
    "a procedure": "create procedure pgjobq.nightly() begin atomic select pgjobq.prune_jobs(); end",
}


@pytest.mark.parametrize("created", OLD.values(), ids=OLD)
def test_function_of_an_earlier_version_is_dropped(dsn: str, conn: Connection, created: str) -> None:
    before = objects(dsn)
    conn.execute(created.encode())
    assert objects(dsn) != before
    assert migrate(dsn).notices == []
    assert objects(dsn) == before


@pytest.mark.parametrize("created", OWN.values(), ids=OWN)
def test_function_of_a_user_is_kept(dsn: str, conn: Connection, created: str) -> None:
    conn.execute(created.encode())
    conn.execute("create role pgjobq_test_caller")
    try:
        query = """select oid, xmin::text, array_agg(has_function_privilege('pgjobq_test_caller', oid, 'execute'))
                     from pg_proc where pronamespace = 'pgjobq'::regnamespace and obj_description(oid) !~ 'Part of pgjobq'
                       or proname in ('report', 'nightly') or oid = to_regprocedure('pgjobq.cancel_job(integer)')
                    group by oid order by oid"""
        before = conn.execute(query).fetchall()
        assert len(before) == 1
        for _ in range(2):
            assert migrate(dsn).notices == []
        assert conn.execute(query).fetchall() == before
    finally:
        conn.execute("drop role pgjobq_test_caller")


def test_old_function_with_dependent_objects_is_kept_and_reported(dsn: str, conn: Connection) -> None:
    conn.execute(OLD["public"].encode())
    conn.execute("create view public.mine as select pgjobq.cancel_job('x', 1)")
    (notice,) = migrate(dsn).notices
    assert "cancel_job(text,integer) of an earlier version of pgjobq was kept" in notice
    conn.execute("drop view public.mine")
    before = objects(dsn)
    assert migrate(dsn).notices == []
    assert len(objects(dsn)) == len(before) - 1


def test_public_function_of_an_earlier_version_is_dropped(dsn: str, conn: Connection) -> None:
    old = "public.enqueue_job(text, jsonb)"
    conn.execute(f"create function {old} returns text begin atomic select pgjobq.enqueue_job($1, $2); end")
    migrate(dsn)  # without the mark it counts as the user's own
    assert conn.execute("select to_regprocedure(%s) is null", [old]).fetchone() == (False,)
    conn.execute(f"comment on function {old} is 'Add.  Calls the enqueue_job of pgjobq''s schema.'")
    migrate(dsn)
    assert conn.execute("select to_regprocedure(%s) is null", [old]).fetchone() == (True,)


def test_call_of_a_dropped_function_is_reported_as_not_migrated(dsn: str, conn: Connection) -> None:
    """A worker of an earlier version gets this error after a migration, until it is replaced."""
    with pytest.raises(psycopg.errors.UndefinedFunction) as error:
        conn.execute("select had_its_time()")
    assert isinstance(translate(error.value), NotMigrated)


@pytest.mark.parametrize("rollback", ["on", "off"])
def test_installation_works_with_a_savepoint_around_every_statement(
    empty_dsn: str, rollback: str, tmp_path: Path
) -> None:
    """psql can create a savepoint for each statement. Then the rows are written by subtransactions."""
    script = tmp_path / "script.sql"
    script.write_text(f"\\set ON_ERROR_ROLLBACK {rollback}\n{migration_sql()}")
    for _ in range(2):
        done = subprocess.run(
            [str(find_bindir() / "psql"), empty_dsn, "-qX", "-f", str(script)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
    with psycopg.connect(empty_dsn) as conn:
        left = conn.execute("select count(*) from pg_proc where pronamespace = 'pgjobq'::regnamespace").fetchone()
        assert left == (len(sql_files("functions")),)
        open_to_all = conn.execute("""
            select proname from pg_proc
             where pronamespace = 'pgjobq'::regnamespace and has_function_privilege('public', oid, 'execute')""")
        assert open_to_all.fetchall() == []


def test_failed_installation_leaves_nothing(empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn) as conn, pytest.raises(psycopg.Error):
        conn.execute(migration_sql().replace("create table workers", "create table jobs", 1).encode())
    with psycopg.connect(empty_dsn) as conn:
        assert conn.execute("select to_regnamespace('pgjobq')").fetchone() == (None,)


@pytest.mark.parametrize("name", ["", "x" * 64, "pg_jobs"])
def test_invalid_schema_name_is_refused(empty_dsn: str, name: str) -> None:
    with pytest.raises(ConfigurationError, match="schema"):
        migrate(empty_dsn, schema=name)


def test_missing_schema_is_reported(empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn) as conn, pytest.raises(NotMigrated, match="pgjobq migrate"):
        check_schema(conn)


def test_psql_alone_installs_the_same_objects(empty_dsn: str, dsn: str) -> None:
    psql = find_bindir() / "psql"
    command = [str(psql), empty_dsn, "-q", "-f", str(sql_dir() / "install.sql")]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "ERROR" not in done.stderr
    assert objects(empty_dsn) == objects(dsn)


def test_install_script_is_up_to_date_and_complete() -> None:
    script = (sql_dir() / "install.sql").read_text()
    assert script == psql_script(), "run: make install-sql"
    listed = re.findall(r"^\\ir (\S+)", script, re.MULTILINE)
    files = {str(path.relative_to(sql_dir())) for path in sql_dir().rglob("*.sql")} - {"install.sql"}
    assert set(listed) == files
    assert {name for name in listed if listed.count(name) > 1} == {name for name in files if name.startswith("views/")}


def test_newest_version_is_the_same_everywhere() -> None:
    versions = [version for version, _ in migrations()]
    assert versions == list(range(1, len(versions) + 1))
    assert f"v_newest  constant integer := {versions[-1]};" in (sql_dir() / "preflight.sql").read_text()


def sql_files(folder: str) -> list[Path]:
    return sorted((sql_dir() / folder).rglob("*.sql"))


@pytest.mark.parametrize("path", sql_files("functions"), ids=lambda path: path.stem)
def test_function_file_follows_the_conventions(path: Path) -> None:
    text = path.read_text()
    assert re.findall(r"create or replace function (\w+)", text) == [path.stem]
    assert text.startswith(f"-- {path.stem}: ") or path.stem in text.splitlines()[0]
    assert f"comment on function {path.stem}(" in text
    private = re.search(r"^  '(Private|Trigger):|is '(Private|Trigger):", text, re.MULTILINE) is not None
    assert private == (path.parent.name == "private"), "functions/ has the functions for callers, private/ the others"
    assert re.search(r"^  (volatile|stable|immutable)$", text, re.MULTILINE)
    assert "set search_path from current" in text or "Without a search_path of its own" in text
    assert not re.search(r"\bexecute\s+(format|')", text), "no dynamic SQL"


def test_every_sql_file_has_at_most_80_lines() -> None:
    # The first migration and the install script are lists and may be longer.
    pages = [path for path in sql_dir().rglob("*.sql") if path.name not in ("0001_initial.sql", "install.sql")]
    long = {path.name: len(path.read_text().splitlines()) for path in pages}
    assert {name: lines for name, lines in long.items() if lines > 80} == {}


def test_every_function_has_a_comment(conn: Connection) -> None:
    silent = conn.execute(
        """select proname from pg_proc
            where pronamespace = 'pgjobq'::regnamespace and obj_description(oid, 'pg_proc') is null"""
    )
    assert silent.fetchall() == []


@pytest.mark.parametrize(
    "column", ["queue", "priority", "id", "status", "attempts", "error", "execute_at", "max_retries"]
)
def test_no_parameter_is_mistaken_for_a_column(conn: Connection, column: str) -> None:
    """In a SQL function an unqualified name means the column, so every use of a parameter must be qualified."""
    functions = conn.execute(
        """select proname, prosrc from pg_proc
            where pronamespace = 'pgjobq'::regnamespace and %s = any (proargnames)""",
        [column],
    ).fetchall()
    for name, source in functions:
        code = re.sub(r"--[^\n]*|'[^']*'", "", source)
        compared = re.findall(rf"(?<![.\w]){column}\b\s*(?:=|<|>|<>|is|in|any)(?!\w)\s*(?![:>])", code)
        # The left side of `set column = value` in an update is the column.
        assignments = re.findall(rf"(?:set|,)\s*{column}\s*=", code)
        assert len(compared) == len(assignments), (name, compared)
