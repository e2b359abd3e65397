"""Commands about jobs: enqueue, list, show, retry, cancel."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Annotated, Any

import typer

from pgjobq.cli.common import EXIT_ERROR, EXIT_NOT_FOUND, Dsn, Json, Schema, app, fail, opened, print_json, print_table
from pgjobq.errors import InvalidJob, JobNotFound, PgjobqError
from pgjobq.models import Job, JobStatus, NewJob

*_BUT_LAST, _LAST = JobStatus
STATUSES = f"{', '.join(_BUT_LAST)} or {_LAST}"
Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of jobs.")]


@app.command()
def enqueue(
    job_type: Annotated[str, typer.Argument(metavar="TYPE", help="The type of job: names its handler.")],
    data: Annotated[str, typer.Argument(metavar="[DATA]", help="A JSON object; - reads it from the input.")] = "{}",
    *,
    priority: Annotated[int, typer.Option(help="Higher runs first.")] = 5,
    queue: Annotated[str, typer.Option(help="The queue to put it in.")] = "default",
    delay: Annotated[float | None, typer.Option(help="Seconds from now.")] = None,
    execute_at: Annotated[str | None, typer.Option(help="Not before: 2030-01-31T09:00+01:00.")] = None,
    max_retries: Annotated[int, typer.Option(help="Tries after the first.")] = 3,
    job_id: Annotated[str | None, typer.Option("--id", help="An id of your own.")] = None,
    dsn: Dsn = "",
    schema: Schema = "pgjobq",
) -> None:
    """Add a job; prints its id."""
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
        typer.echo(storage.enqueue_many([new])[0])


@app.command("list")
def list_(
    *,
    status: Annotated[str | None, typer.Option(help=f"{STATUSES}.")] = None,
    queue: Annotated[str | None, typer.Option(help="Of this queue only.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many, newest first.")] = 20,
    as_json: Json = False,
    dsn: Dsn = "",
    schema: Schema = "pgjobq",
) -> None:
    """List jobs, newest first."""
    if status is not None and status not in set(JobStatus):
        raise InvalidJob(f"--status: {status!r} is no status; give {STATUSES}", field="status")
    from pgjobq.queue import JobQueue

    with opened(dsn, schema) as storage:
        jobs = JobQueue(storage).list_jobs(status, limit, queue)
    if as_json:
        print_json([job.to_dict() for job in jobs])
        return
    columns = ("id", "type", "queue", "status", "attempts", "created_at", "error")
    print_table(columns, [[_brief(job, name) for name in columns] for job in jobs])


@app.command()
def show(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="Id of a job.")],
    *,
    as_json: Json = False,
    dsn: Dsn = "",
    schema: Schema = "pgjobq",
) -> None:
    """Show one job, whole."""
    with opened(dsn, schema) as storage:
        job = storage.get_job(job_id)
    if job is None:
        fail(f"there is no job {job_id!r}")
        raise typer.Exit(EXIT_NOT_FOUND)
    if as_json:
        print_json(job.to_dict())
        return
    for name, value in job.to_dict().items():
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value
        typer.echo(f"{name:12} {'' if text is None else text}")


@app.command()
def retry(
    ids: Ids,
    *,
    delay: Annotated[float, typer.Option(help="Seconds from now.")] = 0,
    dsn: Dsn = "",
    schema: Schema = "pgjobq",
) -> None:
    """Give failed or cancelled jobs another try."""
    with opened(dsn, schema) as storage:
        _each(ids, lambda job_id: storage.retry(job_id, delay))


@app.command()
def cancel(ids: Ids, *, dsn: Dsn = "", schema: Schema = "pgjobq") -> None:
    """Cancel jobs that wait or run."""
    with opened(dsn, schema) as storage:

        def one(job_id: str) -> None:
            if not storage.cancel(job_id):
                raise PgjobqError(f"job {job_id!r} is finished already")

        _each(ids, one)


def _each(ids: list[str], act: Any) -> None:
    """Do it for each; report those it fails for, and exit with the gravest status at the end."""
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
            typer.echo(job_id)
    if status:
        raise typer.Exit(status)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidJob(f"data: {error}; give a JSON object in single quotes", field="data") from None


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InvalidJob(f"execute_at: {text!r} is no time; give 2030-01-31T09:00+01:00", field="execute_at") from None


def _brief(job: Job, name: str) -> Any:
    value = getattr(job, name)
    return value.splitlines()[0][:60] if name == "error" and value else value
