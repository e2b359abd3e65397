"""What the commands share: options, output, exit statuses."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgjobq.errors import ConfigurationError

if TYPE_CHECKING:
    from pgjobq.storage.postgres_storage import PostgresStorage

EXIT_ERROR, EXIT_USAGE, EXIT_NOT_FOUND = 1, 2, 3

app = typer.Typer(
    name="pgjobq",
    help="A job queue whose engine is SQL in PostgreSQL.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Dsn = Annotated[
    str,
    typer.Option(
        "--dsn", envvar="PGJOBQ_DSN", help="The database's URL; without it, libpq's own variables (PGHOST ...)."
    ),
]
Schema = Annotated[
    str, typer.Option("--schema", envvar="PGJOBQ_SCHEMA", help="The schema that pgjobq is installed in.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def fail(message: str) -> None:
    """An error, on the standard error stream."""
    typer.echo(f"pgjobq: {message}", err=True)


@contextmanager
def opened(dsn: str, schema: str, **options: Any) -> Iterator[PostgresStorage]:
    """A storage, closed at the end."""
    from pgjobq.connect import open_storage
    from pgjobq.storage.postgres_storage import PostgresStorage

    storage = open_storage(dsn, schema=schema, **options)
    if not isinstance(storage, PostgresStorage):
        raise ConfigurationError("dsn: this command needs PostgreSQL")
    try:
        yield storage
    finally:
        storage.close()


def conninfo(dsn: str) -> str:
    """The DSN as libpq takes it, for commands that open no storage. Raises ConfigurationError for what is none."""
    from pgjobq.connect import open_storage

    open_storage(dsn).close()  # checks it, and does not connect
    return re.sub(r"^postgres(ql)?\+\w+://", "postgresql://", dsn)  # SQLAlchemy's way of naming a driver


def print_json(value: Any) -> None:
    """A value as JSON; times in ISO form."""

    def encode(other: Any) -> str:
        return other.isoformat() if isinstance(other, datetime) else str(other)

    typer.echo(json.dumps(value, indent=2, default=encode, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str | None = None) -> None:
    """A table for people; columns of numbers to the right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(columns):
        numbers = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        table.add_column(name, justify="right" if numbers else "left", overflow="fold", no_wrap=name == "id")
    for row in rows:
        table.add_row(*("" if cell is None else _cell(cell) for cell in row))
    # In a pipe each row is one line, whatever its width: for grep, awk and the like.
    Console(width=None if sys.stdout.isatty() else 10_000).print(table, markup=False)


def _cell(value: Any) -> str:
    return f"{value:%Y-%m-%d %H:%M:%S}" if isinstance(value, datetime) else str(value)
