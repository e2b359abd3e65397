"""Measure every storage with the same work in one run: `make bench-storages`.

One worker process with no-op handlers runs on each storage. The figures are the jobs a second while it drains a queue,
and the time until an idle worker starts a single job. They depend on the machine, so compare only figures of the same
run. Storages whose server is not installed are listed without figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LOADTESTS = Path(__file__).parents[1]
sys.path[:0] = [str(LOADTESTS), str(LOADTESTS.parent / "tests")]

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from services import Redis, ServiceMissing, Valkey  # noqa: E402

import pgjobq  # noqa: E402  # as above
from bench.harness import CONCURRENCY, files, process, wait_until  # noqa: E402  # after sys.path was changed
from bench.storage_servers import dynamodb_table, mariadb, mongo, postgres, redis_like, sqlite  # noqa: E402
from pgjobq import BaseStorage, JobStatus, NewJob, open_storage  # noqa: E402

GAP = 0.025  # seconds between two single jobs
AT_ONCE = 500  # jobs per enqueue_many
WARM = 20  # single jobs that are not measured


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A storage and its server. place: starts the server and yields its URL. aim: jobs/s."""

    name: str
    place: Callable[[], Any]
    drain_jobs: int
    latency_jobs: int = 200
    aim: int | None = None


@dataclass(kw_only=True)
class Result:
    """The figures of one storage, or the reason why there are none."""

    name: str
    aim: int | None
    server: str = ""
    missing: str = ""
    enqueued: float = 0.0  # jobs/s, in batches
    drained: list[float] = field(default_factory=list)  # jobs/s
    starts: list[float] = field(default_factory=list)  # milliseconds

    def at(self, share: float) -> float:
        """Return a percentile of the start latency."""
        return sorted(self.starts)[min(len(self.starts) - 1, int(share * len(self.starts)))]

    def to_dict(self) -> dict[str, Any]:
        """Return the result for the JSON file."""
        figures = {"p50": self.at(0.5), "p99": self.at(0.99), "max": max(self.starts)} if self.starts else {}
        return {**vars(self), "start_ms": figures}


CONTENDERS = [
    Contender(name="PostgresStorage", place=postgres, drain_jobs=40_000),
    Contender(name="SQLAlchemyStorage, PostgreSQL", place=lambda: postgres("sqlalchemy+"), drain_jobs=10_000),
    Contender(name="SQLAlchemyStorage, MariaDB", place=mariadb, drain_jobs=10_000, aim=1500),
    Contender(name="SQLAlchemyStorage, SQLite", place=sqlite, drain_jobs=10_000, aim=2000),
    Contender(name="RedisStorage, Valkey", place=lambda: redis_like(Valkey), drain_jobs=20_000, aim=5000),
    Contender(name="RedisStorage, Redis", place=lambda: redis_like(Redis), drain_jobs=20_000, aim=5000),
    Contender(name="MongoStorage, emulator", place=mongo, drain_jobs=600, latency_jobs=60),
    Contender(name="DynamoDBStorage, local", place=dynamodb_table, drain_jobs=200, latency_jobs=40),
]


# -- measures ---------------------------------------------------------------------------------------


def measure(contender: Contender, *, repeat: int, share: float) -> Result:
    """Measure all figures of one storage."""
    result = Result(name=contender.name, aim=contender.aim)
    try:
        with contender.place() as (url, server):
            result.server = server
            for _ in range(repeat):
                enqueued, drained = _drain(url, max(100, int(contender.drain_jobs * share)))
                result.enqueued = max(result.enqueued, enqueued)
                result.drained.append(drained)
            result.starts = _starts(url, max(20, int(contender.latency_jobs * share)))
    except ServiceMissing as missing:
        result.missing = str(missing)
    return result


@contextmanager
def _opened(url: str) -> Iterator[BaseStorage]:
    storage = open_storage(url)
    try:
        yield storage
    finally:
        storage.close()


@contextmanager
def _worker(url: str, folder: Path, **variables: str) -> Iterator[None]:
    options = ["bench.handlers", "--concurrency", str(CONCURRENCY), "--grace", "1", "--log-level", "error"]
    command = [sys.executable, "-m", "pgjobq", "worker", *options]
    with process(command, {"PGJOBQ_DSN": url, "BENCH_STARTS": str(folder / "starts"), **variables}):
        yield


def _drain(url: str, jobs: int) -> tuple[float, float]:
    """Measure the jobs a second of enqueueing in batches, and of a worker from first claim to last completion."""
    with _opened(url) as storage, files() as folder:
        new = [NewJob(type="noop", data={"n": n}) for n in range(jobs)]
        began = time.perf_counter()
        for start in range(0, jobs, AT_ONCE):
            storage.enqueue_many(new[start : start + AT_ONCE])
        enqueued = jobs / (time.perf_counter() - began)
        with _worker(url, folder, BENCH_GO=str(folder / "go")):
            wait_until(lambda: bool(list(folder.glob("go.*"))), "the worker did not start")
            (folder / "go").touch()
            wait_until(lambda: _is_done(storage, new[-1].id), "the drain did not end", 0.1)
            wait_until(lambda: storage.counts()[JobStatus.COMPLETED] >= jobs, "the drain did not end", 0.5)
        mine = {job.id for job in new}
        done = [job for batch in storage.export_jobs() for job in batch if job.id in mine]
        first = min(job.started_at for job in done if job.started_at)
        last = max(job.finished_at for job in done if job.finished_at)
        storage.prune(last - last)
        return enqueued, jobs / max((last - first).total_seconds(), 1e-3)


def _is_done(storage: BaseStorage, job_id: str) -> bool:
    job = storage.get_job(job_id)
    return job is not None and job.status is JobStatus.COMPLETED


def _starts(url: str, jobs: int) -> list[float]:
    """Measure the milliseconds from just before the enqueue of a single job to its handler's first line."""
    with _opened(url) as storage, files() as folder, _worker(url, folder):
        path = folder / "starts"

        def seen() -> list[str]:
            return path.read_text().splitlines() if path.exists() else []

        def send(count: int, expected: int) -> None:
            for _ in range(count):
                storage.enqueue_many([NewJob(type="stamp", data={"sent": time.time()})])
                time.sleep(GAP)
            wait_until(lambda: len(seen()) >= expected, "a job did not start")

        send(1, 1)  # until the worker has started
        send(WARM, WARM + 1)
        send(jobs, WARM + 1 + jobs)
        return [float(line) for line in seen()[WARM + 1 :]]


# -- output -----------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the chosen storages, print the table, write the JSON file, and return the exit status."""
    options = _options(arguments)
    console = Console(width=None if sys.stdout.isatty() else 140)
    began, load = time.monotonic(), os.getloadavg()[0]
    results: list[Result] = []
    for contender in CONTENDERS:
        if options.only and not any(word.lower() in contender.name.lower() for word in options.only.split(",")):
            continue
        console.print(f"measuring {contender.name} ...", style="dim", end=" ")
        results.append(measure(contender, repeat=options.repeat, share=options.share))
        console.print(f"{time.monotonic() - began:.0f} s", style="dim")
    facts = {**_about(), "load_before": load, "seconds": round(time.monotonic() - began, 1), "share": options.share}
    _print(results, console)
    console.print(
        f"\nOne worker process, concurrency {CONCURRENCY}, no-op jobs; medians of {options.repeat} drains."
        f" Python {platform.python_version()}, {os.cpu_count()} cores, load before {load:.1f}; {facts['seconds']:.0f} s"
    )
    out = options.out or LOADTESTS / "results" / f"storages-{time.strftime('%Y%m%d-%H%M%S')}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({**facts, "results": [result.to_dict() for result in results]}, indent=2) + "\n")
    console.print(f"written to {out}", soft_wrap=True)
    if options.docs:
        write_docs(json.loads(out.read_text()))
    return 0


def write_docs(run: dict[str, Any]) -> None:
    """Write the figures of a run of all storages into docs/storage.md, and store the run in docs/figures."""
    page = LOADTESTS.parent / "docs" / "storage.md"
    shown = [result for result in run["results"] if result["name"] != "RedisStorage, Redis"]  # only Valkey is shown
    drained = " | ".join(f"{statistics.median(result['drained']):,.0f}" for result in shown)
    starts = " | ".join(f"{one['start_ms']['p50']:.1f} / {one['start_ms']['p99']:.1f}" for one in shown)
    text = page.read_text()
    for row, cells in (("Jobs a second", drained), ("Start of a lone job, p50 / p99, ms", starts)):
        text = re.sub(rf"(?m)^\| {re.escape(row)} \|.*$", f"| {row} | {cells} |", text)
    text = re.sub(r"load before it: [\d.]+", f"load before it: {run['load_before']:.1f}", text)
    page.write_text(text)
    kept = page.parent / "figures" / "storages.json"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(json.dumps(run, indent=2) + "\n")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure every storage with the same work.")
    parser.add_argument("--only", default="", help="names or parts of names: sqlite,mariadb")
    parser.add_argument("--repeat", type=int, default=2, help="number of drains of each storage (default: 2)")
    parser.add_argument("--share", type=float, default=1.0, help="share of the jobs, such as 0.01 for a test run")
    parser.add_argument("--docs", action="store_true", help="write the figures into docs/storage.md")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write the JSON")
    return parser.parse_args(arguments)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _about() -> dict[str, Any]:
    names = ("psycopg", "sqlalchemy", "pymysql", "redis", "pymongo", "boto3")
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": {"cores": os.cpu_count(), "system": platform.platform()},
        "versions": {
            "python": platform.python_version(),
            "pgjobq": pgjobq.__version__,
            **{name: _version(name) for name in names},
        },
    }


def _print(results: Sequence[Result], console: Console) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("storage", "server"):
        table.add_column(name)
    for name in ("enqueue/s", "drain/s", "aim", "start p50 ms", "p99 ms"):
        table.add_column(name, justify="right")
    for result in results:
        if result.missing:
            table.add_row(result.name, result.missing)
            continue
        drained = statistics.median(result.drained)
        cells = (f"{result.enqueued:,.0f}", f"{drained:,.0f}", f"{result.aim:,}" if result.aim else "")
        table.add_row(result.name, result.server, *cells, f"{result.at(0.5):.1f}", f"{result.at(0.99):.1f}")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
