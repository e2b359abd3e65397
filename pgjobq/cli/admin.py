"""Commands about the database: migrate, stats, check, prune."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from pgjobq.cli.common import EXIT_ERROR, Dsn, Json, Schema, app, opened, postgres_conninfo, print_json, print_table
from pgjobq.errors import ConfigurationError


@app.command()
def migrate(
    *,
    print_: Annotated[bool, typer.Option("--print", help="Print the SQL, and do nothing.")] = False,
    public_function: Annotated[bool, typer.Option(help="Put a thin enqueue_job into the schema public.")] = True,
    dsn: Dsn = "",
    schema: Schema = "pgjobq",
) -> None:
    """Install pgjobq in a PostgreSQL database, or bring it up to date. Safe to run at every deploy."""
    from pgjobq.postgres import schema as installed

    if print_:
        typer.echo(installed.migration_sql(schema, public_function=public_function), nl=False)
        return
    conninfo = postgres_conninfo(
        dsn, "migrate: is for PostgreSQL; other storages make what they need at their first use"
    )
    report = installed.migrate(conninfo, schema=schema, public_function=public_function)
    for notice in report.notices:
        typer.echo(f"note: {notice}", err=True)
    before = "installed" if report.before is None else "up to date" if report.before == report.after else "upgraded"
    typer.echo(f"schema {report.schema} is {before}, at version {report.after}")


@app.command()
def stats(*, as_json: Json = False, dsn: Dsn = "", schema: Schema = "pgjobq") -> None:
    """Jobs by queue and status, and the workers. Cheap, also on a large table."""
    with opened(dsn, schema) as storage:
        jobs, workers = storage.stats(), storage.workers()
    if as_json:
        print_json({"jobs": jobs, "workers": workers})
        return
    rows = [
        [
            "(all)" if row["queue"] is None else row["queue"],
            row["status"],
            f"{'about ' if row['estimated'] else ''}{row['jobs']}",
            None if row["oldest_due_age"] is None else f"{row['oldest_due_age']:.1f} s",
        ]
        for row in sorted(jobs, key=lambda row: (row["queue"] or "", row["status"]))
    ]
    print_table(("queue", "status", "jobs", "oldest due"), rows)
    typer.echo()
    columns = ("id", "name", "queues", "started_at", "alive", "asleep", "running")
    shown = [[("all" if v is None else ",".join(v)) if k == "queues" else v for k, v in w.items()] for w in workers]
    print_table(columns, shown, title="Workers")


@app.command()
def check(*, as_json: Json = False, dsn: Dsn = "", schema: Schema = "pgjobq") -> None:
    """Look for what would keep jobs from running in PostgreSQL; exit status 1 when something would, with its mend."""
    from dataclasses import asdict

    from pgjobq.postgres.doctor import examine

    findings = examine(
        postgres_conninfo(dsn, "check: is for PostgreSQL; elsewhere `pgjobq stats` tells how it goes"), schema
    )
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            typer.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name}: {finding.detail}")
            if not finding.ok:
                typer.echo(f"      {finding.mend}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(EXIT_ERROR)


@app.command()
def prune(
    *,
    days: Annotated[float, typer.Option(help="Finished longer ago than so many days.")] = 7,
    failed: Annotated[bool, typer.Option("--failed", help="Failed jobs too.")] = False,
    dsn: Dsn = "",
    schema: Schema = "pgjobq",
) -> None:
    """Delete completed and cancelled jobs past their age, in small batches."""
    try:
        age = timedelta(days=days)
    except (ValueError, OverflowError):
        raise ConfigurationError(f"days: {days} is not allowed; give a number of days from 0") from None
    with opened(dsn, schema) as storage:
        pruned = storage.prune(age, ["completed", "cancelled", *["failed"] * failed])
    typer.echo(f"{pruned} jobs deleted")
