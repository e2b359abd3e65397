"""The ground the measures stand on: a durable server, fresh databases, worker processes that always end."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from pgjobq.devserver import DevServer, die_with_parent
from pgjobq.postgres.schema import migrate

HERE = Path(__file__).parent
PATIENCE = 120.0  # seconds that anything may take
CONCURRENCY = 8  # of each worker
SETTINGS = {
    "shared_buffers": "512MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_preload_libraries": "pg_stat_statements",
}

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: repetitions of a figure and, index for index, of its floor.

    The floor is the same work done bare, or where no work can stand for it, what is promised or where it began.
    """

    measure: str
    name: str
    unit: str
    floor_name: str
    figures: Sequence[float]
    floors: Sequence[float]
    aim: str  # of the ratio
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def figure(self) -> float:
        """The median figure."""
        return statistics.median(self.figures)

    @property
    def floor(self) -> float:
        """The median floor."""
        return statistics.median(self.floors)

    @property
    def ratios(self) -> list[float]:
        """Each repetition's own: figure and floor were taken moments apart, and the machine's speed drifts."""
        return [figure / floor for figure, floor in zip(self.figures, self.floors, strict=True)]

    @property
    def ratio(self) -> float:
        """Their median."""
        return statistics.median(self.ratios)

    def to_dict(self) -> dict[str, Any]:
        """For the JSON."""
        return {
            "measure": self.measure,
            "name": self.name,
            "unit": self.unit,
            "figure": self.figure,
            "floor": self.floor,
            "ratio": self.ratio,
            "aim": self.aim,
            "repetitions": len(self.figures),
            "figures": _spread(self.figures),
            "floors": _spread(self.floors),
            "ratios": _spread(self.ratios),
            "floor_name": self.floor_name,
            "notes": self.notes,
        }


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values), "all": list(values)}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of everything. The defaults are the quick run's."""

    repeat: int = 3
    drain_jobs: int = 60_000
    latency_jobs: int = 300
    enqueue_clients: Sequence[int] = (1, 8, 64)
    enqueue_seconds: int = 2
    bulk_jobs: int = 20_000
    idle_seconds: float = 30
    memory_jobs: int = 100_000
    kills: int = 3


FULL = Sizes(repeat=5, drain_jobs=200_000, enqueue_seconds=5, bulk_jobs=100_000, idle_seconds=120, memory_jobs=500_000)
TINY = Sizes(
    repeat=1,
    drain_jobs=400,
    latency_jobs=20,
    enqueue_clients=(8,),
    enqueue_seconds=1,
    bulk_jobs=2000,
    idle_seconds=1,
    memory_jobs=400,
    kills=1,
)


class Bench:
    """A running server and the sizes; makes databases and workers."""

    def __init__(self, dsn: str, sizes: Sizes) -> None:
        self.sizes, self._dsn = sizes, dsn
        self._count = 0

    @contextmanager
    def database(self, *, like: str = "") -> Iterator[str]:
        """A fresh database with the schema, or a copy of another one; dropped at the end."""
        self._count += 1
        name = f"bench_{self._count}"
        dsn = make_conninfo(self._dsn, dbname=name)
        template = psycopg.conninfo.conninfo_to_dict(like)["dbname"] if like else "template1"
        with psycopg.connect(self._dsn, autocommit=True) as conn:
            conn.execute(f'create database {name} template "{template}"')
            try:
                if not like:
                    migrate(dsn)
                yield dsn
            finally:
                conn.execute(f"drop database {name} with (force)")


@contextmanager
def server() -> Iterator[str]:
    """The DSN of a durable server of the bench's own."""
    with DevServer(settings=SETTINGS, durable=True) as running:
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
def workers(dsn: str, count: int = 1, *, gated: bool = False) -> Iterator[Crew]:
    """Worker processes: imported and waiting for the word (gated), or idle and asleep."""
    options = ["bench_handlers", "--concurrency", str(CONCURRENCY), "--grace", "1", "--log-level", "error"]
    command = [sys.executable, "-m", "pgjobq", "worker", *options]
    with files() as folder, ExitStack() as stack:
        variables = {"PGJOBQ_DSN": dsn, "BENCH_STARTS": str(folder / "starts")}
        if gated:
            variables["BENCH_GO"] = str(folder / "go")
        crew = [stack.enter_context(process(command, variables)) for _ in range(count)]
        if gated:
            wait_until(lambda: len(list(folder.glob("go.*"))) == count, "a worker did not start")
        else:
            wait_asleep(dsn, count)
        yield Crew(folder, [one.pid for one in crew])


@contextmanager
def process(command: Sequence[str], variables: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the bench's own, run beside it; ended at the end, and by the kernel if the bench is killed."""
    running = subprocess.Popen(
        command,
        cwd=HERE,
        env={**os.environ, **variables},
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


def wait_until(done: Callable[[], bool], failure: str, pause: float = 0.02) -> None:
    """Return when done; RuntimeError after PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > deadline:
            raise RuntimeError(failure)
        time.sleep(pause)


def wait_asleep(dsn: str, count: int) -> None:
    """Until so many workers have armed the doorbell, and are past the race that follows it."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        wait_until(lambda: value(conn, "select count(*) from pgjobq.worker_status where asleep") == count, "a worker did not sleep")
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


def about(dsn: str, sizes: Sizes) -> dict[str, Any]:
    """The machine, the versions, the settings."""
    with psycopg.connect(dsn) as conn:
        names = (*SETTINGS, "wal_sync_method", "max_connections")
        return {
            "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "machine": {"cores": os.cpu_count(), "system": platform.platform(), "load_before": os.getloadavg()[0]},
            "versions": {
                "postgresql": value(conn, "show server_version"),
                "python": platform.python_version(),
                **{name: version(name) for name in ("pgjobq", "psycopg", "psycopg-pool")},
                "libpq": psycopg.pq.version(),
                "psycopg_impl": psycopg.pq.__impl__,
            },
            "settings": {name: value(conn, "select current_setting(%s)", [name]) for name in names},
            "sizes": json.loads(json.dumps(vars(sizes))),
        }
