"""The tables: made at first use, and checked."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Index, Table, inspect
from sqlalchemy.schema import CreateIndex, CreateTable

from pgjobq.errors import NotMigrated, SchemaConflict, StorageError
from pgjobq.storage.sqlalchemy.connection import Database
from pgjobq.storage.sqlalchemy.table import BASE_COLUMNS, BASE_TIMES, LATER_COLUMNS, jobs, workers

Part = Table | Index


def prepare(database: Database) -> None:
    """Make the tables and indexes that are missing; several processes may do so at once.

    Raises SchemaConflict for tables that are not pgjobq's, NotMigrated for an older table; nothing is changed then.
    """
    missing = missing_parts(database)
    while missing:
        try:
            database.run(lambda conn: _make(conn, database.server), writes=True)
        except StorageError:
            # Another process may have been quicker with one of them; if none was, this is the reason.
            before, missing = missing, missing_parts(database)
            if missing == before:
                raise
        else:
            return


def prepare_beside(database: Database, conn: Connection) -> None:
    """prepare, while the caller's transaction on this connection may hold SQLite's write lock: then within that."""
    if database.prepared or conn.dialect.name != "sqlite":
        database.open()
    else:
        _make(conn, database.server)


def missing_parts(database: Database) -> list[Part]:
    """The tables and indexes that are not there. Raises SchemaConflict and NotMigrated."""
    return database.run(lambda conn: _missing(conn, database.server), writes=False)


def _make(conn: Connection, server: str) -> None:
    for part in _missing(conn, server):
        conn.execute(CreateTable(part) if isinstance(part, Table) else CreateIndex(part))


def _missing(conn: Connection, server: str) -> list[Part]:
    inspector = inspect(conn)
    parts: list[Part] = []
    for table in (jobs, workers):
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
            f"{named}: it is an older one, of DBJobQ's; SQLAlchemyStorage(url).upgrade() adds them,"
            " or pgjobq copy takes its jobs to another database"
        )
    raise SchemaConflict(f"{named}: it is not pgjobq's and was left as it is; give another database")
