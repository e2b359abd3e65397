"""Commands that run something: worker, dev, demo."""

from __future__ import annotations

import atexit
import importlib
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import click

from pgjobq.cli import common
from pgjobq.cli.common import EXIT_ERROR, app, check_stays, fail, opened, refuse
from pgjobq.cli.logs import configure
from pgjobq.errors import ConfigurationError
from pgjobq.events import EventLog
from pgjobq.handlers import default_registry
from pgjobq.signals import SIGNALS, end_is_near

log = EventLog("pgjobq.worker")

EXIT_TIME = 1.0  # seconds

if TYPE_CHECKING:
    from pgjobq.cli.supervisor import Line


@app.command()
@click.argument("modules", metavar="MODULE...", nargs=-1, required=True)
@click.option("--queues", help="Queues to serve: mail,default; with limits, mail:2,default:8. Without it, all.")
@click.option("--concurrency", default=8, help="Jobs at once.")
@click.option("--processes", default=1, help="Worker processes, each with that concurrency.")
@click.option("--grace", type=float, default=30, help="Seconds that running jobs have to end at SIGTERM.")
@click.option("--keep", help="Delete jobs finished so long ago: 7d, 12h, 30m; 0 as they complete.")
@click.option("--fail-unknown", is_flag=True, help="Fail jobs of types without handler.")
@click.option("--pooled", is_flag=True, help="The DSN leads through a transaction pooler.")
@click.option("--listen-dsn", help="A direct DSN for notifications, beside a pooler.")
@click.option("--log-json", is_flag=True, help="Log lines as JSON.")
@click.option("--log-level", default="info", help="debug, info, warning or error.")
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
    """Run jobs until SIGTERM or Ctrl-C; a second one, at least a second later, stops at once.

    MODULE... are modules that define handlers, such as app.tasks.
    """
    configure(as_json=log_json, level=log_level)
    age = None if keep is None else common.age("keep", keep)
    line = _fork(processes, preload=dsn) if processes != 1 else None
    if line is not None:
        configure(as_json=log_json, level=log_level, worker=line.number)
    from pgjobq.worker import Worker
    from pgjobq.worker.queue_limits import parse_queues

    _import_handlers(modules)
    names = None if queues is None else parse_queues(queues)
    with opened(dsn, schema, "pgjobq worker", pooled=pooled, listen_dsn=listen_dsn) as storage:
        storage.ping()
        storage.rescue()  # what a worker does first; a user who may not work is told here, rather than in the log
        served = Worker(
            storage, concurrency=concurrency, queues=names, grace=grace, fail_unknown=fail_unknown, keep=age
        )
        # Heard before and after run(), too: what comes late must not end the process by itself.
        for number in SIGNALS:
            signal.signal(number, lambda *_: served.ask_to_stop())
        if line is not None:
            line.ready(lambda hurry: served.ask_to_stop(hurry=hurry))
        served.run()
    end_is_near()
    _end_without(EXIT_TIME)


def _end_without(seconds: float) -> None:
    """End the process after so long, also when threads are left that Python would wait for.

    As after asyncio.to_thread in a handler that was given back. What the program does at its exit may take longer.
    """

    def end() -> None:
        names = [thread.name for thread in threading.enumerate() if not thread.daemon]
        log.warning("worker.threads_left", extra={"threads": " ".join(names)})
        logging.shutdown()
        os._exit(0)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    atexit.register(timer.cancel)  # called when those threads have ended


def _fork(processes: int, *, preload: str) -> Line:
    """Become a supervisor; returns in each of its children alone.

    preload: the DSN. What its storage needs is imported before, and shared by all; the user's modules are not.
    """
    if processes < 1:
        raise ConfigurationError(f"processes: {processes} is not allowed; give a whole number above 0")
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


def _import_handlers(modules: tuple[str, ...]) -> None:
    sys.path.insert(0, str(Path.cwd()))
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not (name + ".").startswith(error.name + "."):
                raise
            refuse(f"module: there is no {error.name!r} here or installed; give its dotted name, such as app.tasks")
    if not len(default_registry):
        refuse(f"{', '.join(modules)}: no handlers; decorate functions with @job from pgjobq")


@app.command()
@click.option("--folder", type=click.Path(path_type=Path), help="Where the server's files are kept.")
@click.option("--port", type=int, help="Its port; without it, a free one.")
def dev(*, folder: Path | None, port: int | None) -> None:
    """Run a PostgreSQL server to develop against, with pgjobq installed, until Ctrl-C. Its data stays."""
    from pgjobq.devserver import DevServer, DevServerRunning, default_folder
    from pgjobq.postgres.schema import migrate

    stop: SimpleQueue[int] = SimpleQueue()  # not an event: its set() takes a lock, which a signal may not
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
                    fail(f"the server ended by itself; see {server.folder}/run/log")
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
@click.option("--folder", type=click.Path(path_type=Path), help="Where to write the invoices.")
@click.option(
    "--dsn", default="", show_default=False, help="Another database than PostgreSQL, such as sqlite:///demo.db."
)
def demo(*, keep: bool, folder: Path | None, dsn: str) -> None:
    """See it work: a trigger on an orders table enqueues, a worker writes an invoice for each order."""
    os.environ.pop("PGJOBQ_DSN", None)  # the demo is a world of its own
    if dsn:
        from pgjobq.connect import is_postgres
        from pgjobq.demo.anywhere import run_demo_on

        if is_postgres(dsn):
            refuse("--dsn: the demo brings a PostgreSQL of its own; leave it out, or name another database")
        if keep:
            refuse("--keep: there is no server to keep with --dsn; leave it out")
        check_stays(dsn)
        sys.exit(run_demo_on(dsn, folder=folder))
    from pgjobq.demo import run_demo

    sys.exit(run_demo(keep=keep, folder=folder))
