"""Options, output and exit statuses that the commands share."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, NoReturn

import click

from pgjobq import __version__
from pgjobq.cli.text import in_a_line, in_json, in_lines
from pgjobq.errors import ConfigurationError, InvalidJob, JobNotFound, PgjobqError
from pgjobq.storage.base import BaseStorage

EXIT_ERROR, EXIT_USAGE, EXIT_NOT_FOUND, EXIT_INTERRUPTED = 1, 2, 3, 130
EXIT_TIMEOUT, EXIT_NOT_COMPLETED = 4, 5  # of `pgjobq wait`
DEFAULT_SCHEMA = "pgjobq"
CLOSE_TIME = 1.0  # seconds


@click.group(context_settings={"show_default": True, "max_content_width": 120})
@click.version_option(__version__, prog_name="pgjobq", message="%(prog)s %(version)s")
def app() -> None:
    """A job queue whose engine is SQL in PostgreSQL. It also runs on other databases."""


dsn = click.option(
    "--dsn",
    envvar="PGJOBQ_DSN",
    show_envvar=True,
    default="",
    show_default=False,
    help="The database's URL or conninfo. By default, libpq's environment variables (PGHOST ...) apply.",
)
schema = click.option(
    "--schema",
    envvar="PGJOBQ_SCHEMA",
    show_envvar=True,
    default=DEFAULT_SCHEMA,
    help="The schema that pgjobq is installed in. Only for PostgreSQL.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def fail(message: str) -> None:
    """Print an error to stderr."""
    click.echo(f"pgjobq: {in_lines(message)}", err=True)


def refuse(message: str) -> NoReturn:
    """Print an error, and exit with the status for wrong usage."""
    fail(message)
    sys.exit(EXIT_USAGE)


@contextmanager
def opened(
    dsn: str, schema: str, program: str = "pgjobq", *, schema_option: str = "schema", **postgres_options: Any
) -> Iterator[BaseStorage]:
    """Open a storage, and close it at the end. Options for PostgreSQL are refused with another storage.

    program: the application_name that PostgreSQL shows. schema_option: the name of the option that set the schema.
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
    """Close the storage, but wait at most a second, because the process ends and the network may be down."""
    closing = threading.Thread(target=storage.close, daemon=True)
    closing.start()
    closing.join(CLOSE_TIME)


def check_stays(dsn: str) -> None:
    """Raise ConfigurationError for a database in memory, which no other process can see."""
    if re.match(r"sqlite(\+\w+)?:(//|///|///:memory:)(\?|$)", dsn):
        raise ConfigurationError("dsn: a database in memory ends with this command; use a file: sqlite:///jobs.db")


def refuse_given(**options: Any) -> None:
    """Refuse options for PostgreSQL whose values are not their defaults.

    A schema from the environment is accepted, because it may be meant for other commands.
    """
    for name, value in options.items():
        if value and value not in (DEFAULT_SCHEMA, os.environ.get("PGJOBQ_SCHEMA")):
            refuse(f"--{name.replace('_', '-')}: this option is only for PostgreSQL; leave it out for other databases")


def postgres_conninfo(dsn: str, refusal: str) -> str:
    """Return the DSN as libpq expects it. For another database, print the refusal and exit."""
    from pgjobq.connect import is_postgres, open_storage

    if not is_postgres(dsn):
        refuse(refusal)
    open_storage(dsn).close()  # checks it, and does not connect
    return re.sub(r"^postgres(ql)?\+\w+://", "postgresql://", dsn)  # SQLAlchemy names a driver in the scheme


def age(name: str, text: str) -> timedelta:
    """Parse a time such as 7d, 12h, 30m, 90s or 0. Raises ConfigurationError with the name of the option."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])|0", text)
    if found is None:
        raise ConfigurationError(f"{name}: {text!r} is not a time; use 7d, 12h, 30m, 90s or 0")
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
    try:
        return timedelta(**{units[found[2]]: float(found[1])}) if found[2] else timedelta(0)
    except OverflowError:
        raise ConfigurationError(f"{name}: {text!r} is too long; leave it out to keep all jobs") from None


def each(ids: tuple[str, ...], act: Any) -> None:
    """Call act for each id and report the errors. If there are any, exit with the highest status at the end."""
    status = 0
    for job_id in ids:
        try:
            act(job_id)
        except JobNotFound as error:
            fail(str(error))
            status = max(status, EXIT_NOT_FOUND)
        except PgjobqError as error:
            if isinstance(error, InvalidJob):
                raise  # wrong for every id
            fail(str(error))
            status = max(status, EXIT_ERROR)
        else:
            click.echo(in_a_line(job_id))
    if status:
        sys.exit(status)


def ask(question: str) -> None:
    """Ask for a confirmation. Without a terminal, refuse: --yes is needed."""
    if not sys.stdin.isatty():
        refuse("--yes: use this option if there is no terminal on which to confirm")
    click.confirm(question, abort=True)


def print_json(value: Any) -> None:
    """Print a value as JSON, with times in ISO format."""
    click.echo(in_json(value, indent=2))


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    title: str | None = None,
    *,
    narrow: Callable[[Sequence[str]], list[str]] | None = None,
) -> None:
    """Print a table. Columns of numbers are right-aligned. rich does not interpret markup or emoji names in cells.

    narrow: if the terminal is too narrow for the table, prints each row as the lines that this returns for it.
    """
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(columns):
        numbers = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        widest = max((len(_cell(row[index])) for row in rows), default=0) if name == "id" else None
        # Whatever does not fit is cut with an ellipsis, except the id.
        table.add_column(name, justify="right" if numbers else "left", no_wrap=True, min_width=widest)
    for row in rows:
        table.add_row(*(Text(_cell(cell)) for cell in row))
    # In a pipe each row is one line of any width, which suits grep and awk.
    console = Console(width=None if sys.stdout.isatty() else 10_000)
    if narrow is None or Measurement.get(console, console.options.update(width=10_000), table).maximum <= console.width:
        console.print(table)
        return
    for row in rows:
        for line in narrow([_cell(cell) for cell in row]):
            console.print(Text(line), no_wrap=True, overflow="ellipsis")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:%Y-%m-%d %H:%M:%S}" if isinstance(value, datetime) else in_a_line(str(value))
