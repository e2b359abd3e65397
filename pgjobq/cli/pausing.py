"""Commands about pauses: pause, resume."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime

import click

from pgjobq.cli import common
from pgjobq.cli.common import EXIT_ERROR, age, app, fail, opened
from pgjobq.cli.shell import MOMENT, moment
from pgjobq.cli.text import in_a_line
from pgjobq.errors import ConfigurationError
from pgjobq.queue import JobQueue

of_type = click.option("--type", "is_type", is_flag=True, help="NAME is a type of jobs, in any queue.")


@app.command()
@click.argument("name", metavar="NAME")
@of_type
@click.option("--until", help="Resume by itself then: 2030-01-31T09:00+01:00, or after 30m, 12h, 7d.")
@click.option("--reason", help="Why; `pgjobq stats` and `pgjobq check` show it.")
@common.dsn
@common.schema
def pause(*, name: str, is_type: bool, until: str | None, reason: str | None, dsn: str, schema: str) -> None:
    """Start no more jobs of a queue, until it is resumed.

    Jobs that run go on, and jobs can still be enqueued.
    """
    with opened(dsn, schema) as storage:
        queue = JobQueue(storage)
        act = queue.pause_type if is_type else queue.pause_queue
        act(name, until=_end(until), reason=reason)
    click.echo(in_a_line(name))


@app.command()
@click.argument("name", metavar="NAME")
@of_type
@common.dsn
@common.schema
def resume(*, name: str, is_type: bool, dsn: str, schema: str) -> None:
    """Start jobs of a queue again."""
    with opened(dsn, schema) as storage:
        queue = JobQueue(storage)
        was_paused = (queue.resume_type if is_type else queue.resume_queue)(name)
    if not was_paused:
        fail(f"{'type' if is_type else 'queue'} {name!r} was not paused")
        sys.exit(EXIT_ERROR)
    click.echo(in_a_line(name))


def _end(text: str | None) -> datetime | None:
    if text is None:
        return None
    if re.match(r"\d{4}-?\d\d", text):
        return moment("--until", text)
    try:
        return datetime.now(UTC) + age("--until", text)
    except ConfigurationError:
        raise ConfigurationError(
            f"--until: {text!r} is not a time; use {MOMENT}, or a duration such as 30m, 12h or 7d"
        ) from None
