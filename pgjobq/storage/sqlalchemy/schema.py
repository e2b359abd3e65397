"""Create and check the tables at the first use."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Index, Table, inspect
from sqlalchemy.schema import CreateIndex, CreateTable

from pgjobq.errors import NotMigrated, SchemaConflict, StorageError
from pgjobq.storage.sqlalchemy.connection import Database
from pgjobq.storage.sqlalchemy.table import (
    BASE_COLUMNS,
    BASE_TIMES,
    LATER_COLUMNS,
    jobs,
    results,
    schedules,
    workers,
)

Part = Table | Index


def prepare(database: Database) -> None:
    """Create the missing tables and indexes. Several processes may do this at the same time.

    Raises SchemaConflict for tables that are not pgjobq's, NotMigrated for an older table. Nothing is changed then.
    """
    missing = missing_parts(database)
    while missing:
        try:
            database.run(lambda conn: _make(conn, database.server), writes=True)
        except StorageError:
            # Another process may have created the missing part. Otherwise this error says why it is missing.
            before, missing = missing, missing_parts(database)
            if missing == before:
                raise
        else:
            return


def prepare_beside(database: Database, conn: Connection) -> None:
    """Do what prepare does, in the caller's transaction if that may hold SQLite's write lock."""
    if database.prepared or conn.dialect.name != "sqlite":
        database.open()
    else:
        _make(conn, database.server)


def missing_parts(database: Database) -> list[Part]:
    """Return the tables and indexes that do not exist. Raises SchemaConflict and NotMigrated."""
    return database.run(lambda conn: _missing(conn, database.server), writes=False)


def _make(conn: Connection, server: str) -> None:
    for part in _missing(conn, server):
        conn.execute(CreateTable(part) if isinstance(part, Table) else CreateIndex(part))


def _missing(conn: Connection, server: str) -> list[Part]:
    inspector = inspect(conn)
    parts: list[Part] = []
    for table in (jobs, workers, results, schedules):
        if not inspector.has_table(table.name):
            parts += [table, *_sorted(table)]
            continue
        check_columns(table, [column["name"] for column in inspector.get_columns(table.name)], server)
        names = {index["name"] for index in inspector.get_indexes(table.name)}
        parts += [index for index in _sorted(table) if index.name not in names]
    return parts


def _sorted(table: Table) -> list[Index]:
    return sorted(table.indexes, key=lambda index: str(index.name))


def check_columns(table: Table, there: Sequence[str], server: str) -> None:
    """Raise SchemaConflict or NotMigrated unless the table has all columns."""
    missing = [column.name for column in table.columns if column.name not in there]
    if not missing:
        return
    named = f"{server}: its table {table.name!r} has no column {', '.join(missing)}"
    if table is jobs and set(missing) <= set(LATER_COLUMNS) and set(there) >= {*BASE_COLUMNS, *BASE_TIMES}:
        raise NotMigrated(
            f"{named}, because it is an older table of DBJobQ; add them with SQLAlchemyStorage(url).upgrade(),"
            " or copy its jobs to another database with pgjobq copy"
        )
    raise SchemaConflict(f"{named}, so it is not pgjobq's table and was not changed; use another database")
