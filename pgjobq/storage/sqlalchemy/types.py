"""Column types that behave the same in every database: exact keys, long texts, times in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Dialect, String, Text, TypeDecorator
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import DDLCompiler, SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

MYSQL = ("mysql", "mariadb")  # names of dialects


def binary_collation(dialect: Dialect) -> str:
    """Return MySQL's binary collation, if possible one that also compares trailing spaces."""
    server: Any = dialect
    if server.is_mariadb:
        return "utf8mb4_nopad_bin"
    return "utf8mb4_0900_bin" if (server.server_version_info or (8, 4)) >= (8, 0, 17) else "utf8mb4_bin"


class Key(TypeDecorator[str]):
    """A text that is compared exactly, including case."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return VARCHAR with the database's binary collation."""
        length: int = vars(self.impl_instance)["length"]
        if dialect.name in MYSQL:
            return mysql.VARCHAR(length, charset="utf8mb4", collation=binary_collation(dialect))
        if dialect.name == "postgresql":
            return postgresql.VARCHAR(length, collation="C")
        return String(length)


class LongText(TypeDecorator[str]):
    """A text of any length. MySQL's TEXT is limited to 64 kB."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return LONGTEXT for MySQL, TEXT for other databases."""
        if dialect.name in MYSQL:
            return mysql.LONGTEXT(charset="utf8mb4", collation=binary_collation(dialect))
        return Text()


class Moment(TypeDecorator[datetime]):
    """A time to the microsecond, stored in UTC.

    Results are aware, in UTC. A naive datetime in a user's query is taken as local time, which is what datetime.now()
    returns.
    """

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return TIMESTAMP WITH TIME ZONE for PostgreSQL, DATETIME(6) for MySQL, else a type for naive datetimes."""
        if dialect.name in MYSQL:
            return mysql.DATETIME(fsp=6)
        return DateTime(timezone=dialect.name == "postgresql")

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC, in the form that the database expects."""
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value if dialect.name == "postgresql" else value.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to an aware datetime in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class utc_now(FunctionElement[datetime]):  # noqa: N801  # a SQL function
    """The database's time in UTC, the default for columns that a manual INSERT leaves out."""

    type = Moment()
    inherit_cache = True


@compiles(utc_now)
def _standard(_element: utc_now, _compiler: SQLCompiler | DDLCompiler, **_options: Any) -> str:
    return "CURRENT_TIMESTAMP"


@compiles(utc_now, "mysql")
@compiles(utc_now, "mariadb")
def _mysql(_element: utc_now, _compiler: SQLCompiler | DDLCompiler, **_options: Any) -> str:
    return "(utc_timestamp(6))"
