"""The command that copies jobs to another database."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from pgjobq.cli.common import DEFAULT_SCHEMA, EXIT_ERROR, app, fail, opened, refuse_given
from pgjobq.copying import BATCH, CopyReport, copy_jobs
from pgjobq.copying.schedules import ScheduleReport, copy_schedules
from pgjobq.errors import ConfigurationError, PgjobqError
from pgjobq.storage.base import BaseStorage

if TYPE_CHECKING:
    from pgjobq.copying.tables import TableSource

TOLD = 20  # refused jobs that are named; the rest are counted
LINE_EVERY = 5.0  # seconds between two lines of progress if stderr is not a terminal


@app.command()
@click.argument("src")
@click.argument("dst")
@click.option("--src-schema", default=DEFAULT_SCHEMA, help="The schema to read. Only for PostgreSQL.")
@click.option("--dst-schema", default=DEFAULT_SCHEMA, help="The schema to add to. Only for PostgreSQL.")
@click.option("--batch", default=BATCH, help="How many jobs a transaction copies.")
@click.option("--tz", default="UTC", help="The time zone of DBJobQ's workers, whose clock its schedules follow.")
def copy(*, src: str, dst: str, src_schema: str, dst_schema: str, batch: int, tz: str) -> None:
    """Copy all jobs, with their state, and all schedules from one database to another.

    SRC and DST are their URLs. You can run it again after an interrupt, or to copy new jobs.
    """
    if batch < 1:
        raise ConfigurationError(f"batch: {batch} is not allowed; use a whole number above 0")
    if (src, src_schema) == (dst, dst_schema):
        raise ConfigurationError("SRC and DST are the same; use two databases, or two schemas of one database")
    with (
        _opened_source(src, src_schema, tz) as source,
        opened(dst, dst_schema, schema_option="dst_schema") as destination,
    ):
        source.ping()
        destination.ping()
        _warn_of_workers(source)
        report = CopyReport()
        try:
            with _shown(sum(source.counts().values())) as show:
                for report in copy_jobs(source, destination, batch):  # the last report is printed below
                    show(report)
        except (PgjobqError, KeyboardInterrupt):
            fail(f"not all jobs were copied: {_told(report)}; run the command again to continue")
            raise
        click.echo(_told(report))
        schedules = copy_schedules(source, destination)
    _tell_schedules(schedules)
    _tell_refused(report)
    if schedules.refused:
        sys.exit(EXIT_ERROR)


@contextmanager
def _opened_source(src: str, schema: str, tz: str) -> Iterator[BaseStorage | TableSource]:
    """Open a storage, or a reader for a table that SQLAlchemy reaches, which creates nothing and reads older tables."""
    from pgjobq.connect import open_storage, sqlalchemy_url

    url = sqlalchemy_url(src)
    if url is not None:
        refuse_given(src_schema=schema)
        open_storage(src).close()  # checks it, and does not connect
        from pgjobq.copying.tables import TableSource

        source = TableSource(url, time_zone=tz)
        try:
            source.ping()
            if not source.is_storage:
                yield source
                return
        finally:
            source.close()
    with opened(src, schema, schema_option="src_schema") as storage:
        yield storage


def _warn_of_workers(source: BaseStorage | TableSource) -> None:
    if alive := sum(bool(worker["alive"]) for worker in source.workers()):
        fail(f"note: {alive} workers are running on SRC; stop them first, because jobs may run in both databases")


def _told(report: CopyReport) -> str:
    parts = [f"{report.added} jobs copied", f"{report.there} were already there"]
    if report.running:
        parts.append(f"{report.running} were running at SRC and are pending at DST if they have a try left")
    if report.refused:
        parts.append(f"{len(report.refused)} were refused")
    return ", ".join(parts)


def _tell_schedules(report: ScheduleReport) -> None:
    if report.added or report.there or report.refused:
        refused = f", {len(report.refused)} were refused" if report.refused else ""
        click.echo(f"{report.added} schedules copied, {report.there} were already there{refused}")
    for schedule_id, reason in report.refused.items():
        fail(f"schedule {schedule_id!r} was refused: {reason}")


def _tell_refused(report: CopyReport) -> None:
    for job_id, reason in list(report.refused.items())[:TOLD]:
        fail(f"job {job_id!r} was refused: {reason}")
    if len(report.refused) > TOLD:
        fail(f"and {len(report.refused) - TOLD} more were refused")
    if report.refused:
        sys.exit(EXIT_ERROR)


@contextmanager
def _shown(total: int) -> Iterator[Callable[[CopyReport], None]]:
    """Show progress on stderr: a bar on a terminal, otherwise a line every few seconds."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _line_by_line(total)
        return
    columns = (TextColumn("copying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("copying", total=total)
        yield lambda report: progress.update(task, completed=report.read)


def _line_by_line(total: int) -> Callable[[CopyReport], None]:
    last = time.monotonic()

    def show(report: CopyReport) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_EVERY:
            last = time.monotonic()
            fail(f"{report.read} of {total} jobs read")

    return show
