"""Commands that run something: worker, dev, demo."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgjobq.cli.common import EXIT_ERROR, EXIT_USAGE, Dsn, Schema, app, fail, opened, refuse
from pgjobq.cli.logs import configure
from pgjobq.errors import ConfigurationError
from pgjobq.handlers import default_registry

if TYPE_CHECKING:
    from pgjobq.cli.supervisor import Line


@app.command()
def worker(
    modules: Annotated[list[str], typer.Argument(metavar="MODULE...", help="Modules that define handlers: app.tasks.")],
    *,
    queues: Annotated[str | None, typer.Option(help="Queues to serve: mail,default. Without it, all.")] = None,
    concurrency: Annotated[int, typer.Option(help="Jobs at once.")] = 8,
    processes: Annotated[int, typer.Option(help="Worker processes, each with that concurrency.")] = 1,
    grace: Annotated[float, typer.Option(help="Seconds that running jobs have to end at SIGTERM.")] = 30,
    leave_unknown: Annotated[bool, typer.Option("--leave-unknown", help="Leave unknown types to others.")] = False,
    pooled: Annotated[bool, typer.Option("--pooled", help="The DSN leads through a transaction pooler.")] = False,
    listen_dsn: Annotated[str | None, typer.Option(help="A direct DSN for notifications, beside a pooler.")] = None,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log lines as JSON.")] = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    dsn: Dsn = "",
    schema: Schema = "pgjobq",
) -> None:
    """Run jobs until SIGTERM or Ctrl-C; a second one stops at once."""
    configure(as_json=log_json, level=log_level)
    line = _fork(processes, preload=dsn) if processes != 1 else None
    if line is not None:
        configure(as_json=log_json, level=log_level, worker=line.number)
    from pgjobq.worker import Worker

    _import_handlers(modules)
    names = None if queues is None else [name.strip() for name in queues.split(",") if name.strip()]
    with opened(dsn, schema, "pgjobq worker", pooled=pooled, listen_dsn=listen_dsn) as storage:
        storage.ping()
        served = Worker(storage, concurrency=concurrency, queues=names, grace=grace, leave_unknown=leave_unknown)
        if line is not None:
            line.ready(lambda hurry: served.ask_to_stop(hurry=hurry))
        served.run()


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
        raise typer.Exit(supervisor.status)
    return line


def _import_handlers(modules: list[str]) -> None:
    sys.path.insert(0, str(Path.cwd()))
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not (name + ".").startswith(error.name + "."):
                raise
            fail(f"module: there is no {error.name!r} here or installed; give its dotted name, such as app.tasks")
            raise typer.Exit(EXIT_USAGE) from None
    if not len(default_registry):
        fail(f"{', '.join(modules)}: no handlers; decorate functions with @job from pgjobq")
        raise typer.Exit(EXIT_USAGE)


@app.command()
def dev(
    *,
    folder: Annotated[Path | None, typer.Option(help="Where the server's files are kept.")] = None,
    port: Annotated[int | None, typer.Option(help="Its port; without it, a free one.")] = None,
) -> None:
    """Run a PostgreSQL server to develop against, with pgjobq installed, until Ctrl-C. Its data stays."""
    from pgjobq.devserver import DevServer, DevServerRunning, default_folder
    from pgjobq.postgres.schema import migrate

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        with DevServer(folder or default_folder(), port=port, durable=True) as server:
            migrate(server.dsn)
            typer.echo(f"PostgreSQL with pgjobq is running, in {server.folder}. Ctrl-C stops it.\n")
            typer.echo(f"  export PGJOBQ_DSN='{server.dsn}'\n")
            sys.stdout.flush()
            while not stop.wait(0.5):
                if server.pid is None:
                    fail(f"the server ended by itself; see {server.folder}/run/log")
                    raise typer.Exit(EXIT_ERROR)
    except DevServerRunning as running:
        fail(str(running))
        raise typer.Exit(EXIT_ERROR) from None
    typer.echo("stopped")


@app.command()
def demo(
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the server running at the end, until Ctrl-C.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Where to write the invoices.")] = None,
    dsn: Annotated[str, typer.Option(help="Another database than PostgreSQL, such as sqlite:///demo.db.")] = "",
) -> None:
    """See it work: a trigger on an orders table enqueues, a worker writes an invoice for each order."""
    os.environ.pop("PGJOBQ_DSN", None)  # the demo is a world of its own
    if dsn:
        from pgjobq.connect import is_postgres
        from pgjobq.demo.anywhere import run_demo_on

        if is_postgres(dsn):
            refuse("--dsn: the demo brings a PostgreSQL of its own; leave it out, or name another database")
        if keep:
            refuse("--keep: there is no server to keep with --dsn; leave it out")
        raise typer.Exit(run_demo_on(dsn, folder=folder))
    from pgjobq.demo import run_demo

    raise typer.Exit(run_demo(keep=keep, folder=folder))
