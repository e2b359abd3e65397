"""The environment of the measures: a durable server, new databases, and worker processes that are always ended."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from bench.sizes import Sizes
from pgjobq.devserver import DevServer, die_with_parent
from pgjobq.postgres.schema import migrate

LOADTESTS = Path(__file__).parents[1]  # the folder that contains the package bench
PATIENCE = 600.0  # seconds, the limit for any wait
CONCURRENCY = 8  # of each worker
LARGE = 200_000_000  # bytes, of a database
SETTINGS = {
    "shared_buffers": "512MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_wal_size": "4GB",  # so that no checkpoint disturbs one side of a comparison
    "shared_preload_libraries": "pg_stat_statements",
}
WORKER = [sys.executable, "-m", "pgjobq", "worker", "bench.handlers", "--concurrency", str(CONCURRENCY)]
WORKER += ["--grace", "1", "--log-level", "error"]

# The floors claim as worker 1. Its heartbeat never expires, so it needs no session.
BY_HAND = "insert into pgjobq.workers (name, heartbeat_at) values ('by hand', 'infinity')"

Connection = psycopg.Connection[Any]
_numbers = itertools.count(1)


class Bench:
    """A running server and the sizes of the run. series: the data for the charts."""

    def __init__(self, dsn: str, sizes: Sizes, series: dict[str, Any]) -> None:
        self.dsn, self.sizes, self.series = dsn, sizes, series

    @contextmanager
    def database(self, *, like: str = "", empty: bool = False) -> Iterator[str]:
        """Create a database with the schema, a copy of another one, or an empty one. It is dropped at the end."""
        name = f"bench_{next(_numbers)}"
        dsn = make_conninfo(self.dsn, dbname=name)
        template = psycopg.conninfo.conninfo_to_dict(like)["dbname"] if like else "template1"
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            # The default strategy writes the whole copy to the WAL. This one makes checkpoints, which cost a small
            # database more.
            large = value(conn, "select pg_database_size(%s)", [template]) > LARGE
            by_files = "strategy file_copy" if large and conn.info.server_version >= 150000 else ""
            conn.execute(f'create database {name} template "{template}" {by_files}')
            try:
                if not (like or empty):
                    migrate(dsn)
                    with psycopg.connect(dsn, autocommit=True) as migrated:
                        migrated.execute(BY_HAND)
                yield dsn
            finally:
                conn.execute(f"drop database {name} with (force)")


@contextmanager
def server(environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """Start a durable server for the bench, and yield its DSN."""
    with DevServer(settings=SETTINGS, durable=True, environment=environment) as running:
        yield running.dsn


class Crew:
    """Worker processes on one database, and the folder of their files."""

    def __init__(self, folder: Path, pids: Sequence[int]) -> None:
        self._folder, self.pids = folder, pids

    def go(self) -> None:
        """Let the gated workers start."""
        (self._folder / "go").touch()

    def starts(self) -> list[str]:
        """Return the lines that the handlers have written."""
        path = self._folder / "starts"
        return path.read_text().splitlines() if path.exists() else []


@contextmanager
def files() -> Iterator[Path]:
    """Create a folder for the files of the handlers. It is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="pgjobq-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextmanager
def workers(dsn: str, count: int = 1, *, gated: bool = False, options: Sequence[str] = ()) -> Iterator[Crew]:
    """Start worker processes. Gated workers wait after their imports until go(); others are asleep."""
    with files() as folder, ExitStack() as stack:
        environment = variables(dsn, folder)
        if gated:
            environment["BENCH_GO"] = str(folder / "go")
        crew = [stack.enter_context(process([*WORKER, *options], environment)) for _ in range(count)]
        if gated:
            wait_until(lambda: len(list(folder.glob("go.*"))) == count, "a worker did not start", needs=crew)
        else:
            wait_asleep(dsn, count, needs=crew)
        yield Crew(folder, [one.pid for one in crew])


@contextmanager
def fleet(dsn: str, count: int, *, queues: str = "default") -> Iterator[None]:
    """Start this number of worker processes under one supervisor, and wait until they are asleep."""
    options = ["--processes", str(count), "--queues", queues]
    with files() as folder, process([*WORKER, *options], variables(dsn, folder)) as supervisor:
        wait_asleep(dsn, count, needs=[supervisor])
        yield


def variables(dsn: str, folder: Path) -> dict[str, str]:
    """Return the environment variables of a worker: its database, and the files of its handlers."""
    return {"PGJOBQ_DSN": dsn, "BENCH_STARTS": str(folder / "starts")}


@contextmanager
def process(command: Sequence[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process during the block. The kernel ends it if the bench is killed."""
    running = subprocess.Popen(
        command,
        cwd=LOADTESTS,
        env={**os.environ, **environment},
        start_new_session=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509  # one prctl, which takes no lock
    )
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(5)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def wait_until(
    done: Callable[[], bool], failure: str, pause: float = 0.02, *, needs: Sequence[subprocess.Popen[bytes]] = ()
) -> None:
    """Wait until done() is true. Raise RuntimeError after PATIENCE, or if a process has ended that is needed."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > deadline or any(one.poll() is not None for one in needs):
            raise RuntimeError(failure)
        time.sleep(pause)


def wait_asleep(dsn: str, count: int, *, needs: Sequence[subprocess.Popen[bytes]] = ()) -> None:
    """Wait until this number of workers is asleep, and has no open transactions left to wait for."""
    asleep = "select count(*) from pgjobq.worker_status where asleep"
    with psycopg.connect(dsn, autocommit=True) as conn:
        wait_until(lambda: value(conn, asleep) == count, "a worker did not sleep", needs=needs)
    time.sleep(0.3)


def fill(dsn: str, jobs: int, kind: str) -> None:
    """Enqueue this number of jobs by enqueue_jobs."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        for start in range(0, jobs, 5000):
            conn.execute(
                """select count(*) from pgjobq.enqueue_jobs(
                     array(select %s::text from generate_series(%s::integer, %s)),
                     array(select jsonb_build_object('n', n) from generate_series(%s::integer, %s) as n))""",
                [kind, start + 1, min(start + 5000, jobs), start + 1, min(start + 5000, jobs)],
            )


def settle_down(dsn: str) -> None:
    """Vacuum and analyse the database, and make a checkpoint."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("vacuum analyze")
        conn.execute("checkpoint")


def value(conn: Connection, query: str, arguments: Sequence[Any] = ()) -> Any:
    """Return the single value of a query."""
    row = conn.execute(query, arguments).fetchone()
    assert row is not None  # an aggregate or a function always returns a row
    return row[0]
