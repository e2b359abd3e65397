"""Column types that mean the same in every database: exact keys, long texts, moments in UTC."""

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
    """MySQL's collation that tells every two texts apart, also by a space at the end where the server can."""
    server: Any = dialect
    if server.is_mariadb:
        return "utf8mb4_nopad_bin"
    return "utf8mb4_0900_bin" if (server.server_version_info or (8, 4)) >= (8, 0, 17) else "utf8mb4_bin"


class Key(TypeDecorator[str]):
    """A text compared by its characters alone, case and all."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """VARCHAR with the database's binary collation."""
        length: int = vars(self.impl_instance)["length"]
        if dialect.name in MYSQL:
            return mysql.VARCHAR(length, charset="utf8mb4", collation=binary_collation(dialect))
        if dialect.name == "postgresql":
            return postgresql.VARCHAR(length, collation="C")
        return String(length)


class LongText(TypeDecorator[str]):
    """A text of any length: MySQL's TEXT ends at 64 kB."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """LONGTEXT in MySQL, TEXT elsewhere."""
        if dialect.name in MYSQL:
            return mysql.LONGTEXT(charset="utf8mb4", collation=binary_collation(dialect))
        return Text()


class Moment(TypeDecorator[datetime]):
    """A moment, to the microsecond, kept in UTC.

    Results are aware, in UTC. A naive datetime in a query of one's own is taken as local time, which is what
    datetime.now() gives.
    """

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """TIMESTAMP WITH TIME ZONE in PostgreSQL, DATETIME(6) in MySQL, elsewhere what holds a naive datetime."""
        if dialect.name in MYSQL:
            return mysql.DATETIME(fsp=6)
        return DateTime(timezone=dialect.name == "postgresql")

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """In UTC, as the database takes it."""
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value if dialect.name == "postgresql" else value.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Aware, in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class utc_now(FunctionElement[datetime]):  # noqa: N801  # a SQL function
    """The database's time, in UTC: the default of a column that a row inserted by hand leaves out."""

    type = Moment()
    inherit_cache = True


@compiles(utc_now)
def _standard(_element: utc_now, _compiler: SQLCompiler | DDLCompiler, **_options: Any) -> str:
    return "CURRENT_TIMESTAMP"


@compiles(utc_now, "mysql")
@compiles(utc_now, "mariadb")
def _mysql(_element: utc_now, _compiler: SQLCompiler | DDLCompiler, **_options: Any) -> str:
    return "(utc_timestamp(6))"
