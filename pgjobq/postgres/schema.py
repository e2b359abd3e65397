"""Install and upgrade the SQL core: the files of sql/, in one transaction.

Tables come from numbered migrations, each applied once; functions are written again every time, and views, triggers,
comments and rights where they differ, so that an installation always runs the code that this package ships.
"""

from __future__ import annotations

import random
import re
import shlex
import time
from dataclasses import dataclass, field

import psycopg
from psycopg import errors as pg
from psycopg import sql

from pgjobq.errors import ConfigurationError, NotMigrated, SchemaTooNew, StorageError
from pgjobq.postgres.errors import translated
from pgjobq.postgres.pool import Connection, parameters
from pgjobq.postgres.script import migration_files, one_script, sql_dir

DEFAULT_SCHEMA = "pgjobq"
PATIENCE = 30.0  # seconds for which migrate tries again to lock what is in use
PAUSE = 0.7  # seconds between two tries, about; enqueues that have waited behind the first go on


@dataclass(frozen=True, kw_only=True)
class MigrationReport:
    """What migrate did: versions are numbers of files in sql/migrations, None when there was no schema."""

    schema: str
    before: int | None
    after: int
    notices: list[str] = field(default_factory=list)


def migrations() -> list[tuple[int, str]]:
    """The migrations in order: (version, SQL)."""
    return [(version, (sql_dir() / file).read_text()) for version, file in migration_files()]


def newest_version() -> int:
    """The schema version that this package brings a database to."""
    return migration_files()[-1][0]


def migration_sql(schema: str = DEFAULT_SCHEMA, *, public_function: bool = True) -> str:
    """The whole installation as one SQL script, for psql or any client: idempotent, one transaction.

    Applies the migrations that the database has not had, and every function, trigger, view and role. It waits at most
    half a second for a lock on a table, and then fails: run it again.
    """
    check_name(schema)
    return one_script(schema, public_function=public_function)


def migrate(
    conninfo: str, *, schema: str = DEFAULT_SCHEMA, public_function: bool = True, patience: float = PATIENCE
) -> MigrationReport:
    """Bring the schema of a database up to this package, creating it when it is missing.

    One transaction under an advisory lock: all or nothing, and any number of callers at once end as one. On a database
    that is up to date it waits for no other transaction. Where it must lock a table that is in use, it waits for half
    a second at a time, because enqueues wait behind it, and tries again for patience seconds.

    Raises SchemaTooNew for a database that is ahead of this package; SchemaConflict for a schema that belongs to
    another role, or in which others may create objects; StorageError for a table that stays in use, with the session
    that uses it, and for a server that pgjobq cannot work on; StorageUnavailable when there is no answer.
    """
    script = migration_sql(schema, public_function=public_function).encode()
    notices: list[str] = []
    with translated(), psycopg.connect(**parameters(conninfo, "pgjobq migrate"), autocommit=True) as conn:
        conn.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
        before = schema_version(conn, schema)
        deadline = time.monotonic() + patience
        while True:
            notices.clear()
            try:
                # The script is text of our own files; the schema's name is quoted in it.
                conn.execute(script)
                break
            except (pg.LockNotAvailable, pg.DeadlockDetected) as error:
                conn.execute("rollback")
                blockers = _blockers(conn, schema)
                # Jitter, not secrecy: what it collides with may come at regular times.
                pause = PAUSE * random.uniform(0.5, 1.5)  # noqa: S311
                if time.monotonic() + pause > deadline:
                    raise StorageError(_in_use(schema, patience, blockers)) from error
                time.sleep(pause)
    return MigrationReport(schema=schema, before=before, after=newest_version(), notices=notices)


def _blockers(conn: Connection, schema: str) -> list[str]:
    """The sessions and prepared transactions that use tables or views of the schema, or install it, oldest first."""
    query = """
        select distinct
               coalesce('session ' || pid || ' of ' || coalesce(usename, backend_type)
                          || coalesce(' (' || nullif(concat_ws(', ', nullif(application_name, ''), state), '') || ')',
                                      '')
                          || coalesce(', since ' || xact_start::timestamptz(0), ''),
                        'prepared transaction ' || quote_literal(gid)) as holder,
               coalesce(xact_start, prepared) as since
          from pg_locks
          left join pg_class on pg_class.oid = pg_locks.relation
          left join pg_stat_activity using (pid)
          left join pg_prepared_xacts
                 on pg_prepared_xacts.transaction in (select own.transactionid from pg_locks as own
                                                       where own.pid is null
                                                         and own.virtualtransaction = pg_locks.virtualtransaction)
                    and pg_locks.pid is null
         where granted
           and pg_locks.database = (select oid from pg_database where datname = current_database())
           and (relnamespace = to_regnamespace(quote_ident(%(schema)s))
                and (relkind = 'v' or mode not in ('AccessShareLock', 'RowShareLock'))
                or locktype = 'advisory' and classid::bigint::bit(32)::integer = hashtext('pgjobq install')
                   and objid::bigint::bit(32)::integer = hashtext(%(schema)s))
         order by since nulls last
    """
    return [holder for holder, _ in conn.execute(query, {"schema": schema})]


def _in_use(schema: str, patience: float, blockers: list[str]) -> str:
    held = f"; in use by {'; '.join(blockers[:5])}" if blockers else ""
    return (
        f"schema {schema!r} could not be locked within {patience:.0f} seconds, and nothing was changed{held}; "
        "end those transactions, by pg_terminate_backend(session) if need be, and migrate again"
    )


def schema_version(conn: Connection, schema: str = DEFAULT_SCHEMA) -> int | None:
    """The version that a database is at; None when the schema is not there."""
    check_name(schema)
    table = sql.Identifier(schema, "schema_version")
    # To read another's view, or a table with policies, runs its functions as this user.
    ours = """
        select from pg_catalog.pg_class
         where oid = pg_catalog.to_regclass(%s) and relkind = 'r' and not relrowsecurity
           and pg_catalog.obj_description(oid, 'pg_class') like 'Migrations of pgjobq %%'
    """
    if conn.execute(ours, [table.as_string(None)]).fetchone() is None:
        return None
    newest = conn.execute(sql.SQL("select max(version) from {}").format(table)).fetchone()
    return int(newest[0]) if newest and newest[0] is not None else None


def check_schema(conn: Connection, schema: str = DEFAULT_SCHEMA) -> None:
    """Raise NotMigrated or SchemaTooNew unless the database is at the version of this package."""
    version, newest = schema_version(conn, schema), newest_version()
    command = migrate_command(schema)
    if version is None:
        raise NotMigrated(f"there is no pgjobq schema {schema!r} in this database; run: {command}")
    if version < newest:
        raise NotMigrated(f"schema {schema!r} is at version {version}, pgjobq needs {newest}; run: {command}")
    if version > newest:
        raise SchemaTooNew(
            f"schema {schema!r} is at version {version}, newer than this pgjobq, which knows {newest}; upgrade pgjobq"
        )
    looked_into = _looked_into(conn, schema)
    if looked_into is not None:
        raise NotMigrated(
            f"schema {schema!r} was renamed, and its functions still look into {looked_into}; run: {command}"
        )


def migrate_command(schema: str) -> str:
    """The command that migrates a schema, for messages."""
    return command_for("migrate", schema)


def command_for(name: str, schema: str) -> str:
    """A command for a schema, for messages."""
    return f"pgjobq {name}" if schema == DEFAULT_SCHEMA else f"pgjobq {name} --schema {shlex.quote(schema)}"


def _looked_into(conn: Connection, schema: str) -> str | None:
    """The schema that the functions of a renamed one look into: a function keeps the search_path of its creation."""
    query = """
        select split_part(split_part(setting, '=', 2), ',', 1)
          from pg_proc, unnest(proconfig) as setting
         where pronamespace = to_regnamespace(quote_ident(%(schema)s)) and proname = 'enqueue_job'
           and setting like 'search_path=%%' and setting <> 'search_path=' || quote_ident(%(schema)s) || ', pg_temp'
         limit 1
    """
    row = conn.execute(query, {"schema": schema}).fetchone()
    return None if row is None else str(row[0])


def check_name(schema: str) -> None:
    """Raise ConfigurationError for what PostgreSQL takes for no schema of a user's."""
    if not schema or len(schema.encode()) > 63 or "\0" in schema or re.match("pg_", schema):
        raise ConfigurationError(f"schema: {schema!r} is not a name; give 1 to 63 bytes, not starting with pg_")
