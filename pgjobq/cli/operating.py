"""Commands that look back and change many jobs: retry, edit, failures, actions, logs."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import Any

import click

from pgjobq.arrival import FINISHED
from pgjobq.cli import common
from pgjobq.cli.common import EXIT_NOT_FOUND, age, app, ask, each, fail, opened, print_json, print_table, refuse
from pgjobq.cli.shell import data_of, moment
from pgjobq.cli.text import in_a_line, in_lines
from pgjobq.queue import JobQueue

FOLLOW_EVERY = 0.5  # seconds
_FILTERS = ("--queue", "--type", "--fingerprint", "--failed-since", "--failed-until")


@app.command()
@click.argument("ids", metavar="[ID...]", nargs=-1)
@click.option("--delay", type=float, default=0, help="Run them this many seconds from now. Only with ids.")
@click.option("--failed", is_flag=True, help="All failed jobs that match the options below, in place of ids.")
@click.option("--queue", help="Only of this queue.")
@click.option("--type", "job_type", help="Only of this type.")
@click.option("--fingerprint", help="Only with this fingerprint; `pgjobq failures` shows it.")
@click.option("--failed-since", help="Only those that failed at this time or later: 2030-01-31T09:00+01:00.")
@click.option("--failed-until", help="Only those that failed before this time.")
@click.option("--max", "max_jobs", type=int, help="The largest number of jobs, the oldest first.")
@click.option("--spread", help="Have them due evenly over this time: 1h, 30m.")
@click.option("--starting-at", help="When the spread begins; by default now.")
@click.option("--data-patch", help="A JSON object whose keys replace those of each job's data.")
@click.option("--dry-run", is_flag=True, help="Only count the jobs.")
@click.option("--reason", help="Why; `pgjobq actions` shows it.")
@click.option("--yes", is_flag=True, help="Do not ask whether to retry them all.")
@common.dsn
@common.schema
def retry(
    *,
    ids: tuple[str, ...],
    delay: float,
    failed: bool,
    queue: str | None,
    job_type: str | None,
    fingerprint: str | None,
    failed_since: str | None,
    failed_until: str | None,
    max_jobs: int | None,
    spread: str | None,
    starting_at: str | None,
    data_patch: str | None,
    dry_run: bool,
    reason: str | None,
    yes: bool,
    dsn: str,
    schema: str,
) -> None:
    """Give failed or cancelled jobs another try: those with these ids, or with --failed all that match the options."""
    filters = dict(zip(_FILTERS, (queue, job_type, fingerprint, failed_since, failed_until), strict=True))
    given = [f"{name} {value}" for name, value in filters.items() if value is not None]
    others = {"--max": max_jobs, "--spread": spread, "--starting-at": starting_at, "--data-patch": data_patch}
    others |= {"--dry-run": dry_run or None, "--reason": reason}
    if bool(ids) == failed:
        refuse("use the ids of jobs, or else --failed")
    if ids:
        for name, value in {**filters, **others}.items():
            if value is not None:
                refuse(f"{name}: this option goes with --failed; leave it out")
        with opened(dsn, schema) as storage:
            each(ids, lambda job_id: storage.retry(job_id, delay))
        return
    if delay:
        refuse("--delay: this option goes with ids; use --starting-at")
    # Without a filter: all that have failed until now.
    until = moment("--failed-until", failed_until) if given else datetime.now(UTC)
    options: dict[str, Any] = {
        "queue": queue,
        "type": job_type,
        "fingerprint": fingerprint,
        "failed_since": moment("--failed-since", failed_since),
        "failed_until": until,
        "max_jobs": max_jobs,
        "spread": 0.0 if spread is None else age("--spread", spread).total_seconds(),
        "starting_at": moment("--starting-at", starting_at),
        "data_patch": None if data_patch is None else data_of(data_patch, "--data-patch"),
        "reason": reason,
    }
    with opened(dsn, schema) as storage:
        if dry_run:
            click.echo(f"{JobQueue(storage).retry_jobs(**options, dry_run=True)} jobs match")
            return
        if not yes:
            ask(f"Retry all failed jobs{' with ' * bool(given)}{', '.join(given)}?")
        click.echo(f"{JobQueue(storage).retry_jobs(**options)} jobs retried")


@app.command()
@click.argument("job_id", metavar="ID")
@click.option("--data", help="The new data, a JSON object.")
@click.option("--queue", help="Another queue.")
@click.option("--priority", type=int, help="Another priority.")
@click.option("--execute-at", help="Do not run it before this time: 2030-01-31T09:00+01:00.")
@click.option("--max-retries", type=int, help="How many tries are allowed after the first.")
@click.option("--reason", help="Why; `pgjobq actions` shows it.")
@common.dsn
@common.schema
def edit(
    *,
    job_id: str,
    data: str | None,
    queue: str | None,
    priority: int | None,
    execute_at: str | None,
    max_retries: int | None,
    reason: str | None,
    dsn: str,
    schema: str,
) -> None:
    """Change a pending job. A job that runs or has finished is refused."""

    def change(job_id: str) -> None:
        JobQueue(storage).edit_job(
            job_id,
            data=None if data is None else data_of(data, "--data"),
            queue=queue,
            priority=priority,
            execute_at=moment("--execute-at", execute_at),
            max_retries=max_retries,
            reason=reason,
        )

    with opened(dsn, schema) as storage:
        each((job_id,), change)


@app.command()
@click.option("--limit", default=20, help="The maximum number of groups.")
@common.as_json
@common.dsn
@common.schema
def failures(*, limit: int, as_json: bool, dsn: str, schema: str) -> None:
    """List the failed jobs, grouped by type and error; numbers, ids and quoted strings do not count."""
    with opened(dsn, schema) as storage:
        found = JobQueue(storage).failures(limit)
    if as_json:
        print_json(found)
        return
    columns = ("fingerprint", "jobs", "type", "message", "first_failed_at", "last_failed_at", "sample_id")
    print_table(columns, [[_brief(row[key]) if key == "message" else row[key] for key in columns] for row in found])


@app.command()
@click.option("--limit", default=20, help="The maximum number of actions.")
@common.as_json
@common.dsn
@common.schema
def actions(*, limit: int, as_json: bool, dsn: str, schema: str) -> None:
    """List what operators did, newest first."""
    with opened(dsn, schema) as storage:
        found = JobQueue(storage).actions(limit)
    if as_json:
        print_json(found)
        return
    columns = ("at", "role", "actor", "action", "target", "jobs", "reason")
    print_table(columns, [[row[key] for key in columns] for row in found])


@app.command()
@click.argument("job_id", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on printing until the job has ended.")
@common.as_json
@common.dsn
@common.schema
def logs(*, job_id: str, follow: bool, as_json: bool, dsn: str, schema: str) -> None:
    """Print what the handler of a job has logged, if it has capture_logs."""
    if follow and as_json:
        refuse("--json: this option does not go with --follow; leave one of them out")
    after: tuple[int, int] | None = None
    with opened(dsn, schema) as storage:
        while True:
            job = storage.get_job(job_id)  # before the lines, because a worker writes them before it ends the job
            if job is None:
                fail(f"there is no job {job_id!r}")
                sys.exit(EXIT_NOT_FOUND)
            lines = storage.logs(job_id, after)
            if as_json:
                print_json(lines)
                return
            for line in lines:
                after = (line["claim_id"], line["seq"])
                told = f"{line['logged_at']} [{line['attempt']}] {line['level']} {line['logger']}: {line['line']}"
                click.echo(in_lines(told).replace("\n", "\n    "))  # further lines could look like another record
            if not follow or job.status in FINISHED:
                return
            time.sleep(FOLLOW_EVERY)


def _brief(message: str | None) -> str:
    return in_a_line(message or "")[:80]
