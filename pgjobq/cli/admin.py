"""Commands about the database: migrate, stats, check, repair, prune."""

from __future__ import annotations

import sys
from datetime import timedelta

import click

from pgjobq.cli import common
from pgjobq.cli.common import EXIT_ERROR, app, opened, postgres_conninfo, print_json, print_table
from pgjobq.cli.text import in_lines
from pgjobq.errors import ConfigurationError


@app.command()
@click.option("--print", "print_", is_flag=True, help="Print the SQL, and do nothing.")
@click.option(
    "--public-function/--no-public-function", default=True, help="Put a thin enqueue_job into the schema public."
)
@common.dsn
@common.schema
def migrate(*, print_: bool, public_function: bool, dsn: str, schema: str) -> None:
    """Install pgjobq in a PostgreSQL database, or bring it up to date. Safe to run at every deploy."""
    from pgjobq.postgres import schema as installed

    if print_:
        click.echo(installed.migration_sql(schema, public_function=public_function), nl=False)
        return
    conninfo = postgres_conninfo(
        dsn, "migrate: is for PostgreSQL; other storages make what they need at their first use"
    )
    report = installed.migrate(conninfo, schema=schema, public_function=public_function)
    for notice in report.notices:
        click.echo(in_lines(f"note: {notice}"), err=True)
    before = "installed" if report.before is None else "up to date" if report.before == report.after else "upgraded"
    click.echo(f"schema {report.schema} is {before}, at version {report.after}")


@app.command()
@common.as_json
@common.dsn
@common.schema
def stats(*, as_json: bool, dsn: str, schema: str) -> None:
    """Jobs by queue and status, and the workers. Cheap, also on a large table."""
    with opened(dsn, schema) as storage:
        jobs, workers, unserved = storage.stats(), storage.workers(), storage.unserved_types()
        pauses = storage.pauses()
    if as_json:
        print_json({"jobs": jobs, "workers": workers, "unserved_types": unserved, "pauses": pauses})
        return
    paused = {row["name"] for row in pauses if row["kind"] == "queue"}
    rows = [
        [
            "(all)" if row["queue"] is None else f"{row['queue']}{' (paused)' * (row['queue'] in paused)}",
            row["status"],
            f"{'about ' if row['estimated'] else ''}{row['jobs']}",
            None if row["oldest_due_age"] is None else f"{row['oldest_due_age']:.1f} s",
        ]
        for row in sorted(jobs, key=lambda row: (row["queue"] or "", row["status"]))
    ]
    print_table(("queue", "status", "jobs", "oldest due"), rows)
    click.echo()
    columns = ("id", "name", "queues", "started_at", "alive", "asleep", "running")
    shown = [[("all" if v is None else ",".join(v)) if k == "queues" else v for k, v in w.items()] for w in workers]
    print_table(columns, shown, title="Workers")
    if pauses:
        click.echo()
        told = ("kind", "name", "paused_at", "paused_until", "paused_by", "reason")
        print_table(told, [[row[key] for key in told] for row in pauses], title="Paused")
    if unserved:
        click.echo()
        keys = ("queue", "type", "jobs")
        print_table(keys, [[row[key] for key in keys] for row in unserved], title="Due, and no worker takes the type")


@app.command()
@common.as_json
@common.dsn
@common.schema
def check(*, as_json: bool, dsn: str, schema: str) -> None:
    """Look for what would keep jobs from running in PostgreSQL; exit status 1 when something would, with its remedy."""
    from dataclasses import asdict

    from pgjobq.postgres.doctor import examine

    findings = examine(
        postgres_conninfo(dsn, "check: is for PostgreSQL; elsewhere `pgjobq stats` tells how it goes"), schema
    )
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            click.echo(in_lines(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name}: {finding.detail}"))
            if not finding.ok:
                click.echo(in_lines(f"      {finding.remedy}"))
    if not all(finding.ok for finding in findings):
        sys.exit(EXIT_ERROR)


@app.command()
@common.as_json
@common.dsn
@common.schema
def repair(*, as_json: bool, dsn: str, schema: str) -> None:
    """Give jobs that no worker finds their places in line, such as those of a restore without triggers."""
    from dataclasses import asdict

    from pgjobq.storage.postgres_storage import PostgresStorage

    conninfo = postgres_conninfo(dsn, "repair: is for PostgreSQL; other storages find every pending job as it is")
    storage = PostgresStorage(conninfo, schema=schema, application_name="pgjobq repair")
    try:
        repaired = storage.repair()
    finally:
        storage.close()
    if as_json:
        print_json(asdict(repaired))
        return
    click.echo(f"{repaired.placed} pending jobs placed in line")
    click.echo(f"{repaired.given_back} running jobs that no claim held given back, {repaired.failed} failed")
    if repaired.held:
        click.echo(f"{repaired.held} left, because other transactions hold them: run it again")


@app.command()
@click.option("--days", type=float, default=7, help="Finished longer ago than so many days.")
@click.option("--failed", is_flag=True, help="Failed jobs too.")
@common.dsn
@common.schema
def prune(*, days: float, failed: bool, dsn: str, schema: str) -> None:
    """Delete completed and cancelled jobs past their age, in small batches."""
    try:
        age = timedelta(days=days)
    except (ValueError, OverflowError):
        raise ConfigurationError(f"days: {days} is not allowed; give a number of days from 0") from None
    with opened(dsn, schema) as storage:
        pruned = storage.prune(age, ["completed", "cancelled", *["failed"] * failed])
    click.echo(f"{pruned} jobs deleted")
