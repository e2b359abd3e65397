"""Install and upgrade the SQL core from the files of sql/, in one transaction.

Numbered migrations create the tables, and each is applied once. Functions are replaced every time. Views, triggers,
comments and rights are replaced if they differ, so an installation always runs the code that this package ships.
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
PATIENCE = 30.0  # seconds for which migrate retries to lock objects that are in use
PAUSE = 0.7  # average seconds between two attempts; in the pause the enqueues that waited behind the first continue


@dataclass(frozen=True, kw_only=True)
class MigrationReport:
    """The result of migrate. Versions are the numbers of the files in sql/migrations; None means no schema."""

    schema: str
    before: int | None
    after: int
    notices: list[str] = field(default_factory=list)


def migrations() -> list[tuple[int, str]]:
    """Return the migrations in order, as pairs of version and SQL text."""
    return [(version, (sql_dir() / file).read_text()) for version, file in migration_files()]


def newest_version() -> int:
    """Return the schema version to which this package migrates a database."""
    return migration_files()[-1][0]


def migration_sql(schema: str = DEFAULT_SCHEMA, *, public_function: bool = True) -> str:
    """Return the installation as one SQL script for psql or any client. It is idempotent and runs in one transaction.

    The script applies the missing migrations, and installs all functions, triggers, views and roles. It waits at most
    half a second for a lock on a table and then fails. In that case, run it again.
    """
    check_name(schema)
    return one_script(schema, public_function=public_function)


def migrate(
    conninfo: str, *, schema: str = DEFAULT_SCHEMA, public_function: bool = True, patience: float = PATIENCE
) -> MigrationReport:
    """Create the schema in a database, or upgrade it to the version of this package.

    Everything happens in one transaction under an advisory lock, so concurrent calls are safe. If the database is up to
    date, the call waits for no other transaction. If it must lock a table that is in use, it waits half a second at a
    time, because enqueues wait behind it, and retries for patience seconds.

    Raises SchemaTooNew for a database that is newer than this package; SchemaConflict for a schema that belongs to
    another role, or in which other roles may create objects; StorageError for a table that stays in use, naming the
    sessions that use it, and for a server that pgjobq does not support; StorageUnavailable when there is no answer.
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
                # The script comes from pgjobq's own files, and the schema's name is quoted in it.
                conn.execute(script)
                break
            except (pg.LockNotAvailable, pg.DeadlockDetected) as error:
                conn.execute("rollback")
                blockers = _blockers(conn, schema)
                # The jitter avoids meeting a transaction that runs at regular times. It need not be secret.
                pause = PAUSE * random.uniform(0.5, 1.5)  # noqa: S311
                if time.monotonic() + pause > deadline:
                    raise StorageError(_in_use(schema, patience, blockers)) from error
                time.sleep(pause)
    return MigrationReport(schema=schema, before=before, after=newest_version(), notices=notices)


def _blockers(conn: Connection, schema: str) -> list[str]:
    """Return the sessions and prepared transactions that use or install the schema's tables or views, oldest first."""
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
        "end those transactions, if necessary with pg_terminate_backend(session), and migrate again"
    )


def schema_version(conn: Connection, schema: str = DEFAULT_SCHEMA) -> int | None:
    """Return the schema version of a database, or None if the schema does not exist."""
    check_name(schema)
    table = sql.Identifier(schema, "schema_version")
    # Read nothing but pgjobq's own table, because a view or a row policy of another user could run code as this user.
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
        raise NotMigrated(f"schema {schema!r} is at version {version}, but pgjobq needs {newest}; run: {command}")
    if version > newest:
        raise SchemaTooNew(
            f"schema {schema!r} is at version {version}, but this pgjobq supports only up to {newest}; upgrade pgjobq"
        )
    looked_into = _looked_into(conn, schema)
    if looked_into is not None:
        raise NotMigrated(
            f"schema {schema!r} was renamed, but its functions still use the schema {looked_into}; run: {command}"
        )


def migrate_command(schema: str) -> str:
    """Return the command that migrates a schema, for messages."""
    return command_for("migrate", schema)


def command_for(name: str, schema: str) -> str:
    """Return a pgjobq command for a schema, for messages."""
    return f"pgjobq {name}" if schema == DEFAULT_SCHEMA else f"pgjobq {name} --schema {shlex.quote(schema)}"


def _looked_into(conn: Connection, schema: str) -> str | None:
    """Return the old name of a renamed schema if its functions still use it; otherwise return None.

    A function keeps the search_path with which it was created.
    """
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
    """Raise ConfigurationError if PostgreSQL does not allow a user's schema to have this name."""
    if not schema or len(schema.encode()) > 63 or "\0" in schema or re.match("pg_", schema):
        raise ConfigurationError(f"schema: {schema!r} is not a valid name; use 1 to 63 bytes, not starting with pg_")
