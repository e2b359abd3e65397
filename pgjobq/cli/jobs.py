"""Commands that manage jobs: enqueue, list, show, why, retry, cancel."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

import click

from pgjobq.cli import common
from pgjobq.cli.common import EXIT_ERROR, EXIT_NOT_FOUND, age, app, fail, opened, print_json, print_table, refuse
from pgjobq.cli.text import in_a_line, in_json, in_lines
from pgjobq.errors import InvalidJob, JobNotFound, PgjobqError
from pgjobq.models import Job, JobStatus, NewJob, Which

*_BUT_LAST, _LAST = JobStatus
STATUSES = f"{', '.join(_BUT_LAST)} or {_LAST}"
ids_of_jobs = click.argument("ids", metavar="ID...", nargs=-1, required=True)


@app.command()
@click.argument("job_type", metavar="TYPE")
@click.argument("data", metavar="[DATA]", default="{}")
@click.option("--priority", default=5, help="Jobs of higher priority run first.")
@click.option("--queue", default="default", help="The queue of the job.")
@click.option("--delay", type=float, help="Run it this many seconds from now.")
@click.option("--execute-at", help="Do not run it before this time, such as 2030-01-31T09:00+01:00.")
@click.option("--max-retries", default=3, help="How many tries are allowed after the first.")
@click.option("--id", "job_id", help="An id of your own.")
@click.option("--unique-key", help="If another job has this key, end in that job.")
@click.option("--unique-while", help="unfinished, or pending: which jobs have their key.")
@click.option("--unique-for", help="How long after it was enqueued a job has its key, even if it has ended: 10m.")
@click.option("--on-conflict", help="keep, replace, debounce or error: what to do with the job that has the key.")
@click.option("--debounce-ceiling", help="At most so long after the job was first enqueued: 5m.")
@click.option("--expires-at", help="Cancel it if it has not started by then: 2030-01-31T09:00+01:00.")
@common.dsn
@common.schema
def enqueue(
    *,
    job_type: str,
    data: str,
    priority: int,
    queue: str,
    delay: float | None,
    execute_at: str | None,
    max_retries: int,
    job_id: str | None,
    unique_key: str | None,
    unique_while: str | None,
    unique_for: str | None,
    on_conflict: str | None,
    debounce_ceiling: str | None,
    expires_at: str | None,
    dsn: str,
    schema: str,
) -> None:
    """Add a job, and print its id.

    TYPE names its handler. DATA is a JSON object; - reads it from standard input. With a unique key that another job
    has, it prints the id of that job.
    """
    from pgjobq.queue import JobQueue

    fields: dict[str, Any] = {} if job_id is None else {"id": job_id}
    new = NewJob(
        type=job_type,
        data=_json(sys.stdin.read() if data == "-" else data),
        priority=priority,
        queue=queue,
        delay=delay,
        execute_at=_moment("execute_at", execute_at),
        max_retries=max_retries,
        unique_key=unique_key,
        unique_while=unique_while,
        unique_for=_seconds("--unique-for", unique_for),
        on_conflict=on_conflict,
        debounce_ceiling=_seconds("--debounce-ceiling", debounce_ceiling),
        expires_at=_moment("expires_at", expires_at),
        **fields,
    )
    with opened(dsn, schema) as storage:
        enqueued = JobQueue(storage).enqueue_many([new])[0]
    if enqueued.outcome != "added":
        fail(f"note: another job has the unique key {unique_key!r}, and was {enqueued.outcome}")
    click.echo(in_a_line(enqueued))


@app.command("list")
@click.option("--status", help=f"List only jobs of this status: {STATUSES}.")
@click.option("--queue", help="List only jobs of this queue.")
@click.option("--limit", default=20, help="The maximum number of jobs.")
@common.as_json
@common.dsn
@common.schema
def list_(*, status: str | None, queue: str | None, limit: int, as_json: bool, dsn: str, schema: str) -> None:
    """List jobs, newest first."""
    if status is not None and status not in set(JobStatus):
        raise InvalidJob(f"--status: {status!r} is not a status; use {STATUSES}", field="status")
    from pgjobq.queue import JobQueue

    with opened(dsn, schema) as storage:
        jobs = JobQueue(storage).list_jobs(status, limit, queue)
    if as_json:
        print_json([job.to_dict() for job in jobs])
        return
    columns = ("id", "type", "queue", "status", "attempts", "created_at", "error")
    print_table(columns, [[_brief(job, name) for name in columns] for job in jobs])


@app.command()
@click.argument("job_id", metavar="ID")
@common.as_json
@common.dsn
@common.schema
def show(*, job_id: str, as_json: bool, dsn: str, schema: str) -> None:
    """Show everything about one job."""
    with opened(dsn, schema) as storage:
        job = storage.get_job(job_id)
    if job is None:
        fail(f"there is no job {job_id!r}")
        sys.exit(EXIT_NOT_FOUND)
    if as_json:
        print_json(job.to_dict())
        return
    for name, value in job.to_dict().items():
        text = in_json(value) if isinstance(value, dict) else in_lines("" if value is None else str(value))
        # Indent the further lines of a text, because they could look like another field.
        click.echo(f"{name:12} {text}".replace("\n", f"\n{'':13}"))


@app.command()
@click.argument("job_id", metavar="ID")
@common.as_json
@common.dsn
@common.schema
def why(*, job_id: str, as_json: bool, dsn: str, schema: str) -> None:
    """Say why a job is not running, or what became of it. Only for PostgreSQL."""
    with opened(dsn, schema) as storage:
        reason = storage.why(job_id)
    if as_json:
        print_json({"id": job_id, "why": reason})
    else:
        click.echo(in_a_line(reason))


@app.command()
@ids_of_jobs
@click.option("--delay", type=float, default=0, help="Run them this many seconds from now.")
@common.dsn
@common.schema
def retry(*, ids: tuple[str, ...], delay: float, dsn: str, schema: str) -> None:
    """Give failed or cancelled jobs another try."""
    with opened(dsn, schema) as storage:
        _each(ids, lambda job_id: storage.retry(job_id, delay))


@app.command()
@click.argument("ids", metavar="[ID...]", nargs=-1)
@click.option("--queue", help="All jobs of this queue, in place of ids.")
@click.option("--type", "job_type", help="All jobs of this type.")
@click.option("--unique-key", help="All jobs that were enqueued with this key.")
@click.option("--created-before", help="All jobs that are older: 2030-01-31T09:00+01:00.")
@click.option("--max", "max_jobs", type=int, help="At most so many of them, the oldest first.")
@click.option("--reason", help="Why; kept as the job's error.")
@click.option("--yes", is_flag=True, help="Do not ask whether to cancel them all.")
@common.dsn
@common.schema
def cancel(
    *,
    ids: tuple[str, ...],
    queue: str | None,
    job_type: str | None,
    unique_key: str | None,
    created_before: str | None,
    max_jobs: int | None,
    reason: str | None,
    yes: bool,
    dsn: str,
    schema: str,
) -> None:
    """Cancel pending or running jobs: those with these ids, or all that match the options."""
    options = {"--queue": queue, "--type": job_type, "--unique-key": unique_key, "--created-before": created_before}
    given = [f"{name} {value}" for name, value in options.items() if value is not None]
    if bool(ids) == bool(given):
        refuse("use the ids of jobs, or else --queue, --type, --unique-key or --created-before")
    if max_jobs is not None and ids:
        refuse("--max: this option goes with --queue, --type, --unique-key or --created-before; leave it out")
    from pgjobq.queue import JobQueue

    with opened(dsn, schema) as storage:
        if given:
            before = _moment("created_before", created_before)
            which = Which(queue=queue, type=job_type, unique_key=unique_key, created_before=before)
            if not yes:
                _ask(f"Cancel all pending and running jobs with {', '.join(given)}?")
            click.echo(f"{storage.cancel_jobs(which, max_jobs, reason)} jobs cancelled")
            return

        def one(job_id: str) -> None:
            if not JobQueue(storage).cancel(job_id, reason):
                raise PgjobqError(f"job {job_id!r} is already finished")

        _each(ids, one)


def _each(ids: tuple[str, ...], act: Any) -> None:
    """Call act for each id and report the errors. If there are any, exit with the highest status at the end."""
    status = 0
    for job_id in ids:
        try:
            act(job_id)
        except JobNotFound as error:
            fail(str(error))
            status = max(status, EXIT_NOT_FOUND)
        except PgjobqError as error:
            fail(str(error))
            status = max(status, EXIT_ERROR)
        else:
            click.echo(in_a_line(job_id))
    if status:
        sys.exit(status)


def _ask(question: str) -> None:
    if not sys.stdin.isatty():
        refuse("--yes: use this option if there is no terminal on which to confirm")
    click.confirm(question, abort=True)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidJob(f"data: {error}; use a JSON object in single quotes", field="data") from None


def _moment(field: str, text: str | None) -> datetime | None:
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError:
        raise InvalidJob(
            f"{field}: {text!r} is not a time; use a time such as 2030-01-31T09:00+01:00", field=field
        ) from None


def _seconds(option: str, text: str | None) -> float | None:
    return None if text is None else age(option, text).total_seconds()


def _brief(job: Job, name: str) -> Any:
    value = getattr(job, name)
    return value.splitlines()[0][:60] if name == "error" and value else value
