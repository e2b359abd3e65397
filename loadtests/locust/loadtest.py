"""Run the load test: `make loadtest`. It starts a server, workers and locust, writes a report, and ends all of them.

With --dsn it uses your database, and with --web it shows locust's page. It passes unknown options to locust, whose
locustfile defines more: see docs/howto/load-test.md.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

import psycopg
from options import DEFAULTS, described, variable
from target import Refused, Target, clean, prepare, workers

from pgjobq.devserver import DevServer, DevServerError, die_with_parent
from pgjobq.postgres.schema import migrate

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results"
SHARES = {"ramp": 0.25, "burst": 0.25, "soak": 0.5}  # of --seconds
SIGNALS = (signal.SIGINT, signal.SIGTERM)
PATIENCE = 30.0  # seconds until the workers have started, and until locust has ended after an interrupt
LOCUST = """
All other options are passed to locust, such as --web-port 8090 or --csv-full-history: see locust --help. To run only
some kinds of users, name them at the end, such as SqlEnqueuer EndToEndCaller."""
SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "4GB"}

Process = subprocess.Popen[bytes]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the load test. Return locust's exit status (0 passed, 1 failed, 2 refused), or 130 after an interrupt."""
    options, for_locust = _options(arguments)
    _heed_signals()
    try:
        if options.clean:
            removed = clean(Target(dsn=options.dsn, schema=options.schema, queue=options.queue))
            print(f"load test: removed {removed:,} jobs of the queue {options.queue} and the schema pgjobq_loadtest")
            return 0
        return _run(options, for_locust)
    except (Refused, DevServerError, psycopg.Error) as error:
        print(f"load test: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("load test: interrupted", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace, for_locust: list[str]) -> int:
    folder: Path = options.out or RESULTS / f"loadtest-{time.strftime('%Y%m%d-%H%M%S')}"
    print(f"starting {'' if options.dsn else 'a PostgreSQL server, '}workers and locust ...", flush=True)
    with ExitStack() as stack:
        dsn = options.dsn or stack.enter_context(_server())
        target = Target(dsn=dsn, schema=options.schema, queue=options.queue)
        prepare(target)  # locust does this again, but only after the workers have started
        folder.mkdir(parents=True, exist_ok=True)
        stack.callback(_tell, folder)
        variables = {"PGJOBQ_DSN": dsn, "PGJOBQ_SCHEMA": target.schema}
        if options.workers:
            variables |= stack.enter_context(_crew(options, target, folder, variables))
        process = stack.enter_context(_locust(options, for_locust, folder, variables))
        try:
            return process.wait()
        except KeyboardInterrupt:
            if not options.web:
                raise
            _end(process, signal.SIGINT, PATIENCE)  # Ctrl-C ends the page normally; the last run decides the status
            return process.returncode


@contextmanager
def _server() -> Iterator[str]:
    """Start a durable server with the schema, and yield its DSN."""
    with DevServer(settings=SETTINGS, durable=True) as server:
        migrate(server.dsn)
        yield server.dsn


@contextmanager
def _crew(
    options: argparse.Namespace, target: Target, folder: Path, variables: dict[str, str]
) -> Iterator[dict[str, str]]:
    """Start worker processes for the queue. Yield the environment variables that describe them to locust."""
    command = [sys.executable, "-m", "pgjobq", "worker", "handlers", "--queues", target.queue]
    command += ["--processes", str(options.workers), "--concurrency", str(options.concurrency)]
    runs, log = Path(tempfile.mkdtemp(prefix="runs-", dir=folder)), folder / "workers.log"
    try:
        with target.connect() as conn, log.open("wb") as output:
            others = workers(conn, target)
            written = {"LOADTEST_RUNS": str(runs)}
            with _process([*command, "--log-level", "warning"], variables | written, output=output.fileno()) as crew:
                deadline = time.monotonic() + PATIENCE
                while workers(conn, target) < others + options.workers:
                    if crew.poll() is not None or time.monotonic() > deadline:
                        raise Refused(f"the workers did not start:\n{log.read_text().strip()}")
                    time.sleep(0.05)
                # Other workers of the queue would not record their runs in our folder.
                yield {} if others else written
    finally:
        shutil.rmtree(runs, ignore_errors=True)


@contextmanager
def _locust(
    options: argparse.Namespace, for_locust: list[str], folder: Path, variables: dict[str, str]
) -> Iterator[Process]:
    """Run locust. An interrupt is passed on to it, so that it still runs the checks and writes its report."""
    command = [sys.executable, "-m", "locust", "--locustfile", str(HERE / "locustfile.py"), "--queue", options.queue]
    command += ["--html", str(folder / "report.html"), "--csv", str(folder / "calls")]
    if options.web:
        command += ["--web-host", "127.0.0.1"]
    else:
        command += ["--headless", "--only-summary", "--loglevel", "WARNING"]
    for stage, share in SHARES.items():
        name = variable(f"--{stage}-seconds")
        variables[name] = os.environ.get(name, f"{options.seconds * share:g}")
    with _process([*command, *for_locust], variables, stop=signal.SIGINT, patience=PATIENCE) as process:
        yield process


@contextmanager
def _process(
    command: Sequence[str],
    variables: dict[str, str],
    *,
    output: int | None = None,
    stop: signal.Signals = signal.SIGTERM,
    patience: float = 10.0,
) -> Iterator[Process]:
    """Run a process during the block. Then end it by `stop`. Kill it after `patience` seconds or at an interrupt."""
    process = subprocess.Popen(
        command,
        cwd=HERE,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,  # so that Ctrl-C reaches only this process
        preexec_fn=die_with_parent,  # noqa: PLW1509  # one prctl, and no thread runs yet
    )
    try:
        yield process
    finally:
        _end(process, stop, patience)


def _end(process: Process, number: signal.Signals, patience: float) -> None:
    if process.poll() is not None:
        return
    for heard in SIGNALS:
        signal.signal(heard, lambda *_: process.kill())
    process.send_signal(number)
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _heed_signals() -> None:
    """Make the first SIGINT or SIGTERM raise KeyboardInterrupt."""

    def interrupt(*_: object) -> NoReturn:
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        raise KeyboardInterrupt

    for number in SIGNALS:
        signal.signal(number, interrupt)


def _tell(folder: Path) -> None:
    report = folder / "report.html"
    if report.exists():
        print(f"\nreport   {report}\nfigures  {folder / 'calls_stats.csv'}", flush=True)


def _options(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    locustfile = [f"  {name:26}{variable(name)}\n{'':28}{described(name)}" for name in DEFAULTS if name != "--queue"]
    parser = argparse.ArgumentParser(
        usage="%(prog)s [options] [locust's options] [User ...]",
        description="Load a queue with simulated users, and check that no job is lost.",
        epilog="\n".join(["options of the locustfile, with their environment variables:", *locustfile, LOCUST]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--seconds", type=float, default=60, help="length of ramp, burst and soak together (60)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes; 0 if you run them yourself (2)")
    parser.add_argument("--concurrency", type=int, default=8, help="jobs at once in each (8)")
    parser.add_argument("--dsn", default="", help="your own database (default: a temporary server)")
    parser.add_argument("--schema", default="pgjobq", help="the schema that pgjobq is installed in (pgjobq)")
    parser.add_argument("--queue", default="loadtest", help="a name that begins with loadtest (loadtest)")
    parser.add_argument("--web", action="store_true", help="locust's page on http://127.0.0.1:8089, until Ctrl-C")
    parser.add_argument("--out", type=Path, help="the folder of the report (default: one in loadtests/results)")
    parser.add_argument("--clean", action="store_true", help="remove everything of load tests from the database --dsn")
    options, for_locust = parser.parse_known_args(arguments)
    if options.clean and not options.dsn:
        parser.error("--clean: name the database by --dsn; the temporary server needs no cleaning")
    if options.workers < 0:
        parser.error(f"--workers: {options.workers} is not allowed; give a number of processes from 0")
    if options.out is not None:
        options.out = options.out.absolute()
    return options, for_locust


if __name__ == "__main__":
    sys.exit(main())
