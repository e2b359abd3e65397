"""Commands that manage jobs: enqueue, list, show, retry, cancel."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

import click

from pgjobq.cli import common
from pgjobq.cli.common import EXIT_ERROR, EXIT_NOT_FOUND, app, fail, opened, print_json, print_table
from pgjobq.cli.text import in_a_line, in_json, in_lines
from pgjobq.errors import InvalidJob, JobNotFound, PgjobqError
from pgjobq.models import Job, JobStatus, NewJob

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
    dsn: str,
    schema: str,
) -> None:
    """Add a job, and print its id.

    TYPE names its handler. DATA is a JSON object; - reads it from standard input.
    """
    fields: dict[str, Any] = {} if job_id is None else {"id": job_id}
    new = NewJob(
        type=job_type,
        data=_json(sys.stdin.read() if data == "-" else data),
        priority=priority,
        queue=queue,
        delay=delay,
        execute_at=None if execute_at is None else _moment(execute_at),
        max_retries=max_retries,
        **fields,
    )
    with opened(dsn, schema) as storage:
        click.echo(in_a_line(storage.enqueue_many([new])[0]))


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
@ids_of_jobs
@click.option("--delay", type=float, default=0, help="Run them this many seconds from now.")
@common.dsn
@common.schema
def retry(*, ids: tuple[str, ...], delay: float, dsn: str, schema: str) -> None:
    """Give failed or cancelled jobs another try."""
    with opened(dsn, schema) as storage:
        _each(ids, lambda job_id: storage.retry(job_id, delay))


@app.command()
@ids_of_jobs
@common.dsn
@common.schema
def cancel(*, ids: tuple[str, ...], dsn: str, schema: str) -> None:
    """Cancel pending or running jobs."""
    with opened(dsn, schema) as storage:

        def one(job_id: str) -> None:
            if not storage.cancel(job_id):
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


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidJob(f"data: {error}; use a JSON object in single quotes", field="data") from None


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InvalidJob(
            f"execute_at: {text!r} is not a time; use a time such as 2030-01-31T09:00+01:00", field="execute_at"
        ) from None


def _brief(job: Job, name: str) -> Any:
    value = getattr(job, name)
    return value.splitlines()[0][:60] if name == "error" and value else value
