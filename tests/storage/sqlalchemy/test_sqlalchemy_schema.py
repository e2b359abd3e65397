"""Tests of the tables of SQLAlchemyStorage: their documentation, creation and upgrade."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from helpers.sqlalchemy_databases import driven
from sqlalchemy import Engine, create_engine, inspect, text

from pgjobq.errors import ConfigurationError, NotMigrated, SchemaConflict
from pgjobq.outcomes import Completed
from pgjobq.storage.sqlalchemy_storage import SQLAlchemyStorage

COLUMNS = {
    "id", "type", "data", "status", "error", "attempts", "max_retries", "priority", "execute_at", "created_at",
    "updated_at", "queue", "started_at", "finished_at", "failed_at", "worker_id", "claim_id", "crashes",
}  # fmt: skip
INDEXES = {
    "idx_status_priority": ["status", "priority"],
    "idx_status_priority_execute": ["status", "priority", "execute_at", "created_at", "id"],
    "idx_queue_priority_execute": ["status", "queue", "priority", "execute_at", "created_at", "id"],
    "idx_execute_at": ["execute_at"],
    "idx_created_at": ["created_at"],
}
# The table that DBJobQ creates, and the index that its documentation recommends.
DBJOBQ = """
create table jobs (
    id varchar(255) primary key,
    type varchar(255) not null,
    data text not null,
    status varchar(20) not null,
    error text,
    attempts integer default 0,
    max_retries integer default 3,
    priority integer default 5,
    execute_at timestamp {null},
    created_at timestamp {null} default current_timestamp,
    updated_at timestamp {null} default current_timestamp
);
create index idx_status_priority on jobs(status, priority desc);
create index idx_execute_at on jobs(execute_at);
create index idx_status_priority_execute on jobs(status, priority desc, execute_at)
"""
ROWS = """
insert into jobs values ('done', 't', '{"x": 1}', 'completed', null, 1, 3, 5, null, '2026-07-01 12:00:00', '2026-07-01 12:00:05');
insert into jobs values ('bad', 't', '{}', 'failed', 'oops', 4, 3, 5, null, '2026-07-01 12:00:01', '2026-07-01 12:00:06');
insert into jobs values ('ran', 't', '{}', 'running', null, 0, 3, 5, null, '2026-07-01 12:00:02', '2026-07-01 12:00:02');
insert into jobs values ('wait', 't', '{}', 'pending', null, null, null, null, null, null, null);
insert into jobs values ('due', 't', '{}', 'pending', null, 0, 3, 9, '2026-07-01 12:30:00.250000', '2026-07-01 12:00:04', '2026-07-01 12:00:04')
"""


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """Return an engine on the database."""
    engine = create_engine(driven(url))
    yield engine
    engine.dispose()


@pytest.fixture
def storage(url: str) -> Iterator[SQLAlchemyStorage]:
    """Return a storage on the database."""
    storage = SQLAlchemyStorage(url)
    yield storage
    storage.close()


def run(engine: Engine, script: str) -> None:
    """Run statements that are separated by semicolons."""
    with engine.begin() as conn:
        for statement in script.split(";"):
            conn.exec_driver_sql(statement)


def described(engine: Engine) -> dict[str, object]:
    """Return all tables, with their columns and indexes."""
    inspector = inspect(engine)
    return {
        table: (
            sorted(
                f"{one['name']} {one['type']} {one['nullable']} {one['default']}"
                for one in inspector.get_columns(table)
            ),
            sorted(f"{one['name']} {one['column_names']}" for one in inspector.get_indexes(table)),
        )
        for table in inspector.get_table_names()
    }


def test_tables_and_indexes_are_as_documented(storage: SQLAlchemyStorage, engine: Engine) -> None:
    storage.ping()
    inspector = inspect(engine)
    assert {one["name"] for one in inspector.get_columns("jobs")} == COLUMNS
    assert inspector.get_pk_constraint("jobs")["constrained_columns"] == ["id"]
    found = {one["name"]: one["column_names"] for one in inspector.get_indexes("jobs")}
    assert found == INDEXES
    assert set(inspector.get_table_names()) == {"jobs", "job_results", "job_workers", "job_schedules"}


def test_concurrent_processes_create_the_tables(url: str, engine: Engine) -> None:
    program = (
        "import sys; from pgjobq.storage.sqlalchemy_storage import SQLAlchemyStorage;"
        "s = SQLAlchemyStorage(sys.argv[1]); print(flush=True); sys.stdin.readline();"
        "s.enqueue(sys.argv[2], 't', {}); s.close()"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program, url, str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for n in range(4)
    ]
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        with child:
            child.communicate(timeout=60)
        assert child.returncode == 0
    with engine.connect() as conn:
        assert conn.execute(text("select count(*) from jobs")).scalar() == 4
    assert {one["name"] for one in inspect(engine).get_indexes("jobs")} == set(INDEXES)


def test_missing_index_is_created_again(storage: SQLAlchemyStorage, engine: Engine) -> None:
    storage.ping()
    run(engine, f"drop index idx_created_at {'on jobs' if engine.dialect.name == 'mysql' else ''}")
    other = SQLAlchemyStorage(storage.engine)
    other.ping()
    assert {one["name"] for one in inspect(engine).get_indexes("jobs")} == set(INDEXES)


@pytest.mark.parametrize(
    ("table", "script", "missing"),
    [
        (
            "jobs",
            "create table jobs (id integer, title varchar(20)); insert into jobs values (1, 'Baker')",
            "type, data",
        ),
        ("job_workers", "create table job_workers (id integer)", "name, started_at, lease_until"),
    ],
)
def test_tables_of_another_program_are_refused(
    storage: SQLAlchemyStorage, engine: Engine, table: str, script: str, missing: str
) -> None:
    run(engine, script)
    before = described(engine)
    for call in (storage.ping, storage.dequeue, lambda: storage.enqueue("a", "t", {}), storage.rescue):
        with pytest.raises(SchemaConflict, match=f"'{table}' has no column {missing}"):
            call()
    assert described(engine) == before
    if table == "jobs":
        with pytest.raises(SchemaConflict):
            storage.upgrade()
        assert described(engine) == before


def test_older_table_is_refused_until_it_is_upgraded(storage: SQLAlchemyStorage, engine: Engine) -> None:
    run(engine, DBJOBQ.format(null="null"))
    run(engine, ROWS)
    before = described(engine)
    with pytest.raises(NotMigrated, match=r"no column queue, .*upgrade\(\)"):
        storage.enqueue("a", "t", {})
    assert described(engine) == before
    assert storage.upgrade()
    assert not storage.upgrade()
    assert {one["name"]: one["column_names"] for one in inspect(engine).get_indexes("jobs")} == INDEXES

    jobs = {job.id: job for job in storage.list_jobs()}
    assert {name: (str(job.status), job.queue) for name, job in jobs.items()} == {
        "done": ("completed", "default"),
        "bad": ("failed", "default"),
        "ran": ("running", "default"),
        "wait": ("pending", "default"),
        "due": ("pending", "default"),
    }
    assert jobs["done"].data == {"x": 1}
    assert jobs["done"].created_at == datetime(2026, 7, 1, 12, tzinfo=UTC)
    assert jobs["done"].finished_at == datetime(2026, 7, 1, 12, 0, 5, tzinfo=UTC)
    assert (jobs["bad"].error, jobs["bad"].failed_at) == ("oops", datetime(2026, 7, 1, 12, 0, 6, tzinfo=UTC))
    assert (jobs["wait"].priority, jobs["wait"].max_retries, jobs["wait"].attempts) == (5, 3, 0)
    # The jobs that were running have no worker any more.
    assert storage.rescue() == 1
    assert [job.id for job in storage.dequeue_many(9)] == ["due", "ran", "wait"]
    storage.enqueue("x" * 255, "t", {"x": "\U0001f600" * 50_000})
    storage.leave()


def test_local_times_of_an_older_table(storage: SQLAlchemyStorage, engine: Engine) -> None:
    run(engine, DBJOBQ.format(null="null"))
    run(engine, ROWS)
    with pytest.raises(ConfigurationError, match="Mars"):
        storage.upgrade("Mars/Olympus")
    assert storage.upgrade("America/New_York")
    done, due = storage.get_job("done"), storage.get_job("due")
    assert done is not None
    assert due is not None
    assert done.created_at == datetime(2026, 7, 1, 16, tzinfo=UTC)
    assert due.execute_at is not None
    assert due.execute_at.replace(microsecond=0) == datetime(2026, 7, 1, 16, 30, tzinfo=UTC)
    assert datetime.now(UTC) - storage.get_job("done").updated_at > timedelta(0)  # type: ignore[union-attr]


def test_upgrade_of_an_empty_database_creates_the_tables(storage: SQLAlchemyStorage) -> None:
    assert not storage.upgrade()
    assert storage.list_jobs() == []


def test_table_of_a_version_without_results_goes_on(storage: SQLAlchemyStorage, url: str, engine: Engine) -> None:
    storage.enqueue("a", "t", {})
    with engine.begin() as conn:
        conn.execute(text("drop table job_results"))
    with closing(SQLAlchemyStorage(url)) as newer:
        job = newer.dequeue()
        assert job is not None
        assert newer.settle([Completed(job, "[1]")]) == []
        assert [found.result for found in newer.list_jobs()] == [[1]]
        assert newer.prune(timedelta(0)) == 1
    with engine.begin() as conn:
        assert conn.execute(text("select count(*) from job_results")).scalar() == 0
