"""Commands that manage jobs: enqueue, list, show, why, wait, cancel."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from pgjobq.cli import common
from pgjobq.cli.common import (
    EXIT_NOT_COMPLETED,
    EXIT_NOT_FOUND,
    EXIT_TIMEOUT,
    age,
    app,
    ask,
    each,
    fail,
    opened,
    print_json,
    print_table,
    refuse,
)
from pgjobq.cli.progress import progress_of, share_of
from pgjobq.cli.shell import data_of, moment
from pgjobq.cli.text import in_a_line, in_json, in_lines
from pgjobq.errors import InvalidJob, JobNotFound, PgjobqError, Unsupported, WaitTimeout
from pgjobq.models import Job, JobStatus, NewJob, Which
from pgjobq.storage.base import BaseStorage

*_BUT_LAST, _LAST = JobStatus
STATUSES = f"{', '.join(_BUT_LAST)} or {_LAST}"


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
        data=data_of(sys.stdin.read() if data == "-" else data),
        priority=priority,
        queue=queue,
        delay=delay,
        execute_at=moment("--execute-at", execute_at),
        max_retries=max_retries,
        unique_key=unique_key,
        unique_while=unique_while,
        unique_for=_seconds("--unique-for", unique_for),
        on_conflict=on_conflict,
        debounce_ceiling=_seconds("--debounce-ceiling", debounce_ceiling),
        expires_at=moment("--expires-at", expires_at),
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
        progress = progress_of(storage, [job.id for job in jobs if job.status is JobStatus.RUNNING])
    if as_json:
        print_json([job.to_dict() | ({"progress": progress[job.id]} if job.id in progress else {}) for job in jobs])
        return
    columns = ["id", "type", "queue", "status", "attempts", "created_at", "execute_at", "error"]
    rows = [[_brief(job, name) for name in columns] for job in jobs]
    if progress:
        columns.append("progress")
        rows = [[*row, share_of(progress.get(row[0]))] for row in rows]
    print_table(columns, rows, narrow=_in_lines)


@app.command()
@click.argument("job_id", metavar="ID")
@common.as_json
@common.dsn
@common.schema
def show(*, job_id: str, as_json: bool, dsn: str, schema: str) -> None:
    """Show everything about one job."""
    with opened(dsn, schema) as storage:
        job = storage.get_job(job_id)
        tries = _tries(storage, job_id)
        progress = progress_of(storage, [job_id])
    if job is None:
        fail(f"there is no job {job_id!r}")
        sys.exit(EXIT_NOT_FOUND)
    if as_json:
        print_json(job.to_dict() | {"progress": progress.get(job_id), "tries": tries})
        return
    for name, value in job.to_dict().items():
        is_json = isinstance(value, dict) or (name == "result" and value is not None)
        text = in_json(value) if is_json else in_lines("" if value is None else str(value))
        # Indent the further lines of a text, because they could look like another field.
        click.echo(f"{name:12} {text}".replace("\n", f"\n{'':13}"))
    if job_id in progress:
        click.echo(f"{'progress':12} {share_of(progress[job_id], whole=True)}")
    if tries:
        click.echo()
        columns = ("attempt", "outcome", "worker", "started_at", "ended_at", "error")
        rows = [[_first_line(row[key]) if key == "error" else row[key] for key in columns] for row in tries]
        print_table(columns, rows, title="Tries that did not succeed")


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
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--timeout", default="60s", help="How long to wait for all of them: 90s, 5m, 1h.")
@common.as_json
@common.dsn
@common.schema
def wait(*, ids: tuple[str, ...], timeout: str, as_json: bool, dsn: str, schema: str) -> None:
    """Wait until jobs have ended, and print how: the id, the status and the result.

    Exit status: 0 all have completed; 3 there is no such job; 4 the time is over; 5 a job failed or was cancelled.
    """
    seconds = age("--timeout", timeout).total_seconds()
    with opened(dsn, schema) as storage:
        try:
            jobs, missed = storage.wait_for_many(ids, seconds), None
        except JobNotFound as error:
            fail(str(error))
            sys.exit(EXIT_NOT_FOUND)
        except WaitTimeout as error:
            jobs, missed = error.ended, error
    if as_json:
        print_json([job.to_dict() for job in jobs])
    else:
        for job in jobs:
            result = "" if job.result is None else f"  {in_a_line(in_json(job.result))}"
            click.echo(f"{in_a_line(job.id)}  {job.status}{result}")
    if missed is not None:
        fail(str(missed))
        sys.exit(EXIT_TIMEOUT)
    if any(job.status is not JobStatus.COMPLETED for job in jobs):
        sys.exit(EXIT_NOT_COMPLETED)


@app.command()
@click.argument("ids", metavar="[ID...]", nargs=-1)
@click.option("--queue", help="All jobs of this queue, in place of ids.")
@click.option("--type", "job_type", help="All jobs of this type.")
@click.option("--unique-key", help="All jobs that were enqueued with this key.")
@click.option("--created-before", help="All jobs that are older: 2030-01-31T09:00+01:00.")
@click.option("--max", "max_jobs", type=int, help="The largest number of jobs, the oldest first.")
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
            before = moment("--created-before", created_before)
            which = Which(queue=queue, type=job_type, unique_key=unique_key, created_before=before)
            if not yes:
                ask(f"Cancel all pending and running jobs with {', '.join(given)}?")
            click.echo(f"{storage.cancel_jobs(which, max_jobs, reason)} jobs cancelled")
            return

        def one(job_id: str) -> None:
            if not JobQueue(storage).cancel(job_id, reason):
                raise PgjobqError(f"job {job_id!r} is already finished")

        each(ids, one)


def _seconds(option: str, text: str | None) -> float | None:
    return None if text is None else age(option, text).total_seconds()


def _brief(job: Job, name: str) -> Any:
    value = getattr(job, name)
    return _first_line(value) if name == "error" else value


def _first_line(error: str | None) -> str | None:
    if not error:
        return error
    first, *more = error.splitlines()
    return f"{first[:59]}…" if len(first) > 60 else f"{first} …" if more else first


def _in_lines(row: Sequence[str]) -> list[str]:
    """Return a job in lines for a terminal that is too narrow for the table."""
    job_id, type_, queue, status, attempts, created_at, execute_at, error = row
    lines = [job_id, f"  {status}, {type_}, queue {queue}, attempts {attempts}", f"  created_at {created_at}"]
    if execute_at:
        lines[-1] += f", execute_at {execute_at}"
    return [*lines, f"  {error}"] if error else lines


def _tries(storage: BaseStorage, job_id: str) -> list[dict[str, Any]]:
    """Return the tries that did not succeed; none if the storage keeps none."""
    try:
        return storage.attempts(job_id)
    except Unsupported:
        return []
