"""The command line on every storage: the same commands, and clear refusals of those that only PostgreSQL has."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from helpers.cli import DONE, HANDLERS, NOT_DONE, NOT_FOUND, USAGE, Cli
from helpers.places import KINDS, place
from helpers.until import until

from pgjobq import BaseStorage, Job, open_storage

AWS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty database."""
    for name in AWS:
        monkeypatch.setenv(name, "test")
    return place(request.param, request, tmp_path)


@pytest.fixture
def storage(url: str) -> Iterator[BaseStorage]:
    storage = open_storage(url, lease=5)
    yield storage
    storage.close()


@pytest.fixture
def cli(url: str, tmp_path: Path) -> Iterator[Cli]:
    """The command line on the storage, through PGJOBQ_DSN."""
    (tmp_path / "handlers.py").write_text(HANDLERS)
    cli = Cli(url, tmp_path)
    for name in AWS:
        cli.environment[name] = "test"
    yield cli
    for process in cli.started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def take(storage: BaseStorage, count: int) -> list[Job]:
    """Dequeue this many jobs. Repeat the call, because an index may be eventually consistent."""
    jobs: list[Job] = []

    def all_there() -> bool:
        jobs.extend(storage.dequeue_many(count - len(jobs)))
        return len(jobs) == count

    until(all_there)
    return jobs


def test_job_from_enqueue_to_completion(cli: Cli, tmp_path: Path) -> None:
    words = ["--priority", "9", "--queue", "mail", "--max-retries", "1", "--id", "mine"]
    assert cli.said("enqueue", "touch", '{"name": "Ünal"}', *words) == "mine\n"
    job = cli.json("show", "mine")
    assert (job["type"], job["data"], job["queue"], job["priority"]) == ("touch", {"name": "Ünal"}, "mail", 9)
    assert (job["max_retries"], job["status"], job["attempts"]) == (1, "pending", 0)
    worker = cli.start("worker", "handlers", "--queues", "mail")
    until((tmp_path / "Ünal").exists)
    until(lambda: cli.json("show", "mine")["status"] == "completed")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == DONE
    assert [line.split()[2] for line in cli.log().splitlines()] == ["worker.started", "worker.signal", "worker.stopped"]
    assert "completed" in cli.said("list")
    assert cli.json("show", "mine")["attempts"] == 1


def test_list_filters(cli: Cli, storage: BaseStorage) -> None:
    for n in range(3):
        cli.said("enqueue", "t", "--id", f"d{n}")
    cli.said("enqueue", "t", "--id", "m0", "--queue", "mail", "--priority", "9")
    take(storage, 1)
    storage.fail("m0", "ValueError: [bold]no luck[/]\nTraceback")

    def ids(*words: str) -> list[str]:
        return [job["id"] for job in cli.json("list", *words)]

    until(lambda: ids() == ["m0", "d2", "d1", "d0"])
    assert ids("--limit", "2") == ["m0", "d2"]
    assert ids("--limit", "0") == []
    assert ids("--status", "failed") == ["m0"]
    assert ids("--queue", "mail") == ["m0"]
    assert ids("--queue", "none") == []
    assert ids("--queue", "default", "--status", "pending", "--limit", "1") == ["d2"]
    assert "ValueError: [bold]no luck[/]" in cli.said("list")
    assert "--status: 'done' is not a status; use pending, running" in cli.complaint(USAGE, "list", "--status", "done")
    assert "limit: " in cli.complaint(USAGE, "list", "--limit", "-1")


def test_retry_and_cancel(cli: Cli, storage: BaseStorage) -> None:
    for name in "abc":
        storage.enqueue(name, "t", {})
    take(storage, 3)
    for name in "ab":
        storage.fail(name, "broken")
    storage.complete("c")
    assert cli.said("retry", "a", "b", "--delay", "60") == "a\nb\n"
    job = cli.json("show", "a")
    assert (job["status"], job["error"]) == ("pending", "broken")
    waits = datetime.fromisoformat(job["execute_at"]) - datetime.fromisoformat(job["updated_at"])
    assert timedelta(seconds=59) < waits < timedelta(seconds=61)
    assert cli.said("cancel", "a") == "a\n"
    assert "'a' is already finished" in cli.complaint(NOT_DONE, "cancel", "a")
    assert "'c' is completed" in cli.complaint(NOT_DONE, "retry", "c")
    assert "there is no job 'x'" in cli.complaint(NOT_FOUND, "retry", "x")
    assert "there is no job 'x'" in cli.complaint(NOT_FOUND, "cancel", "x")
    assert "there is no job 'x'" in cli.complaint(NOT_FOUND, "show", "x")


def test_stats_and_prune(cli: Cli, storage: BaseStorage) -> None:
    for name in "abc":
        storage.enqueue(name, "t", {})
    (held,) = take(storage, 1)
    storage.complete(held.id)
    until(lambda: sum(row["jobs"] for row in cli.json("stats")["jobs"]) == 3)
    jobs: dict[str, int] = {}
    for row in cli.json("stats")["jobs"]:
        jobs[row["status"]] = jobs.get(row["status"], 0) + row["jobs"]
    assert jobs == {"pending": 2, "completed": 1}
    assert re.search(r"(?m) completed +1", cli.said("stats"))
    assert cli.said("prune", "--days", "1") == "0 jobs deleted\n"
    until(lambda: cli.said("prune", "--days", "0") == "1 jobs deleted\n")
    for days in ("-1", "nan", "1e300"):
        cli.complaint(USAGE, "prune", "--days", days)
    assert len(cli.json("list")) == 2


def test_existing_id_is_refused(cli: Cli) -> None:
    cli.said("enqueue", "t", "--id", "a")
    assert "job_id: " in cli.complaint(NOT_DONE, "enqueue", "t", "--id", "a")


def test_next_worker_runs_the_jobs_of_a_dead_worker(cli: Cli, tmp_path: Path, storage: BaseStorage) -> None:
    """The worker's lease has to run out. It is only 5 seconds here."""
    cli.said("enqueue", "hold", '{"name": "h"}', "--id", "held")
    take(storage, 1)
    storage.close()  # without leave(), as if the process had died
    (tmp_path / "go").touch()
    cli.start("worker", "handlers")
    until(lambda: cli.json("show", "held")["status"] == "completed", 30)
    assert cli.json("show", "held")["attempts"] == 2


# -- commands and options that only PostgreSQL has ---------------------------------------------------

NOWHERE = [
    "sqlite:///{folder}/jobs.db",
    "mysql+pymysql://u:s3cret@127.0.0.1:1/app",
    "redis://u:s3cret@127.0.0.1:1/0",
    "mongodb://u:s3cret@127.0.0.1:1",
    "dynamodb://nowhere/jobs?endpoint=http://127.0.0.1:1",
]


@pytest.fixture
def lone(tmp_path: Path) -> Cli:
    return Cli("", tmp_path)


@pytest.mark.parametrize("dsn", NOWHERE)
def test_commands_for_postgresql_are_refused(lone: Cli, tmp_path: Path, dsn: str) -> None:
    dsn = dsn.format(folder=tmp_path)
    for command in ("migrate", "check", "repair"):
        said = lone.complaint(USAGE, command, "--dsn", dsn)
        assert said.startswith(f"pgjobq: {command}: only for PostgreSQL; ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dsn", NOWHERE)
@pytest.mark.parametrize(
    "words",
    [
        ["list", "--schema", "jobs"],
        ["enqueue", "t", "--schema", "jobs"],
        ["worker", "handlers", "--pooled"],
        ["worker", "handlers", "--listen-dsn", "postgresql://h/d"],
        ["worker", "handlers", "--schema", "jobs"],
    ],
)
def test_options_for_postgresql_are_refused(lone: Cli, tmp_path: Path, dsn: str, words: list[str]) -> None:
    (tmp_path / "handlers.py").write_text(HANDLERS)
    option = next(word for word in words if word.startswith("--"))
    said = lone.complaint(USAGE, *words, "--dsn", dsn.format(folder=tmp_path))
    assert said == f"pgjobq: {option}: this option is only for PostgreSQL; leave it out for other databases\n"


def test_schema_in_the_environment_is_ignored(lone: Cli, tmp_path: Path) -> None:
    lone.environment["PGJOBQ_SCHEMA"] = "jobs"
    lone.said("enqueue", "t", "--dsn", f"sqlite:///{tmp_path / 'jobs.db'}")


@pytest.mark.parametrize("dsn", ["sqlite://", "sqlite:///:memory:", "sqlite+pysqlite:///:memory:"])
def test_database_in_memory_is_refused(lone: Cli, dsn: str) -> None:
    assert "dsn: a database in memory ends with this command; use a file" in lone.complaint(
        USAGE, "enqueue", "t", "--dsn", dsn
    )


@pytest.mark.parametrize("dsn", NOWHERE[1:])
@pytest.mark.parametrize("words", [["list"], ["enqueue", "t"], ["worker", "handlers"]])
def test_unreachable_database_is_reported_in_one_line(lone: Cli, tmp_path: Path, dsn: str, words: list[str]) -> None:
    (tmp_path / "handlers.py").write_text(HANDLERS)
    for name in AWS:
        lone.environment[name] = "test"
    said = lone.complaint(NOT_DONE, *words, "--dsn", dsn)
    assert "127.0.0.1" in said
    assert "s3cret" not in said


def test_data_is_stored_unchanged(cli: Cli) -> None:
    data: dict[str, Any] = {"text": "ü" * 50_000, "n": [1, -2.5, None, True, {"": {}}]}
    job_id = cli.said("enqueue", "t", "-", stdin=json.dumps(data)).strip()
    assert cli.json("show", job_id)["data"] == data
