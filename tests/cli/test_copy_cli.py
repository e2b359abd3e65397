"""pgjobq copy as a process, between schemas and from a table of DBJobQ."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers.until import until
from psycopg.conninfo import conninfo_to_dict

from pgjobq import NewJob, Worker, job, open_storage
from pgjobq.handlers import Registry
from pgjobq.postgres.schema import migrate
from pgjobq.storage.postgres_storage import PostgresStorage

Connection = psycopg.Connection[Any]
DONE, NOT_DONE, USAGE = 0, 1, 2

# The table that DBJobQ creates, with typical rows.
DBJOBQ = """
create table jobs (
    id varchar primary key,
    type varchar not null,
    data text not null,
    status varchar not null,
    error text,
    attempts integer default 0,
    max_retries integer default 3,
    priority integer default 5,
    execute_at timestamp,
    created_at timestamp default current_timestamp,
    updated_at timestamp default current_timestamp
);
create index idx_status_priority on jobs(status, priority desc);
create index idx_execute_at on jobs(execute_at);
"""
ROWS = """
insert into jobs values
    ('p', 'greet', '{"name": "Ünal"}', 'pending', null, 0, 3, 9, null, '2024-01-01 10:00:00', '2024-01-01 10:00:00'),
    ('l', 'greet', '{"name": "l"}', 'pending', 'ValueError: x', 2, 3, 5, '2090-01-01 00:00:00', '2024-01-02 10:00:00', '2024-01-02 10:00:00'),
    ('r', 'greet', '{"name": "r"}', 'running', null, 1, 3, 5, null, '2024-01-03 10:00:00', '2024-01-03 10:00:00'),
    ('c', 'greet', '{"name": "c"}', 'completed', null, 1, 3, 5, null, '2024-01-04 10:00:00.123456', '2024-01-04 10:00:01'),
    ('f', 'greet', '{"name": "f"}', 'failed', 'ValueError: y', 4, 3, 5, null, '2024-01-05 10:00:00', '2024-01-05 10:00:01');
"""


class Cli:
    """Runs `pgjobq copy`."""

    def __init__(self, folder: Path) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        self._folder, self._environment = folder, kept | {"PYTHONUNBUFFERED": "1"}

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "pgjobq", "copy", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self._folder,
            env=self._environment,
        )

    def run(self, *words: str) -> tuple[int, str, str]:
        """Run the command and return its exit status, stdout and stderr."""
        process = self.start(*words)
        output, complaints = process.communicate(timeout=60)
        return process.returncode, output, complaints


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


@pytest.fixture
def old(tmp_path: Path) -> sqlite3.Connection:
    """A file old.db of DBJobQ with one job in each state."""
    conn = sqlite3.connect(tmp_path / "old.db")
    conn.executescript(DBJOBQ + ROWS)
    return conn


@pytest.fixture
def other(dsn: str) -> Iterator[PostgresStorage]:
    """An empty storage in the schema `other`."""
    migrate(dsn, schema="other", public_function=False)
    storage = PostgresStorage(dsn, schema="other")
    yield storage
    storage.close()


# -- from schema to schema --------------------------------------------------------------------------


def test_copy_reports_its_counts_and_can_run_again(
    cli: Cli, dsn: str, storage: PostgresStorage, other: PostgresStorage
) -> None:
    storage.enqueue_many([NewJob(type="t", id=str(n)) for n in range(5)])
    words = (dsn, dsn, "--dst-schema", "other")
    assert cli.run(*words, "--batch", "2") == (DONE, "5 jobs copied, 0 were already there\n", "")
    assert cli.run(*words) == (DONE, "0 jobs copied, 5 were already there\n", "")
    assert len(other.list_jobs()) == 5


def test_copy_warns_of_a_worker_at_the_source(cli: Cli, dsn: str, storage: PostgresStorage, other: Any) -> None:
    storage.enqueue("a", "t", {})
    assert storage.dequeue() is not None
    status, output, complaints = cli.run(dsn, dsn, "--dst-schema", "other")
    assert (status, output) == (
        DONE,
        "1 jobs copied, 0 were already there, 1 were running at SRC and are pending at DST if they have a try left\n",
    )
    assert "note: 1 workers are running on SRC; stop them first" in complaints


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{dsn}", "{dsn}"], "SRC and DST are the same"),
        (["{dsn}", "{dsn}", "--dst-schema", "nowhere"], "run: pgjobq migrate"),
        (["{dsn}", "{dsn}", "--dst-schema", "other", "--batch", "0"], "batch: 0 is not allowed"),
        (["nosql://x", "{dsn}"], "dsn: no storage supports nosql://"),
        (["{dsn}", "nosql://x"], "dsn: no storage supports nosql://"),
        (["postgresql://u:s3cret@127.0.0.1:1/app", "{dsn}"], "PostgreSQL does not answer"),
        (["sqlite:///missing.db", "{dsn}"], "SRC: there is no file 'missing.db'"),
        (["sqlite:///", "{dsn}"], "SRC: there is no file"),
        (["sqlite:///old.db", "{dsn}", "--src-schema", "x"], "--src-schema: this option is only for PostgreSQL"),
    ],
)
def test_invalid_options_are_refused_with_a_remedy(
    cli: Cli, dsn: str, words: list[str], message: str, tmp_path: Path
) -> None:
    parts = conninfo_to_dict(dsn)
    url = "postgresql://{user}:{password}@{host}:{port}/{dbname}".format_map(parts)
    status, output, complaints = cli.run(*(word.format(dsn=url) for word in words))
    assert status == (NOT_DONE if "migrate" in message or "answer" in message else USAGE)
    assert output == ""
    assert complaints.count("\n") == 1
    assert re.match(f"pgjobq: .*{re.escape(message)}", complaints)
    assert "s3cret" not in complaints
    assert list(tmp_path.iterdir()) == []


def test_interrupted_copy_reports_its_counts_and_can_be_resumed(
    cli: Cli, dsn: str, storage: PostgresStorage, other: PostgresStorage, conn: Connection
) -> None:
    storage.enqueue_many([NewJob(type="t", id=f"{n:04}") for n in range(2000)])
    words = (dsn, dsn, "--dst-schema", "other", "--batch", "50")
    # The copy waits for this lock at job 1000, so the second half is not copied before the signal.
    conn.execute(
        "create function other.hold() returns trigger language plpgsql as $$ begin perform pg_advisory_xact_lock(4711); return null; end $$"
    )
    conn.execute(
        "create trigger hold after insert on other.jobs for each row when (new.id = '1000') execute function other.hold()"
    )
    conn.execute("select pg_advisory_lock(4711)")
    process = cli.start(*words)
    waits = "select exists (select from pg_locks where locktype = 'advisory' and objid = 4711 and not granted)"
    until(lambda: conn.execute(waits).fetchone() == (True,), seconds=30)
    process.send_signal(signal.SIGINT)
    output, complaints = process.communicate(timeout=30)
    assert process.returncode == 130
    assert output == ""
    assert (
        "pgjobq: not all jobs were copied: 1000 jobs copied, 0 were already there; run the command again to continue"
        in complaints
    )
    assert "Traceback" not in complaints
    conn.execute("select pg_advisory_unlock(4711)")
    status, output, _ = cli.run(*words)
    assert status == DONE
    found = re.fullmatch(r"(\d+) jobs copied, (\d+) were already there\n", output)
    assert found is not None
    assert int(found[1]) + int(found[2]) == 2000
    assert int(found[2]) in (1000, 1050)  # the batch at the lock was either committed or not
    assert {job.id for job in other.list_jobs()} == {f"{n:04}" for n in range(2000)}


# -- from DBJobQ ------------------------------------------------------------------------------------


def test_table_of_dbjobq_is_copied_completely(
    cli: Cli, dsn: str, old: sqlite3.Connection, storage: PostgresStorage, registry: Registry
) -> None:
    before = old.execute("select * from jobs").fetchall()
    status, output, complaints = cli.run("sqlite:///old.db", dsn)
    assert (status, complaints) == (DONE, "")
    assert output.startswith("5 jobs copied, 0 were already there, 1 were running at SRC")
    jobs = {job.id: job for job in storage.list_jobs()}
    assert {name: job.status.value for name, job in jobs.items()} == {
        "p": "pending",
        "l": "pending",
        "r": "pending",
        "c": "completed",
        "f": "failed",
    }
    assert {name: (job.attempts, job.max_retries, job.priority, job.queue) for name, job in jobs.items()} == {
        "p": (0, 3, 9, "default"),
        "l": (2, 3, 5, "default"),
        "r": (1, 3, 5, "default"),
        "c": (1, 3, 5, "default"),
        "f": (4, 3, 5, "default"),
    }
    assert jobs["p"].data == {"name": "Ünal"}
    assert jobs["l"].execute_at == datetime(2090, 1, 1, tzinfo=UTC)  # a time without a zone counts as UTC
    assert jobs["c"].created_at == datetime(2024, 1, 4, 10, 0, 0, 123456, UTC)
    assert jobs["c"].finished_at == datetime(2024, 1, 4, 10, 0, 1, tzinfo=UTC)
    assert jobs["f"].failed_at == jobs["f"].finished_at == datetime(2024, 1, 5, 10, 0, 1, tzinfo=UTC)
    assert (jobs["l"].error, jobs["f"].error) == ("ValueError: x", "ValueError: y")
    greeted: list[str] = []

    @job(registry=registry)
    def greet(name: str) -> None:
        greeted.append(name)

    assert Worker(storage, registry=registry).run_once() == 2
    assert greeted == ["Ünal", "r"]
    assert storage.prune(timedelta(days=1)) == 1
    assert old.execute("select * from jobs").fetchall() == before
    assert cli.run("sqlite:///old.db", dsn)[1].startswith("1 jobs copied, 4 were already there")  # the pruned job


def test_invalid_rows_are_reported_and_the_rest_is_copied(
    cli: Cli, dsn: str, old: sqlite3.Connection, storage: PostgresStorage
) -> None:
    with old:
        bad = {
            "json": ("t", "{", "pending"),
            "list": ("t", "[1]", "pending"),
            "status": ("t", "{}", "DONE"),
            "nul": ("t", '{"a": "\\u0000"}', "pending"),
            "type": ("", "{}", "pending"),
        }
        old.executemany(
            "insert into jobs (id, type, data, status) values (?, ?, ?, ?)", [(name, *row) for name, row in bad.items()]
        )
        old.execute("insert into jobs (id, type, data, status, created_at) values ('time', 't', '{}', 'pending', 'x')")
    status, output, complaints = cli.run("sqlite:///old.db", dsn)
    assert status == NOT_DONE
    assert output.startswith("5 jobs copied, 0 were already there")
    assert output.endswith("6 were refused\n")
    told = dict(re.findall(r"(?m)^pgjobq: job '(\w+)' was refused: (.*)$", complaints))
    assert set(told) == {*bad, "time"}
    assert "'DONE' is not a status; use pending" in told["status"]
    assert "created_at: 'x' is not a time" in told["time"]
    assert "type: has 0 characters" in told["type"]
    assert len(storage.list_jobs()) == 5


def test_refusals_after_the_first_20_are_only_counted(cli: Cli, dsn: str, old: sqlite3.Connection) -> None:
    with old:
        old.executemany(
            "insert into jobs (id, type, data, status) values (?, 't', '[]', 'pending')", [(n,) for n in range(50)]
        )
    _, _, complaints = cli.run("sqlite:///old.db", dsn)
    assert complaints.count("was refused:") == 20
    assert complaints.endswith("pgjobq: and 30 more were refused\n")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("create table job (n int)", "SRC: SQLite old.db: there is no table 'jobs'"),
        (
            "create table jobs (id int, title text)",
            "SRC: SQLite old.db: the table 'jobs' has no column 'type', so it is not a table of jobs",
        ),
    ],
)
def test_table_of_another_application_is_refused(cli: Cli, dsn: str, tmp_path: Path, table: str, message: str) -> None:
    with sqlite3.connect(tmp_path / "old.db") as conn:
        conn.execute(table)
    conn.close()
    assert cli.run("sqlite:///old.db", dsn) == (NOT_DONE, "", f"pgjobq: {message}\n")


def test_copy_warns_of_a_worker_on_a_file(cli: Cli, dsn: str, tmp_path: Path) -> None:
    source = open_storage(f"sqlite:///{tmp_path / 'jobs.db'}")
    source.enqueue("a", "t", {})
    assert source.dequeue() is not None
    status, output, complaints = cli.run("sqlite:///jobs.db", dsn)
    assert status == DONE
    assert output.startswith("1 jobs copied, 0 were already there, 1 were running at SRC")
    assert (
        complaints
        == "pgjobq: note: 1 workers are running on SRC; stop them first, because jobs may run in both databases\n"
    )
    source.leave()
    source.close()
    assert cli.run("sqlite:///jobs.db", dsn) == (DONE, "0 jobs copied, 1 were already there\n", "")


@pytest.mark.parametrize("way", ["SRC", "DST"])
@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:s3cret@127.0.0.1:1/app",
        "redis://u:s3cret@127.0.0.1:1/0",
        "sqlalchemy+postgresql://u:s3cret@127.0.0.1:1/a",
    ],
)
def test_unreachable_database_is_reported(cli: Cli, dsn: str, url: str, way: str) -> None:
    status, output, complaints = cli.run(*([url, dsn] if way == "SRC" else [dsn, url]))
    assert (status, output, complaints.count("\n")) == (NOT_DONE, "", 1)
    assert "127.0.0.1" in complaints
    assert "s3cret" not in complaints


def test_copy_from_dbjobq_on_postgresql(cli: Cli, dsn: str, conn: Connection, storage: PostgresStorage) -> None:
    """The table is in another schema of the same database, and its times have no zone."""
    conn.execute("set search_path to public")
    conn.execute((DBJOBQ + ROWS).encode())
    parts = conninfo_to_dict(dsn)
    url = "sqlalchemy+postgresql://{user}:{password}@{host}:{port}/{dbname}".format_map(parts)
    status, output, complaints = cli.run(url, dsn)
    assert (status, complaints) == (DONE, "")
    assert output.startswith("5 jobs copied")
    later = storage.get_job("l")
    assert later is not None
    assert later.execute_at == datetime(2090, 1, 1, tzinfo=UTC)
