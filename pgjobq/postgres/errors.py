"""What the database said, as an error of pgjobq's that names the mend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import errors as pg

from pgjobq.errors import (
    DuplicateJob,
    InvalidJob,
    NotMigrated,
    PgjobqError,
    SchemaConflict,
    SchemaTooNew,
    StorageError,
    StorageUnavailable,
)
from pgjobq.postgres.refusals import refusal
from pgjobq.postgres.rights import needed_for

_MISSING = (pg.UndefinedFunction, pg.UndefinedTable, pg.UndefinedColumn, pg.InvalidSchemaName)


@contextmanager
def translated() -> Iterator[None]:
    """Raise errors of psycopg inside as children of PgjobqError, the original as their cause."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error) from error


def translate(error: psycopg.Error) -> PgjobqError:
    """The pgjobq error for one of psycopg's."""
    message = " ".join((error.diag.message_primary or str(error) or type(error).__name__).split())
    if error.diag.message_hint:
        message = f"{message}; {error.diag.message_hint[0].lower()}{error.diag.message_hint[1:]}"
    match error.sqlstate:
        case "JQ001":
            return InvalidJob(message, field=message.split(":")[0])
        case "JQ004":
            return SchemaTooNew(message)
        case "JQ005":
            return SchemaConflict(message)
    if isinstance(error, pg.UniqueViolation) and error.diag.constraint_name == "job_id_exists_already":
        return DuplicateJob(f"job_id: {error.diag.message_detail or 'it exists already'} Give another id.")
    if isinstance(error, pg.CheckViolation):
        constraint = (error.diag.constraint_name or message).replace("_", " ")
        return InvalidJob(f"{constraint}: this job is not", field=constraint.split(" is ")[0].replace(" ", "_"))
    if isinstance(error, _MISSING):
        return NotMigrated(f"the database is not migrated for this pgjobq ({message}); run: pgjobq migrate")
    if isinstance(error, pg.InsufficientPrivilege):
        return StorageError(message if error.diag.message_hint else f"{message}; {needed_for(message)}")
    if isinstance(error, psycopg.DataError):
        return InvalidJob(message)
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        refused = refusal(message) if error.sqlstate is None else None
        return StorageUnavailable(refused or f"PostgreSQL does not answer: {message}")
    return StorageError(message)
