"""Tests that the comparison of storages in the documentation is true, by trying each entry on its storage."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
import pytest
from helpers.places import place
from psycopg.conninfo import conninfo_to_dict
from services import MariaDB, SecantusDB, Server, Valkey, dynamodb

from pgjobq import BaseStorage, NewJob, Unsupported, open_storage
from pgjobq.storage.leased import LeasedStorage
from pgjobq.storage.sqlalchemy_storage import SQLAlchemyStorage

PAGE = Path(__file__).parents[2] / "docs" / "storage.md"
COLUMNS = ["postgres", "sqlalchemy+postgres", "mariadb", "sqlite", "redis", "mongo", "dynamodb"]
PATIENCE = 3.0  # seconds that a worker sleeps unless it is woken


def table() -> dict[str, dict[str, str]]:
    """Return the rows of the comparison, each with its entry for each storage."""
    lines = re.findall(r"(?m)^\| (.+) \|$", PAGE.read_text().split("## Choose")[1].split("\n## ")[0])
    rows = [[cell.strip() for cell in line.split(" | ")] for line in lines]
    return {row[0]: dict(zip(COLUMNS, row[1:], strict=True)) for row in rows if not row[0].startswith("|")}


@pytest.fixture
def url(request: pytest.FixtureRequest, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of a database of the kind that the test is about."""
    kind: str = request.getfixturevalue("kind")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    if "postgres" in kind:
        parts = conninfo_to_dict(dsn)
        plain = "postgresql://{user}:{password}@{host}:{port}/{dbname}".format_map(parts)
        return plain if kind == "postgres" else f"sqlalchemy+{plain}"
    return place(kind, request, tmp_path)


@pytest.fixture
def opened(url: str) -> Iterator[Callable[..., BaseStorage]]:
    """Return a function that creates storages on the database. They are closed at the end."""
    made: list[BaseStorage] = []

    def make(**options: Any) -> BaseStorage:
        made.append(open_storage(url, **options))
        return made[-1]

    yield make
    for storage in made:
        storage.close()


def yes_or_no(text: str) -> bool:
    assert text in ("yes", "no"), text
    return text == "yes"


@pytest.mark.parametrize("kind", COLUMNS)
def test_enqueue_in_the_callers_transaction(kind: str, url: str, opened: Callable[..., BaseStorage]) -> None:
    storage = opened()
    storage.ping()

    def enqueue(job_id: str, *, commit: bool) -> None:
        if isinstance(storage, SQLAlchemyStorage):
            with storage.engine.connect() as conn:
                storage.enqueue_many([NewJob(id=job_id, type="t")], conn)
                (conn.commit if commit else conn.rollback)()
        elif kind == "postgres":
            with psycopg.connect(url) as conn:
                storage.enqueue_many([NewJob(id=job_id, type="t")], conn)
                (conn.commit if commit else conn.rollback)()
        else:
            storage.enqueue_many([NewJob(id=job_id, type="t")], object())

    if not yes_or_no(table()["Enqueue in your transaction"][kind]):
        with pytest.raises(Unsupported):
            enqueue("a", commit=True)
        return
    enqueue("rolled-back", commit=False)
    enqueue("committed", commit=True)
    assert [job.id for job in storage.list_jobs()] == ["committed"]


@pytest.mark.parametrize("kind", COLUMNS)
def test_complete_in_the_handlers_transaction(kind: str, opened: Callable[..., BaseStorage]) -> None:
    storage = opened()
    storage.enqueue("a", "t", {})
    job = next(job for job in iter(storage.dequeue, "never") if job is not None)
    if not yes_or_no(table()["Complete in the handler's transaction"][kind]):
        with pytest.raises(Unsupported):
            storage.transaction(job)
        return
    with pytest.raises(ZeroDivisionError), storage.transaction(job):
        raise ZeroDivisionError
    with storage.transaction(job):
        still = storage.get_job("a")
        assert still is not None
        assert still.status == "running"
    done = storage.get_job("a")
    assert done is not None
    assert done.status == "completed"


@pytest.mark.parametrize("kind", COLUMNS)
def test_idle_worker_is_woken_or_polls(kind: str, opened: Callable[..., BaseStorage]) -> None:
    """The worker has been idle for long. Another storage object enqueues, as another process would."""
    worker, enqueuer = opened(poll_interval=60), opened()
    woken = {"is woken": True, "polls": False}[table()["An idle worker"][kind]]
    assert worker.dequeue() is None
    enqueuer.ping()
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:  # until it is asleep
        _wait(worker, deadline - time.monotonic())
    later = threading.Timer(0.3, lambda: enqueuer.enqueue("a", "t", {}))
    later.start()
    began = time.monotonic()
    while time.monotonic() < began + PATIENCE and worker.dequeue() is None:
        _wait(worker, began + PATIENCE - time.monotonic())
    waited = time.monotonic() - began
    later.join()
    assert (waited < PATIENCE) == woken


def _wait(worker: BaseStorage, seconds: float) -> None:
    if isinstance(worker, LeasedStorage):
        worker._pause = 60.0  # the pause of a worker that has been idle for long
    if seconds > 0:
        worker.wait(seconds)


@pytest.mark.parametrize("kind", COLUMNS)
def test_jobs_outlive_a_kill(
    kind: str, url: str, own_server: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test kills the server, or the process that enqueued if the storage has no server."""
    assert table()["Outlives a kill of its server"][kind] in ("yes", "yes, with `appendfsync always`")
    servers: dict[str, Callable[..., Server]] = {
        "mariadb": MariaDB,
        "redis": Valkey,
        "mongo": SecantusDB,
        "dynamodb": dynamodb,
    }
    if kind in servers:
        server = own_server(servers[kind], durable=True)
        mine = f"dynamodb://test/jobs?endpoint={server.url}" if kind == "dynamodb" else server.url
        storage = open_storage(mine)
        storage.enqueue("a", "t", {})
        storage.close()
        server.kill()
        server.start()
    else:
        mine = url
        program = (
            "import os, sys, pgjobq; pgjobq.open_storage(sys.argv[1]).enqueue('a', 't', {}); os.kill(os.getpid(), 9)"
        )
        assert subprocess.run([sys.executable, "-c", program, mine], check=False, timeout=30).returncode == -9
        if "postgres" in kind:
            return  # PostgreSQL's own tests show that it keeps committed data
    storage = open_storage(mine)
    assert [job.id for job in storage.list_jobs()] == ["a"]
    storage.close()


def test_figures_are_from_the_stored_run() -> None:
    """The page has the figures of the stored run. loadtests/bench/storages.py --docs writes both."""
    run = json.loads((PAGE.parent / "figures" / "storages.json").read_text())
    results = [result for result in run["results"] if result["name"] != "RedisStorage, Redis"]
    assert [result["missing"] for result in results] == [""] * len(COLUMNS)
    rows = table()
    for kind, result in zip(COLUMNS, results, strict=True):
        assert rows["Jobs a second"][kind] == f"{median(result['drained']):,.0f}"
        p50, p99 = result["start_ms"]["p50"], result["start_ms"]["p99"]
        assert rows["Start of a lone job, p50 / p99, ms"][kind] == f"{p50:.1f} / {p99:.1f}"
