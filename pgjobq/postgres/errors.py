"""Translate database errors to pgjobq's errors, whose messages name the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import errors as pg

from pgjobq.errors import (
    DuplicateJob,
    InvalidJob,
    InvalidSchedule,
    JobsHeld,
    KeyTaken,
    LostJob,
    NotMigrated,
    PgjobqError,
    ScheduleNotFound,
    SchemaConflict,
    SchemaTooNew,
    StorageError,
    StorageUnavailable,
)
from pgjobq.postgres.refusals import refusal
from pgjobq.postgres.rights import needed_for

_MET = {"40001", "40P01"}  # serialization failure, deadlock
# Connection exceptions, insufficient resources, a cancelled statement or a server shutdown, system errors.
_AWAY = ("08", "53", "57", "58")


class NotRegistered(StorageError):
    """The worker is not registered. It never was, or other workers took it for dead."""


_BY_STATE: dict[str, type[PgjobqError]] = {
    "JQ004": SchemaTooNew,
    "JQ005": SchemaConflict,
    "JQ006": NotRegistered,
    "JQ008": KeyTaken,
    "JQ010": ScheduleNotFound,
    "JQ012": LostJob,
    "55P03": JobsHeld,  # lock_not_available
}
_MISSING = (pg.UndefinedFunction, pg.UndefinedTable, pg.UndefinedColumn, pg.InvalidSchemaName)


@contextmanager
def translated() -> Iterator[None]:
    """Raise psycopg's errors from the block as subclasses of PgjobqError, with the original error as the cause."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error) from error


def translate(error: psycopg.Error) -> PgjobqError:
    """Return the pgjobq error for an error of psycopg."""
    message = " ".join((error.diag.message_primary or str(error) or type(error).__name__).split())
    if error.diag.message_hint:
        message = f"{message}; {error.diag.message_hint[0].lower()}{error.diag.message_hint[1:]}"
    if error.sqlstate == "JQ001":
        return InvalidJob(message, field=message.split(":")[0])
    if error.sqlstate == "JQ009":
        return InvalidSchedule(message, field=message.split(":")[0])
    if error.sqlstate in _BY_STATE:
        return _BY_STATE[error.sqlstate](message)
    if isinstance(error, pg.UniqueViolation) and error.diag.constraint_name == "job_id_exists_already":
        return DuplicateJob(f"job_id: {error.diag.message_detail or 'it exists already.'} Use another id.")
    if isinstance(error, pg.CheckViolation):
        field, _, rule = (error.diag.constraint_name or message).partition("_is_")
        return InvalidJob(f"{field}: it must be {rule.replace('_', ' ')}" if rule else message, field=field)
    if isinstance(error, _MISSING):
        return NotMigrated(f"the database is not migrated for this pgjobq ({message}); run: pgjobq migrate")
    if isinstance(error, pg.InsufficientPrivilege):
        return StorageError(message if error.diag.message_hint else f"{message}; {needed_for(message)}")
    if error.sqlstate in _MET:
        return StorageUnavailable(f"another transaction was in the way: {message}; roll back and try again")
    if isinstance(error, psycopg.DataError):
        return InvalidJob(message)
    return _by_sqlstate(error, message)


def _by_sqlstate(error: psycopg.Error, message: str) -> PgjobqError:
    if error.sqlstate is None and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return StorageUnavailable(refusal(message) or f"PostgreSQL does not answer: {message}")
    if error.sqlstate is not None and error.sqlstate.startswith(_AWAY):
        return StorageUnavailable(f"PostgreSQL does not answer: {message}")
    return StorageError(message)
