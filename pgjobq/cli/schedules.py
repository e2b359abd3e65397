"""Commands about schedules."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from pgjobq.cli import common
from pgjobq.cli.common import EXIT_ERROR, EXIT_NOT_FOUND, age, app, fail, opened, print_json, print_table
from pgjobq.cli.shell import data_of
from pgjobq.cli.text import in_a_line, in_json, in_lines
from pgjobq.errors import ConfigurationError, InvalidSchedule, ScheduleNotFound
from pgjobq.queue import JobQueue
from pgjobq.schedules import Schedule
from pgjobq.storage.base import BaseStorage

NEXT = 5  # ticks that are shown
_SHOWN = ("type", "expression", "time_zone", "data", "queue", "priority")  # whose change after a declaration is noted
ids = click.argument("ids", metavar="ID...", nargs=-1, required=True)
an_id = click.argument("schedule_id", metavar="ID")


@app.group(invoke_without_command=True)
@common.as_json
@common.dsn
@common.schema
@click.pass_context
def schedules(context: click.Context, *, as_json: bool, dsn: str, schema: str) -> None:
    """List schedules, and show, create, run, pause or delete one. Without a command, list them."""
    if context.invoked_subcommand is None:
        _list(as_json=as_json, dsn=dsn, schema=schema)
        return
    # Options before the command hold for it too.
    given = {"dsn": dsn, "schema": schema} | ({"as_json": as_json} if as_json else {})
    context.default_map = dict.fromkeys(schedules.commands, given)


@schedules.command("list")
@common.as_json
@common.dsn
@common.schema
def list_(*, as_json: bool, dsn: str, schema: str) -> None:
    """List all schedules, in words, with their next runs."""
    _list(as_json=as_json, dsn=dsn, schema=schema)


def _list(*, as_json: bool, dsn: str, schema: str) -> None:
    with opened(dsn, schema) as storage:
        found, live = storage.list_schedules(), storage.declared_schedules()
    if as_json:
        print_json([_told(one, live) for one in found])
        return
    columns = ("id", "type", "when", "next run (UTC)", "last run (UTC)", "note")
    rows = [(one.id, one.job_type, _words(one), one.next_run, one.last_run, _note(one, live)) for one in found]
    print_table(columns, rows)


@schedules.command()
@an_id
@common.as_json
@common.dsn
@common.schema
def show(*, schedule_id: str, as_json: bool, dsn: str, schema: str) -> None:
    """Show a schedule, with its next five runs."""
    with opened(dsn, schema) as storage:
        found = _get(storage, schedule_id)
        told = _told(found, storage.declared_schedules())
        told["next_runs"] = [tick.isoformat() for tick in _next_runs(storage, found)]
    if as_json:
        print_json(told)
        return
    ticks = [_local(datetime.fromisoformat(tick), found.time_zone) for tick in told.pop("next_runs")]
    click.echo(in_lines(f"{found.id}: {told.pop('when')}; next: {', '.join(ticks) or 'none'}"))
    for name, value in told.items():
        if value not in (None, "") and name != "id":
            click.echo(f"  {name:<19} {in_json(value) if isinstance(value, dict) else in_a_line(str(value))}")


@schedules.command()
@an_id
@click.argument("job_type", metavar="TYPE")
@click.argument("expression", metavar="EXPRESSION")
@click.argument("data", metavar="[DATA]", default="{}")
@click.option("--tz", "time_zone", default="UTC", help="The time zone whose clock a cron expression follows.")
@click.option("--queue", default="default", help="The queue of the jobs.")
@click.option("--priority", default=5, help="Jobs of higher priority run first.")
@click.option("--max-retries", default=3, help="How many tries are allowed after the first.")
@click.option("--missed", default="once", help="once, skip or all: which ticks get a job after a time without workers.")
@click.option("--overlap", help="skip or allow: whether a tick gets a job while the last job is unfinished.")
@click.option("--jitter", default="0", help="Add a job up to this much after its tick: 30s.")
@click.option("--paused", is_flag=True, help="Do not run it until it is resumed.")
@common.dsn
@common.schema
def create(
    *,
    schedule_id: str,
    job_type: str,
    expression: str,
    data: str,
    time_zone: str,
    queue: str,
    priority: int,
    max_retries: int,
    missed: str,
    overlap: str | None,
    jitter: str,
    paused: bool,
    dsn: str,
    schema: str,
) -> None:
    """Create a schedule, or replace the one with this id.

    EXPRESSION is a cron expression, such as '0 9 * * 1-5' or @daily, or an interval, such as 90s, 15m or 12h. DATA is a
    JSON object.
    """
    with opened(dsn, schema) as storage:
        made = JobQueue(storage).new_schedule(
            schedule_id,
            job_type,
            _expression(expression),
            data=data_of(data),
            time_zone=time_zone,
            queue=queue,
            priority=priority,
            max_retries=max_retries,
            missed=missed,
            overlap=overlap,
            jitter=age("jitter", jitter),
            enabled=not paused,
        )
        storage.create_schedule(made)
        _tell(storage, made)


@schedules.command()
@an_id
@common.dsn
@common.schema
def run(*, schedule_id: str, dsn: str, schema: str) -> None:
    """Add a job of a schedule now, even if it is paused, and print its id. The next run stays as it is."""
    with opened(dsn, schema) as storage:
        try:
            click.echo(in_a_line(storage.run_schedule(schedule_id)))
        except ScheduleNotFound:
            _not_found(schedule_id)


@schedules.command()
@ids
@common.dsn
@common.schema
def pause(*, ids: tuple[str, ...], dsn: str, schema: str) -> None:
    """Let schedules add no jobs until they are resumed."""
    _each(ids, dsn, schema, lambda storage, schedule_id: storage.enable_schedule(schedule_id, False))


@schedules.command()
@ids
@common.dsn
@common.schema
def resume(*, ids: tuple[str, ...], dsn: str, schema: str) -> None:
    """Let schedules go on from their next ticks. The ticks in between get no job."""
    _each(ids, dsn, schema, lambda storage, schedule_id: storage.enable_schedule(schedule_id, True))


@schedules.command()
@ids
@common.dsn
@common.schema
def delete(*, ids: tuple[str, ...], dsn: str, schema: str) -> None:
    """Delete schedules. Their jobs stay. A worker that declares one creates it again when it starts."""

    def act(storage: BaseStorage, schedule_id: str) -> bool:
        declared = schedule_id in (storage.declared_schedules() or ())
        done = storage.delete_schedule(schedule_id)
        if done and declared:
            fail(f"note: a live worker declares schedule {schedule_id!r}, and creates it again when it starts")
        return done

    _each(ids, dsn, schema, act)


@schedules.command()
@click.argument("expression", metavar="ID|EXPRESSION")
@click.option("--tz", "time_zone", default="UTC", help="The time zone, for a cron expression.")
@click.option("--count", "-n", default=NEXT, help="How many ticks to print.")
@common.dsn
@common.schema
def preview(*, expression: str, time_zone: str, count: int, dsn: str, schema: str) -> None:
    """Print the next ticks of a schedule, or of a cron expression before you use it."""
    with opened(dsn, schema) as storage:
        if expression.startswith("@") or len(expression.split()) > 1:
            given = Schedule("preview", "preview", schedule_expression=expression, time_zone=time_zone)
        else:
            given = _get(storage, expression)
        ticks = _next_runs(storage, given, count)
    click.echo(in_lines(_words(given)))
    for tick in ticks:
        click.echo(f"  {_local(tick, given.time_zone)}  {tick:%Y-%m-%dT%H:%M:%SZ}")


def _each(ids: tuple[str, ...], dsn: str, schema: str, act: Any) -> None:
    missing = False
    with opened(dsn, schema) as storage:
        for schedule_id in ids:
            if act(storage, schedule_id):
                click.echo(in_a_line(schedule_id))
            else:
                missing = True
                fail(f"there is no schedule {schedule_id!r}")
    if missing:
        sys.exit(EXIT_NOT_FOUND if len(ids) == 1 else EXIT_ERROR)


def _expression(text: str) -> str | timedelta:
    if text.startswith("@") or len(text.split()) > 1:
        return text
    try:
        return age("expression", text)
    except ConfigurationError:
        raise InvalidSchedule(
            f"expression: {text!r} is not allowed; use five fields such as '0 9 * * 1-5', @daily, or an interval, such"
            " as 90s, 15m or 12h",
            field="expression",
        ) from None


def _get(storage: BaseStorage, schedule_id: str) -> Schedule:
    found = storage.get_schedule(schedule_id)
    return _not_found(schedule_id) if found is None else found


def _not_found(schedule_id: str) -> Any:
    fail(f"there is no schedule {schedule_id!r}; `pgjobq schedules` lists them")
    sys.exit(EXIT_NOT_FOUND)


def _tell(storage: BaseStorage, made: Schedule) -> None:
    ticks = [_local(tick, made.time_zone) for tick in _next_runs(storage, _get(storage, made.id), 1)]
    paused = "" if made.enabled else "; it is paused"
    click.echo(in_lines(f"{made.id}: {_words(made)}; next: {ticks[0] if ticks else 'none'}{paused}"))


def _next_runs(storage: BaseStorage, schedule: Schedule, count: int = NEXT) -> list[datetime]:
    """Return the next ticks. Those of a paused schedule are the ones that it would have."""
    if schedule.schedule_type == "cron":
        first = schedule.next_run
        after = datetime.now(UTC) if first is None else first - timedelta(microseconds=1)
        return storage.next_ticks(schedule.schedule_expression, schedule.time_zone, after, count)
    if schedule.next_run is None:
        return []
    if not re.fullmatch(r"\d+(\.\d+)?", schedule.schedule_expression):
        return [schedule.next_run]  # only PostgreSQL can read it
    step = timedelta(seconds=float(schedule.schedule_expression))
    return [schedule.next_run + n * step for n in range(count)]


def _local(tick: datetime, time_zone: str) -> str:
    try:
        return f"{tick.astimezone(ZoneInfo(time_zone)):%a %Y-%m-%d %H:%M:%S %Z}"
    except (ZoneInfoNotFoundError, ValueError):  # the server knows zones that this host does not
        return f"{tick.astimezone(UTC):%a %Y-%m-%d %H:%M:%S UTC}"


def _words(schedule: Schedule) -> str:
    from pgjobq.storage.cron import words_of

    return words_of(schedule)


def _note(schedule: Schedule, live: set[str] | None) -> str:
    parts = []
    if schedule.last_error:
        parts.append(f"stopped: {schedule.last_error}")
    elif not schedule.enabled:
        parts.append("paused")
    elif schedule.next_run is None:
        parts.append("ended")
    if schedule.declared is not None:
        if live is not None and schedule.id not in live:
            parts.append("no live worker declares it")
        now = schedule.arguments()
        if any(now.get(name) != schedule.declared[name] for name in _SHOWN if name in schedule.declared):
            parts.append("changed since it was declared")
    return "; ".join(parts)


def _told(schedule: Schedule, live: set[str] | None) -> dict[str, Any]:
    declared = None if live is None else schedule.id in live
    return schedule.to_dict() | {"when": _words(schedule), "live": declared, "note": _note(schedule, live)}
