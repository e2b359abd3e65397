"""What the commands share: options, output, exit statuses."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, NoReturn

import click

from pgjobq.cli.text import in_a_line, in_json, in_lines
from pgjobq.errors import ConfigurationError
from pgjobq.storage.base import BaseStorage

EXIT_ERROR, EXIT_USAGE, EXIT_NOT_FOUND, EXIT_INTERRUPTED = 1, 2, 3, 130
DEFAULT_SCHEMA = "pgjobq"
CLOSE_TIME = 1.0  # seconds


@click.group(context_settings={"show_default": True, "max_content_width": 120})
def app() -> None:
    """A job queue whose engine is SQL in PostgreSQL; it runs on other databases too."""


dsn = click.option(
    "--dsn",
    envvar="PGJOBQ_DSN",
    show_envvar=True,
    default="",
    show_default=False,
    help="The database's URL; without it, libpq's own variables (PGHOST ...).",
)
schema = click.option(
    "--schema",
    envvar="PGJOBQ_SCHEMA",
    show_envvar=True,
    default=DEFAULT_SCHEMA,
    help="The schema that pgjobq is installed in, in PostgreSQL.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def fail(message: str) -> None:
    """An error, on the standard error stream."""
    click.echo(f"pgjobq: {in_lines(message)}", err=True)


def refuse(message: str) -> NoReturn:
    """Wrong usage: say so, and exit."""
    fail(message)
    sys.exit(EXIT_USAGE)


@contextmanager
def opened(
    dsn: str, schema: str, program: str = "pgjobq", *, schema_option: str = "schema", **postgres_options: Any
) -> Iterator[BaseStorage]:
    """A storage, closed at the end. The options are PostgreSQL's alone: given for another storage, they are refused.

    program: what PostgreSQL shows as the name of the application. schema_option: the option that gave the schema.
    """
    from pgjobq.connect import is_postgres, open_storage

    if is_postgres(dsn):
        storage = open_storage(dsn, schema=schema, application_name=program, **postgres_options)
    else:
        refuse_given(**{schema_option: schema}, **postgres_options)
        check_stays(dsn)
        storage = open_storage(dsn)
    try:
        yield storage
    finally:
        close_soon(storage)


def close_soon(storage: BaseStorage) -> None:
    """Close it, or leave it open after a second: the process ends, and must not wait for a network that is cut."""
    closing = threading.Thread(target=storage.close, daemon=True)
    closing.start()
    closing.join(CLOSE_TIME)


def check_stays(dsn: str) -> None:
    """Raise ConfigurationError for a database that no other process sees."""
    if re.match(r"sqlite(\+\w+)?:(//|///|///:memory:)(\?|$)", dsn):
        raise ConfigurationError("dsn: a database in memory ends with this command; name a file: sqlite:///jobs.db")


def refuse_given(**options: Any) -> None:
    """Refuse PostgreSQL's options, where they have other values than their defaults.

    A schema that the environment names may be meant for other commands.
    """
    for name, value in options.items():
        if value and value not in (DEFAULT_SCHEMA, os.environ.get("PGJOBQ_SCHEMA")):
            refuse(f"--{name.replace('_', '-')}: this option is for PostgreSQL; leave it out for another database")


def postgres_conninfo(dsn: str, refusal: str) -> str:
    """The DSN as libpq takes it, for commands that are PostgreSQL's alone; another database is refused, with reason."""
    from pgjobq.connect import is_postgres, open_storage

    if not is_postgres(dsn):
        refuse(refusal)
    open_storage(dsn).close()  # checks it, and does not connect
    return re.sub(r"^postgres(ql)?\+\w+://", "postgresql://", dsn)  # SQLAlchemy's way of naming a driver


def age(name: str, text: str) -> timedelta:
    """A time such as 7d, 12h, 30m, 90s or 0. Raises ConfigurationError, naming the option, for what is none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])|0", text)
    if found is None:
        raise ConfigurationError(f"{name}: {text!r} is no time; give 7d, 12h, 30m, 90s or 0")
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
    try:
        return timedelta(**{units[found[2]]: float(found[1])}) if found[2] else timedelta(0)
    except OverflowError:
        raise ConfigurationError(f"{name}: {text!r} is longer than any job is kept; leave it out") from None


def print_json(value: Any) -> None:
    """A value as JSON; times in ISO form."""
    click.echo(in_json(value, indent=2))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str | None = None) -> None:
    """A table for people; columns of numbers to the right. Cells are text: no markup, no names of pictures."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(columns):
        numbers = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        table.add_column(name, justify="right" if numbers else "left", overflow="fold", no_wrap=name == "id")
    for row in rows:
        table.add_row(*(Text("" if cell is None else _cell(cell)) for cell in row))
    # In a pipe each row is one line, whatever its width: for grep, awk and the like.
    Console(width=None if sys.stdout.isatty() else 10_000).print(table)


def _cell(value: Any) -> str:
    return f"{value:%Y-%m-%d %H:%M:%S}" if isinstance(value, datetime) else in_a_line(str(value))
