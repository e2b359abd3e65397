"""Install and upgrade the SQL core: the files of sql/, in one transaction.

Tables come from numbered migrations, each applied once; functions, triggers, views and roles are
re-applied every time, so that an installation always runs the code that this package ships.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import psycopg
from psycopg import sql

from pgjobq.errors import ConfigurationError, NotMigrated, SchemaTooNew
from pgjobq.postgres.errors import translated

DEFAULT_SCHEMA = "pgjobq"
LOCK_TIMEOUT = "10s"  # an upgrade gives up rather than queue every enqueue behind a long transaction


@dataclass(frozen=True, kw_only=True)
class MigrationReport:
    """What migrate did: versions are numbers of files in sql/migrations, None when there was no schema."""

    schema: str
    before: int | None
    after: int
    notices: list[str] = field(default_factory=list)


def sql_dir() -> Path:
    """The folder of SQL files: in the package when installed from a wheel, beside it in a source tree."""
    packaged = Path(str(files("pgjobq"))) / "sql"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[2] / "sql"


def migrations() -> list[tuple[int, str]]:
    """The migrations in order: (version, SQL)."""
    paths = sorted((sql_dir() / "migrations").glob("[0-9]*.sql"))
    return [(int(path.name.split("_")[0]), path.read_text()) for path in paths]


def newest_version() -> int:
    """The schema version that this package brings a database to."""
    return migrations()[-1][0]


def migration_sql(schema: str = DEFAULT_SCHEMA, *, public_function: bool = True) -> str:
    """The whole installation as one SQL script, for psql or any client: idempotent, one transaction.

    Applies the migrations that the database has not had, and every function, trigger, view and role.
    """
    folder = sql_dir()
    quoted = _quoted(schema)
    parts = [
        "begin;",
        f"set local lock_timeout = '{LOCK_TIMEOUT}';",
        "set local check_function_bodies = off;",
        f"select pg_advisory_xact_lock({_install_lock(schema)});",
        "set local client_min_messages = warning;",
        f"create schema if not exists {quoted};",
        "set local client_min_messages = notice;",
        f"set local search_path = {quoted}, pg_temp;",
        (folder / "preflight.sql").read_text(),
        (folder / "functions" / "new_job_id.sql").read_text(),  # a column of jobs defaults to it
    ]
    parts += [_once(version, text) for version, text in migrations()]
    for kind in ("functions", "triggers", "views"):
        parts += [path.read_text() for path in sorted((folder / kind).rglob("*.sql"))]
    parts.append((folder / "comments.sql").read_text())
    if public_function:
        parts.append((folder / "public.sql").read_text())
    parts += [(folder / "roles.sql").read_text(), "commit;"]
    return "\n".join(parts) + "\n"


def migrate(conninfo: str, *, schema: str = DEFAULT_SCHEMA, public_function: bool = True) -> MigrationReport:
    """Bring the schema of a database up to this package, creating it when it is missing.

    One transaction under an advisory lock: all or nothing, and any number of callers at once end as one.
    Waits at most 10 seconds for a table lock. Raises SchemaTooNew for a database that is ahead of this
    package, SchemaConflict for a schema that holds other tables, StorageUnavailable when there is no answer.
    """
    script = migration_sql(schema, public_function=public_function)
    notices: list[str] = []
    with translated(), psycopg.connect(conninfo, autocommit=True) as conn:
        conn.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
        before = schema_version(conn, schema)
        # The script is text of our own files; the schema's name is quoted in it.
        conn.execute(script.encode())
    return MigrationReport(schema=schema, before=before, after=newest_version(), notices=notices)


def schema_version(conn: psycopg.Connection[tuple[object, ...]], schema: str = DEFAULT_SCHEMA) -> int | None:
    """The version that a database is at; None when the schema is not there."""
    table = f"{_quoted(schema)}.schema_version"
    ours = "select obj_description(to_regclass(%s), 'pg_class') like 'Migrations of pgjobq %%'"
    if conn.execute(ours, [table]).fetchone() != (True,):
        return None
    query = sql.SQL("select max(version) from {}").format(sql.Identifier(schema, "schema_version"))
    newest = conn.execute(query).fetchone()
    return int(str(newest[0])) if newest and newest[0] is not None else None


def check_schema(conn: psycopg.Connection[tuple[object, ...]], schema: str = DEFAULT_SCHEMA) -> None:
    """Raise NotMigrated or SchemaTooNew unless the database is at the version of this package."""
    version, newest = schema_version(conn, schema), newest_version()
    if version is None:
        raise NotMigrated(f"there is no pgjobq schema {schema!r} in this database; run: pgjobq migrate")
    if version < newest:
        raise NotMigrated(f"schema {schema!r} is at version {version}, pgjobq needs {newest}; run: pgjobq migrate")
    if version > newest:
        raise SchemaTooNew(f"schema {schema!r} is at version {version}, newer than this pgjobq, which knows {newest}")


def _once(version: int, text: str) -> str:
    tag = f"$migration_{version:04d}$"
    return f"""do {tag}
declare
  v_version integer;
begin
  if to_regclass('schema_version') is not null then
    select max(version) from schema_version into v_version;
  end if;
  if coalesce(v_version, 0) < {version} then
{text}
    insert into schema_version (version) values ({version});
  end if;
end;
{tag};"""  # noqa: S608  # a number and a file of our own


def _install_lock(schema: str) -> str:
    return f"hashtext('pgjobq install'), hashtext('{schema.replace(chr(39), chr(39) * 2)}')"


def _quoted(schema: str) -> str:
    if not schema or len(schema.encode()) > 63 or "\0" in schema or re.match("pg_", schema):
        raise ConfigurationError(f"schema: {schema!r} is not a name; give 1 to 63 bytes, not starting with pg_")
    return '"' + schema.replace('"', '""') + '"'
