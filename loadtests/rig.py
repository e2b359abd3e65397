"""What the measures stand on: a server, fresh databases, worker processes, filled queues."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from pgjobq import JobQueue
from pgjobq.devserver import DevServer, die_with_parent
from pgjobq.postgres.schema import migrate

HERE = Path(__file__).parent
PATIENCE = 120.0  # seconds that anything may take


@dataclass(frozen=True)
class Row:
    """One line of the table: repetitions of a figure, and of its floor, the same work done bare."""

    name: str
    unit: str
    figure: Sequence[float]
    floor: Sequence[float] | None = None

    @property
    def ratio(self) -> float | None:
        """Median figure / median floor."""
        return None if self.floor is None else statistics.median(self.figure) / statistics.median(self.floor)

    def to_dict(self) -> dict[str, Any]:
        """For the JSON."""
        return {**asdict(self), "ratio": self.ratio}


@contextmanager
def server(settings: Mapping[str, str]) -> Iterator[str]:
    """A durable server of the bench's own; its DSN."""
    with tempfile.TemporaryDirectory(prefix="pgjobq-bench-") as folder:
        Path(folder).chmod(0o711)
        with DevServer(Path(folder) / "server", settings=settings, durable=True) as running:
            yield running.dsn


class Bench:
    """Fresh databases, worker processes and sizes for the measures."""

    def __init__(self, dsn: str, scale: float, repeat: int) -> None:
        self._dsn, self._scale, self.repeat = dsn, scale, repeat

    def size(self, full: int, least: int = 50) -> int:
        """A number of jobs, scaled."""
        return max(least, int(full * self._scale))

    def seconds(self, full: float, least: float = 1.0) -> float:
        """A time, scaled."""
        return max(least, full * self._scale)

    @contextmanager
    def database(self) -> Iterator[str]:
        """A fresh database with the schema; dropped at the end."""
        dsn = make_conninfo(self._dsn, dbname="bench")
        with psycopg.connect(self._dsn, autocommit=True) as conn:
            conn.execute("drop database if exists bench with (force)")
            conn.execute("create database bench")
            migrate(dsn)
            yield dsn
            conn.execute("drop database bench with (force)")

    @contextmanager
    def worker(self, dsn: str) -> Iterator[subprocess.Popen[bytes]]:
        """A worker process, ready and asleep."""
        command = [
            sys.executable,
            "-m",
            "pgjobq",
            "worker",
            "bench_handlers",
            "--concurrency",
            "8",
            "--log-level",
            "error",
        ]
        process = subprocess.Popen(
            command,
            cwd=HERE,
            env={**os.environ, "PGJOBQ_DSN": dsn},
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509  # one prctl, which takes no lock
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(PATIENCE)


def fill(dsn: str, jobs: int, kind: str) -> None:
    """Enqueue so many jobs of a kind, and let the server settle down."""
    with JobQueue(dsn) as queue:
        for start in range(0, jobs, 1000):
            queue.enqueue_many([queue.new_job(kind, {"n": n}) for n in range(start, min(start + 1000, jobs))])
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("vacuum analyze")
        conn.execute("checkpoint")


def drained(dsn: str, jobs: int) -> float:
    """Seconds from the first start to the last completion, as the rows tell."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        deadline = time.monotonic() + PATIENCE
        while conn.execute("select count(*) from pgjobq.ready").fetchone() != (0,) or conn.execute(
            "select count(*) from pgjobq.claims"
        ).fetchone() != (0,):
            assert time.monotonic() < deadline, "the drain did not end"
            time.sleep(0.05)
        row = conn.execute(
            """select count(*), extract(epoch from max(finished_at) - min(started_at))::float8
                 from pgjobq.jobs where status = 'completed'"""
        ).fetchone()
        assert row is not None
        assert row[0] == jobs
        return max(float(row[1]), 1e-3)


def asleep(dsn: str) -> None:
    """Wait until a worker sleeps."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        deadline = time.monotonic() + PATIENCE
        while conn.execute("select count(*) from pgjobq.doorbell").fetchone() == (0,):
            assert time.monotonic() < deadline, "the worker did not fall asleep"
            time.sleep(0.02)
    time.sleep(0.5)
