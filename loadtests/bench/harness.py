"""What the measures run on: a durable server, fresh databases, worker processes that always end."""

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

LOADTESTS = Path(__file__).parents[1]  # from where the package bench is imported
PATIENCE = 600.0  # seconds that anything may take
CONCURRENCY = 8  # of each worker
LARGE = 200_000_000  # bytes, of a database
SETTINGS = {
    "shared_buffers": "512MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_wal_size": "4GB",  # so that a checkpoint does not fall on one side of a comparison
    "shared_preload_libraries": "pg_stat_statements",
}
WORKER = [sys.executable, "-m", "pgjobq", "worker", "bench.handlers", "--concurrency", str(CONCURRENCY)]
WORKER += ["--grace", "1", "--log-level", "error"]

# Worker 1, as which the floors claim: alive for ever, so that it needs no session.
BY_HAND = "insert into pgjobq.workers (name, heartbeat_at) values ('by hand', 'infinity')"

Connection = psycopg.Connection[Any]
_numbers = itertools.count(1)


class Bench:
    """A running server and the sizes; makes databases. series: what the charts are drawn from."""

    def __init__(self, dsn: str, sizes: Sizes, series: dict[str, Any]) -> None:
        self.dsn, self.sizes, self.series = dsn, sizes, series

    @contextmanager
    def database(self, *, like: str = "", empty: bool = False) -> Iterator[str]:
        """A fresh database with the schema, a copy of another one, or an empty one; dropped at the end."""
        name = f"bench_{next(_numbers)}"
        dsn = make_conninfo(self.dsn, dbname=name)
        template = psycopg.conninfo.conninfo_to_dict(like)["dbname"] if like else "template1"
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            # The default way writes all of it to the log; this one asks for checkpoints, which costs a small one more.
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
    """The DSN of a durable server of the bench's own."""
    with DevServer(settings=SETTINGS, durable=True, environment=environment) as running:
        yield running.dsn


class Crew:
    """Worker processes on one database, and the folder of their files."""

    def __init__(self, folder: Path, pids: Sequence[int]) -> None:
        self._folder, self.pids = folder, pids

    def go(self) -> None:
        """Give the word to workers that were told to wait for it."""
        (self._folder / "go").touch()

    def starts(self) -> list[str]:
        """What the handlers wrote down, a line each."""
        path = self._folder / "starts"
        return path.read_text().splitlines() if path.exists() else []


@contextmanager
def files() -> Iterator[Path]:
    """A folder for what handlers write; removed at the end."""
    with tempfile.TemporaryDirectory(prefix="pgjobq-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextmanager
def workers(dsn: str, count: int = 1, *, gated: bool = False, options: Sequence[str] = ()) -> Iterator[Crew]:
    """Worker processes: imported and waiting for the word (gated), or idle and asleep."""
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
    """That many idle worker processes under one supervisor, asleep."""
    options = ["--processes", str(count), "--queues", queues]
    with files() as folder, process([*WORKER, *options], variables(dsn, folder)) as supervisor:
        wait_asleep(dsn, count, needs=[supervisor])
        yield


def variables(dsn: str, folder: Path) -> dict[str, str]:
    """Of a worker's environment: its database, and where its handlers write."""
    return {"PGJOBQ_DSN": dsn, "BENCH_STARTS": str(folder / "starts")}


@contextmanager
def process(command: Sequence[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the bench's own, run beside it; ended at the end, and by the kernel if the bench is killed."""
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
    """Return when done; RuntimeError after PATIENCE, and when a process that is needed has ended."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > deadline or any(one.poll() is not None for one in needs):
            raise RuntimeError(failure)
        time.sleep(pause)


def wait_asleep(dsn: str, count: int, *, needs: Sequence[subprocess.Popen[bytes]] = ()) -> None:
    """Until so many workers have said that they sleep, and are past the race that follows it."""
    asleep = "select count(*) from pgjobq.worker_status where asleep"
    with psycopg.connect(dsn, autocommit=True) as conn:
        wait_until(lambda: value(conn, asleep) == count, "a worker did not sleep", needs=needs)
    time.sleep(0.3)


def fill(dsn: str, jobs: int, kind: str) -> None:
    """Enqueue jobs, fast."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        for start in range(0, jobs, 5000):
            conn.execute(
                """select count(*) from pgjobq.enqueue_jobs(
                     array(select %s::text from generate_series(%s::integer, %s)),
                     array(select jsonb_build_object('n', n) from generate_series(%s::integer, %s) as n))""",
                [kind, start + 1, min(start + 5000, jobs), start + 1, min(start + 5000, jobs)],
            )


def settle_down(dsn: str) -> None:
    """Leave the database as it is a minute later: vacuumed, analysed, a checkpoint past."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("vacuum analyze")
        conn.execute("checkpoint")


def value(conn: Connection, query: str, arguments: Sequence[Any] = ()) -> Any:
    """The one value of a query's one row."""
    row = conn.execute(query, arguments).fetchone()
    assert row is not None  # an aggregate, or a function, always has one
    return row[0]
