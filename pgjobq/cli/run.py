"""Commands that run processes: worker, dev, demo."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
from datetime import timedelta
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import click

from pgjobq.arrival import FINISHED
from pgjobq.cli import common
from pgjobq.cli.common import EXIT_ERROR, app, check_stays, fail, opened, refuse
from pgjobq.cli.importing import import_handlers
from pgjobq.cli.logs import configure
from pgjobq.errors import ConfigurationError
from pgjobq.events import EventLog
from pgjobq.signals import SIGNALS, end_is_near

log = EventLog("pgjobq.worker")

EXIT_TIME = 1.0  # seconds

if TYPE_CHECKING:
    from pgjobq.cli.supervisor import Line


@app.command()
@click.argument("modules", metavar="MODULE...", nargs=-1, required=not os.environ.get("DJANGO_SETTINGS_MODULE"))
@click.option("--queues", help="The queues to serve: mail,default, or with limits mail:2,default:8; by default all.")
@click.option("--concurrency", default=8, help="How many jobs run at once.")
@click.option("--processes", default=1, help="How many worker processes run, each with that concurrency.")
@click.option("--grace", type=float, default=30, help="How many seconds running jobs have to end after SIGTERM.")
@click.option(
    "--keep",
    help="Delete completed and cancelled jobs after this time: 7d, 12h, 30m; 0 deletes them as they complete."
    " Or by status: completed=7d,failed=30d,cancelled=7d; a status that is left out is kept.",
)
@click.option("--fail-unknown", is_flag=True, help="Fail jobs whose type has no handler.")
@click.option("--pooled", is_flag=True, help="The DSN leads through a transaction pooler.")
@click.option("--listen-dsn", help="A direct DSN for notifications, if --dsn leads through a pooler.")
@click.option("--log-json", is_flag=True, help="Print log lines as JSON.")
@click.option("--log-level", default="info", help="The lowest level to log: debug, info, warning or error.")
@common.dsn
@common.schema
def worker(
    *,
    modules: tuple[str, ...],
    queues: str | None,
    concurrency: int,
    processes: int,
    grace: float,
    keep: str | None,
    fail_unknown: bool,
    pooled: bool,
    listen_dsn: str | None,
    log_json: bool,
    log_level: str,
    dsn: str,
    schema: str,
) -> None:
    """Run jobs until SIGTERM or Ctrl-C. A second signal, at least a second later, stops the worker at once.

    MODULE... are modules that define handlers, by name or by file: app.tasks or app/tasks.py. With
    DJANGO_SETTINGS_MODULE set, the modules `jobs` and `tasks` of the project's apps are imported too.
    """
    configure(as_json=log_json, level=log_level)
    age = None if keep is None else _keep(keep)
    line = _fork(processes, preload=dsn) if processes != 1 else None
    if line is not None:
        configure(as_json=log_json, level=log_level, worker=line.number)
    from pgjobq.worker import Worker
    from pgjobq.worker.queue_limits import parse_queues

    import_handlers(modules)
    names = None if queues is None else parse_queues(queues)
    with opened(dsn, schema, "pgjobq worker", pooled=pooled, listen_dsn=listen_dsn) as storage:
        served = Worker(
            storage, concurrency=concurrency, queues=names, grace=grace, fail_unknown=fail_unknown, keep=age
        )
        storage.ping()
        storage.rescue()  # fails here, and not in the log, if the database user lacks the rights of a worker
        # Handle signals before and after run() too, because a late signal must not kill the process.
        for number in SIGNALS:
            signal.signal(number, lambda *_: served.ask_to_stop())
        if line is not None:
            line.ready(lambda hurry: served.ask_to_stop(hurry=hurry))
        served.run()
    end_is_near()
    _end_without(EXIT_TIME)


def _keep(text: str) -> timedelta | dict[str, timedelta]:
    """Parse an age, or an age for each status. Exits with the status for wrong usage if it is neither."""
    by_status: dict[str, timedelta] = {}
    try:
        if "=" not in text:
            return common.age("--keep", text)
        for part in text.split(","):
            status, _, age = part.strip().partition("=")
            if status not in FINISHED:
                refuse(f"--keep: {status!r} is not a final status; use completed=7d,failed=30d,cancelled=7d")
            if status in by_status:
                refuse(f"--keep: {status} is given twice; give it once")
            by_status[status] = common.age(f"--keep: {status}", age)
    except ConfigurationError as error:
        refuse(str(error))
    return by_status


def _end_without(seconds: float) -> None:
    """End the process after this time, even if Python still waits for threads that are not daemons.

    Such threads remain after asyncio.to_thread in a handler whose job was released. The program's own exit handlers may
    take longer.
    """

    def end() -> None:
        names = [thread.name for thread in threading.enumerate() if not thread.daemon]
        log.warning("worker.threads_left", extra={"threads": " ".join(names)})
        logging.shutdown()
        os._exit(0)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    atexit.register(timer.cancel)  # Python calls this after those threads have ended


def _fork(processes: int, *, preload: str) -> Line:
    """Become a supervisor. Returns only in its children.

    preload: the DSN. The modules of its storage are imported before the fork, so the children share their memory. Each
    child imports the user's modules itself.
    """
    if processes < 1:
        raise ConfigurationError(f"processes: {processes} is not allowed; use a whole number above 0")
    from pgjobq.cli.supervisor import Supervisor
    from pgjobq.connect import is_postgres

    if is_postgres(preload):
        import pgjobq.storage.postgres_storage
        import pgjobq.worker  # noqa: F401
    supervisor = Supervisor(processes)
    line = supervisor.run()
    if line is None:
        end_is_near()
        sys.exit(supervisor.status)
    return line


@app.command()
@click.option("--folder", type=click.Path(path_type=Path), help="The folder for the server's files.")
@click.option("--port", type=int, help="The server's port; by default a free one.")
def dev(*, folder: Path | None, port: int | None) -> None:
    """Run a PostgreSQL server for development, with pgjobq installed, until Ctrl-C. Its data is kept."""
    from pgjobq.devserver import DevServer, DevServerRunning, default_folder
    from pgjobq.postgres.schema import migrate

    stop: SimpleQueue[int] = SimpleQueue()  # not an Event, whose set() takes a lock
    for number in SIGNALS:
        signal.signal(number, lambda heard, _: stop.put(heard))
    try:
        with DevServer(folder or default_folder(), port=port, durable=True) as server:
            migrate(server.dsn)
            click.echo(f"PostgreSQL with pgjobq is running, in {server.folder}. Ctrl-C stops it.\n")
            click.echo(f"  export PGJOBQ_DSN='{server.dsn}'\n")
            sys.stdout.flush()
            while not _heard(stop, 0.5):
                if server.pid is None:
                    fail(f"the server ended unexpectedly; see {server.folder}/run/log")
                    sys.exit(EXIT_ERROR)
    except DevServerRunning as running:
        fail(str(running))
        sys.exit(EXIT_ERROR)
    click.echo("stopped")


def _heard(stop: SimpleQueue[int], seconds: float) -> bool:
    try:
        stop.get(timeout=seconds)
    except Empty:
        return False
    return True


@app.command()
@click.option("--keep", is_flag=True, help="Keep the server running at the end, until Ctrl-C.")
@click.option("--folder", type=click.Path(path_type=Path), help="The folder for the invoices.")
@click.option(
    "--dsn", default="", show_default=False, help="A database other than PostgreSQL, such as sqlite:///demo.db."
)
def demo(*, keep: bool, folder: Path | None, dsn: str) -> None:
    """Show pgjobq in use: a trigger on an orders table enqueues, and a worker writes an invoice for each order."""
    os.environ.pop("PGJOBQ_DSN", None)  # the demo does not use the user's database
    if dsn:
        from pgjobq.connect import is_postgres
        from pgjobq.demo.anywhere import run_demo_on

        if is_postgres(dsn):
            refuse("--dsn: the demo starts its own PostgreSQL; leave it out, or use another database")
        if keep:
            refuse("--keep: there is no server to keep with --dsn; leave out --keep")
        check_stays(dsn)
        sys.exit(run_demo_on(dsn, folder=folder))
    from pgjobq.demo import run_demo

    sys.exit(run_demo(keep=keep, folder=folder))
