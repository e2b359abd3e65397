"""Commands that manage the database: migrate, stats, check, repair, prune."""

from __future__ import annotations

import sys
from datetime import timedelta

import click

from pgjobq.cli import common
from pgjobq.cli.common import EXIT_ERROR, app, opened, postgres_conninfo, print_json, print_table
from pgjobq.cli.text import in_lines
from pgjobq.errors import ConfigurationError


@app.command()
@click.option("--print", "print_", is_flag=True, help="Print the SQL, and change nothing.")
@click.option(
    "--public-function/--no-public-function", default=True, help="Create a thin enqueue_job in the schema public."
)
@common.dsn
@common.schema
def migrate(*, print_: bool, public_function: bool, dsn: str, schema: str) -> None:
    """Install pgjobq in a PostgreSQL database, or upgrade it. Safe to run at every deployment."""
    from pgjobq.postgres import schema as installed

    if print_:
        click.echo(installed.migration_sql(schema, public_function=public_function), nl=False)
        return
    conninfo = postgres_conninfo(
        dsn, "migrate: only for PostgreSQL; other storages create their tables at their first use"
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
    """Show the jobs by queue and status, and the workers. Cheap, even on a large table."""
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
        print_table(keys, [[row[key] for key in keys] for row in unserved], title="Due, but no worker takes it")


@app.command()
@common.as_json
@common.dsn
@common.schema
def check(*, as_json: bool, dsn: str, schema: str) -> None:
    """List the problems that keep jobs from running in PostgreSQL, with remedies. Exit status 1 if there are any."""
    from dataclasses import asdict

    from pgjobq.postgres.doctor import examine

    findings = examine(
        postgres_conninfo(dsn, "check: only for PostgreSQL; use `pgjobq stats` for other databases"), schema
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
    """Give places in line to jobs that no worker finds, for example after a restore without triggers."""
    from dataclasses import asdict

    from pgjobq.storage.postgres_storage import PostgresStorage

    conninfo = postgres_conninfo(dsn, "repair: only for PostgreSQL; other storages need no repair")
    storage = PostgresStorage(conninfo, schema=schema, application_name="pgjobq repair")
    try:
        repaired = storage.repair()
    finally:
        storage.close()
    if as_json:
        print_json(asdict(repaired))
        return
    click.echo(f"{repaired.placed} pending jobs placed in line")
    click.echo(f"{repaired.given_back} running jobs that no claim holds released, {repaired.failed} failed")
    if repaired.held:
        click.echo(f"{repaired.held} skipped, because other transactions hold them; run repair again")


@app.command()
@click.option("--days", type=float, default=7, help="Delete jobs that finished more than this many days ago.")
@click.option("--failed", is_flag=True, help="Delete failed jobs too.")
@common.dsn
@common.schema
def prune(*, days: float, failed: bool, dsn: str, schema: str) -> None:
    """Delete old completed and cancelled jobs, in small batches."""
    try:
        age = timedelta(days=days)
    except (ValueError, OverflowError):
        age = timedelta(-1)
    if age < timedelta(0):
        raise ConfigurationError(f"--days: {days} is not allowed; use a number of days, 0 or more")
    with opened(dsn, schema) as storage:
        pruned = storage.prune(age, ["completed", "cancelled", *["failed"] * failed])
    click.echo(f"{pruned} jobs deleted")
