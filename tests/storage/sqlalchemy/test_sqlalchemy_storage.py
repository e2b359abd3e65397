"""Tests of what only SQLAlchemyStorage does: engines, SQLite, times, and manually inserted rows."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from helpers.sqlalchemy_databases import at_isolation, driven, mariadb_database, postgres_url
from helpers.until import until
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool, QueuePool

from pgjobq import Job, NewJob, Registry, Worker, job
from pgjobq.errors import (
    ConfigurationError,
    DuplicateJob,
)
from pgjobq.models import JobStatus
from pgjobq.storage.base import Completed, Failed, Outcome, Released, Retried
from pgjobq.storage.sqlalchemy import engine as engines
from pgjobq.storage.sqlalchemy import sqlite as sqlite_files
from pgjobq.storage.sqlalchemy_storage import SQLAlchemyStorage

MakeStorage = Callable[..., SQLAlchemyStorage]


def statements(engine: Engine) -> list[str]:
    """Return a list to which each later statement of the engine is added."""
    seen: list[str] = []

    @event.listens_for(engine, "before_cursor_execute")
    def see(_conn: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        seen.append(statement)

    return seen


# -- engines ---------------------------------------------------------------------------------------


def test_callers_engine_with_a_pool(url: str) -> None:
    engine = create_engine(
        driven(url),
        poolclass=QueuePool,
        pool_size=10,
        max_overflow=20,
        pool_timeout=30,
        pool_recycle=3600,
        pool_pre_ping=True,
    )
    storage = SQLAlchemyStorage(engine)
    storage.enqueue("a", "t", {})
    assert storage.dequeue().id == "a"  # type: ignore[union-attr]
    storage.close()
    assert engine.pool.checkedin() >= 1  # type: ignore[attr-defined]  # a QueuePool; the storage has not disposed the engine
    engine.dispose()


def test_engine_without_a_pool(url: str) -> None:
    storage = SQLAlchemyStorage(create_engine(driven(url), poolclass=NullPool, echo=False))
    storage.enqueue("a", "t", {})
    job = storage.dequeue()
    assert job is not None
    storage.complete("a")
    assert storage.counts()[JobStatus.COMPLETED] == 1
    storage.leave()


@pytest.mark.parametrize("level", ["SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED"])
def test_engine_at_any_isolation_level(url: str, level: str) -> None:
    if url.startswith("sqlite") and level != "SERIALIZABLE":
        level = "READ UNCOMMITTED"
    storage = at_isolation(url, level)
    storage.enqueue_many([NewJob(id=str(n), type="t") for n in range(5)])
    first, second = storage.dequeue_many(3), storage.dequeue_many(3)
    assert [job.id for job in first + second] == ["0", "1", "2", "3", "4"]
    assert storage.complete_many(first + second) == []
    storage.leave()
    storage.engine.dispose()


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        (lambda: create_engine("sqlite:///:memory:"), "StaticPool"),
        (lambda: create_async_engine("postgresql+psycopg://127.0.0.1:1/x").sync_engine, "async"),
        (lambda: create_async_engine("postgresql+psycopg://127.0.0.1:1/x"), "is not supported"),
        (lambda: None, "is not supported"),
    ],
)
def test_unsuitable_engine_is_refused(engine: Callable[[], Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        SQLAlchemyStorage(engine())


def test_engine_in_autocommit(url: str) -> None:
    storage = at_isolation(url, "AUTOCOMMIT")
    if url.startswith("sqlite"):  # on SQLite, the storage begins its transactions explicitly
        storage.enqueue("a", "t", {})
        assert storage.dequeue().id == "a"  # type: ignore[union-attr]
        storage.leave()
    else:
        with pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
            storage.enqueue("a", "t", {})
    storage.engine.dispose()


@pytest.mark.parametrize("url", ["no url", "sqlite//x", "nothing://x/y", "mysql+pymysql://u:se/cret@:x/y"])
def test_invalid_url(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^url: ") as caught:
        SQLAlchemyStorage(url)
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize("name", ["lease", "poll_interval", "timeout"])
def test_invalid_options(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        SQLAlchemyStorage("sqlite://", **{name: 0})


def test_postgresql_url_without_a_driver_uses_psycopg_3(empty_dsn: str) -> None:
    url = postgres_url(empty_dsn)
    assert url.startswith("postgresql://")
    storage = SQLAlchemyStorage(url)
    assert storage.engine.dialect.driver == "psycopg"
    storage.ping()
    storage.close()


# -- SQLite ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [None, (3, 35)], ids=["shared", "file"])
def test_all_threads_share_the_database_in_memory(
    version: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if version:  # simulate an older SQLite
        monkeypatch.setattr(sqlite_files, "_SHARED_MEMORY", (99,))
    storage = SQLAlchemyStorage("sqlite:///:memory:")
    thread = threading.Thread(target=storage.enqueue, args=("a", "t", {}))
    thread.start()
    thread.join()
    assert storage.dequeue().id == "a"  # type: ignore[union-attr]
    other = SQLAlchemyStorage("sqlite://")
    assert other.list_jobs() == []
    for one in (storage, other):
        one.leave()
        one.close()


def test_sqlite_file_is_in_wal_mode(sqlite: SQLAlchemyStorage, tmp_path: Path) -> None:
    sqlite.ping()
    with sqlite3.connect(tmp_path / "jobs.db") as conn:
        assert conn.execute("pragma journal_mode").fetchone() == ("wal",)
    conn.close()


def test_sqlite_claim_that_finds_no_job_takes_no_lock(sqlite: SQLAlchemyStorage) -> None:
    sqlite.dequeue()
    seen = statements(sqlite.engine)
    assert sqlite.dequeue() is None
    assert seen
    assert not [one for one in seen if not one.startswith("SELECT")]


def test_sqlite_claims_by_immediate_transaction_and_returning(sqlite: SQLAlchemyStorage) -> None:
    sqlite.enqueue("a", "t", {})
    seen = statements(sqlite.engine)
    sqlite.dequeue_many(10)
    assert "BEGIN IMMEDIATE" in seen
    assert [one for one in seen if one.startswith("UPDATE jobs") and "RETURNING" in one]


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
def test_servers_lock_rows_and_skip_locked_ones(kind: str, request: pytest.FixtureRequest) -> None:
    urls = {"mariadb": "mariadb_url", "postgresql": "empty_dsn"}
    given = request.getfixturevalue(urls[kind])
    storage = SQLAlchemyStorage(given if kind == "mariadb" else postgres_url(given))
    storage.enqueue("a", "t", {})
    seen = statements(storage.engine)
    job = storage.dequeue()
    assert job is not None
    assert [one for one in seen if "FOR UPDATE SKIP LOCKED" in one]
    storage.complete("a")
    storage.prune(timedelta(0))
    storage.leave()
    storage.close()


def test_engine_that_begins_transactions_in_an_event(tmp_path: Path) -> None:
    """SQLAlchemy's documentation recommends this for correct transactions on SQLite."""
    engine = create_engine(f"sqlite:///{tmp_path}/jobs.db")

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(conn: Connection) -> None:
        conn.exec_driver_sql("BEGIN")

    storage = SQLAlchemyStorage(engine)
    storage.enqueue("a", "t", {})
    job = storage.dequeue()
    assert job is not None
    storage.complete("a")
    with engine.begin() as conn:
        storage.enqueue_many([NewJob(id="b", type="t")], conn)
        assert storage.get_job("b") is None
    assert storage.counts()[JobStatus.PENDING] == 1
    storage.leave()
    engine.dispose()


def test_forked_child_opens_its_own_connections(storage: SQLAlchemyStorage) -> None:
    storage.enqueue_many([NewJob(id=name, type="t") for name in ("parent", "child", "left")])
    assert storage.dequeue().id == "parent"  # type: ignore[union-attr]
    child = os.fork()
    if child == 0:
        status = 1
        try:
            job = storage.dequeue()
            assert job is not None
            storage.complete(job.id)
            storage.leave()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    storage.complete("parent")  # on the connection that the child must not have closed
    assert {job.id for job in storage.list_jobs("completed")} == {"parent", "child"}
    storage.leave()


# -- order, times, inserted rows -------------------------------------------------------------------


def test_jobs_of_one_batch_and_one_due_time_keep_their_order(storage: SQLAlchemyStorage) -> None:
    due = datetime(2020, 1, 1, tzinfo=UTC)
    names = [f"{n:03}" for n in reversed(range(300))]  # so that the order of the ids is reversed
    storage.enqueue_many([NewJob(id=name, type="t", execute_at=due) for name in names])
    storage.enqueue("at once", "t", {})
    assert [job.id for job in storage.dequeue_many(400)] == [*names, "at once"]
    storage.leave()


def test_claims_from_several_queues_merge_by_priority_and_due_time(storage: SQLAlchemyStorage) -> None:
    start = datetime(2020, 1, 1, tzinfo=UTC)
    for n, (queue, priority) in enumerate([("a", 5), ("b", 5), ("a", 5), ("b", 9), ("c", 9), ("a", 1)]):
        storage.enqueue(str(n), "t", {}, priority=priority, execute_at=start + timedelta(seconds=n), queue=queue)
    later = datetime.now(UTC) + timedelta(hours=1)
    storage.enqueue("later", "t", {}, priority=99, queue="a", execute_at=later)
    assert [job.id for job in storage.dequeue_many(3, ["b", "a", "b"])] == ["3", "0", "1"]
    assert [job.id for job in storage.dequeue_many(9, ["b", "a"])] == ["2", "5"]
    assert storage.dequeue_many(9, []) == []
    assert [job.id for job in storage.dequeue_many(9)] == ["4"]
    storage.leave()


def test_times_are_aware_and_exact(storage: SQLAlchemyStorage) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    due = datetime(2020, 2, 29, 23, 59, 59, 999999, tzinfo=UTC)
    storage.enqueue("a", "t", {}, execute_at=due.astimezone())
    storage.enqueue("b", "t", {})
    a, b = storage.dequeue_many(2)
    after = datetime.now(UTC) + timedelta(seconds=1)
    assert a.execute_at == due
    assert a.execute_at.tzinfo is UTC
    assert b.execute_at is None
    for moment in (a.created_at, a.updated_at, a.started_at):
        assert moment is not None
        assert before <= moment <= after
    assert storage.get_job("a") == a
    storage.settle([Retried(a, 60, "again"), Failed(b, "no")])
    a2, b2 = storage.get_job("a"), storage.get_job("b")
    assert a2 is not None
    assert b2 is not None
    assert a2.execute_at is not None
    assert 55 < (a2.execute_at - after).total_seconds() < 61
    assert before <= b2.finished_at == b2.failed_at <= after + timedelta(seconds=5)  # type: ignore[operator]
    storage.leave()


def test_ids_differ_by_case_and_trailing_space(storage: SQLAlchemyStorage) -> None:
    names = ["a", "A", "a ", "ä", "é", "e\u0301", "x" * 255, "\U0001f600" * 255]
    for name in names:
        storage.enqueue(name, name, {"name": name}, queue=name)
    for name in names:
        job = storage.get_job(name)
        assert job is not None
        assert (job.id, job.type, job.queue, job.data) == (name, name, name, {"name": name})
        assert [job.id for job in storage.list_jobs(queue=name)] == [name]
    with pytest.raises(DuplicateJob, match="'A'"):
        storage.enqueue("A", "t", {})
    assert len(storage.list_jobs()) == len(names)


def test_manually_inserted_row_is_claimed(storage: SQLAlchemyStorage) -> None:
    storage.ping()
    with storage.engine.begin() as conn:
        conn.execute(text("insert into jobs (id, type, data, status) values ('hand', 't', '{\"x\": 1}', 'pending')"))
    job = storage.dequeue()
    assert job is not None
    assert (job.id, job.data, job.queue, job.priority, job.max_retries) == ("hand", {"x": 1}, "default", 5, 3)
    assert job.execute_at is None
    assert abs(datetime.now(UTC) - job.created_at) < timedelta(seconds=5)  # in UTC, whatever the session's time zone is
    storage.complete("hand")
    storage.leave()


def test_row_without_a_due_time_falls_due_at_the_next_maintenance(storage: SQLAlchemyStorage) -> None:
    storage.ping()
    with storage.engine.begin() as conn:
        conn.execute(
            text("insert into jobs (id, type, data, status, execute_at) values ('hand', 't', '{}', 'pending', null)")
        )
    storage.maintain([])
    assert storage.dequeue().id == "hand"  # type: ignore[union-attr]
    storage.leave()


@pytest.mark.parametrize("data", ["[1]", "{", "null"])
def test_row_with_invalid_data_does_not_block_the_queue(sqlite: SQLAlchemyStorage, data: str) -> None:
    sqlite.ping()
    with sqlite.engine.begin() as conn:
        conn.execute(
            text("insert into jobs (id, type, data, status) values ('bad', 't', :data, 'pending')"), {"data": data}
        )
    registry = Registry()

    @job(type="t", registry=registry)
    def handler() -> None: ...

    Worker(sqlite, registry=registry).run_once()
    bad = sqlite.get_job("bad")
    assert bad is not None
    assert bad.status == "failed"
    assert "BadArguments" in (bad.error or "")


# -- settling --------------------------------------------------------------------------------------


def test_outcomes_of_all_kinds_in_one_call(storage: SQLAlchemyStorage) -> None:
    storage.enqueue_many([NewJob(id=name, type="t") for name in "abcdefgh"])
    jobs = {job.id: job for job in storage.dequeue_many(8)}
    storage.cancel("h")
    outcomes: list[Outcome] = [
        Completed(jobs["a"]),
        Failed(jobs["b"], "broken \0 \ud800"),
        Retried(jobs["c"], 0, "first"),
        Retried(jobs["d"], 60, None),
        Released(jobs["e"]),
        Released(jobs["f"], 60),
        Completed(jobs["g"]),
        Completed(jobs["h"]),
    ]
    for _ in range(2):  # the caller repeats the call if its answer was lost
        assert storage.settle(outcomes) == [Completed(jobs["h"])]
        found = {job.id: job for job in storage.list_jobs()}
        assert {name: (str(job.status), job.attempts) for name, job in found.items()} == {
            "a": ("completed", 1),
            "b": ("failed", 1),
            "c": ("pending", 1),
            "d": ("pending", 1),
            "e": ("pending", 0),
            "f": ("pending", 0),
            "g": ("completed", 1),
            "h": ("cancelled", 1),
        }
    assert found["b"].error == "broken \\0 \\ud800"
    assert [job.id for job in storage.dequeue_many(8)] == ["e", "c"]
    storage.leave()


def test_large_batches(storage: SQLAlchemyStorage) -> None:
    names = [f"{n:04}" for n in range(2500)]
    storage.enqueue_many([NewJob(id=name, type="t") for name in names])
    jobs = storage.dequeue_many(2500)
    assert [job.id for job in jobs] == names
    for start in jobs[::100]:
        storage.cancel(start.id)
    lost = storage.complete_many(jobs)
    assert [job.id for job in lost] == names[::100]
    assert storage.prune(timedelta(0), ["completed"], batch=400) == 2475
    storage.leave()


def test_stats_and_workers(storage: SQLAlchemyStorage) -> None:
    storage.enqueue_many([NewJob(id=name, type="t", queue="q") for name in "abc"])
    storage.enqueue("later", "t", {}, execute_at=datetime.now(UTC) + timedelta(hours=1))
    storage.dequeue()
    rows = {(row["queue"], row["status"]): row for row in storage.stats()}
    assert {key: row["jobs"] for key, row in rows.items()} == {
        ("q", "pending"): 2,
        ("q", "running"): 1,
        ("default", "pending"): 1,
    }
    assert 0 <= rows["q", "pending"]["oldest_due_age"] < 60
    assert rows["default", "pending"]["oldest_due_age"] is None
    (worker,) = storage.workers()
    assert (worker["alive"], worker["running"]) == (True, 1)
    assert worker["name"].endswith(f":{os.getpid()}")
    storage.leave()
    assert storage.workers() == []


def test_export_of_jobs_with_equal_times(storage: SQLAlchemyStorage) -> None:
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    jobs = [Job(id=f"{n:02}", type="t", created_at=moment + timedelta(seconds=n // 7)) for n in range(30)]
    assert storage.import_jobs(jobs[::-1]) == 30
    assert storage.import_jobs([*jobs, Job(id="new", type="t"), Job(id="new", type="other")]) == 1
    pages = list(storage.export_jobs(batch=5))
    assert [job.id for page in pages for job in page] == [*(f"{n:02}" for n in range(30)), "new"]
    assert max(map(len, pages)) <= 5
    assert [job.id for job in storage.dequeue_many(30)] == [f"{n:02}" for n in range(30)]
    storage.leave()


def test_enqueue_wakes_a_waiting_worker_of_the_same_object(sqlite: SQLAlchemyStorage) -> None:
    sqlite.poll_interval = 30.0
    sqlite._pause = 30.0
    woken = threading.Event()

    def wait() -> None:
        sqlite.wait(30.0)
        woken.set()

    thread = threading.Thread(target=wait)
    thread.start()
    sqlite.enqueue("a", "t", {})
    assert woken.wait(5.0)
    thread.join()


def test_a_worker_stopped_beyond_its_lease_claims_under_a_new_name(make: MakeStorage) -> None:
    stopped, other = make(lease=0.6), make(lease=30.0)
    stopped.enqueue_many([NewJob(id=name, type="t") for name in "ab"])
    first = stopped.dequeue()
    assert first is not None
    stopped._stop_keeper()  # no thread of the storage renews the lease
    until(other.rescue)
    second = stopped.dequeue()
    assert second is not None
    assert second.worker_id != first.worker_id
    assert other.rescue() == 0
    assert stopped.settle([Completed(first)]) == [Completed(first)]
    stopped.leave()


def test_claims_without_skip_locked_count_updated_rows(mariadb_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """MySQL 5.7 and MariaDB 10.5 do not have SKIP LOCKED."""
    monkeypatch.setattr(engines, "_skips_locked", lambda _dialect: False)
    with mariadb_database(mariadb_url) as url:
        a, b = SQLAlchemyStorage(url), SQLAlchemyStorage(url)
        assert a._database.traits.claiming == engines.OPTIMISTIC
        a.enqueue_many([NewJob(id=str(n), type="t") for n in range(9)])
        assert [job.id for job in a.dequeue_many(4)] == ["0", "1", "2", "3"]
        assert [job.id for job in b.dequeue_many(9)] == ["4", "5", "6", "7", "8"]
        for storage in (a, b):
            storage.leave()
            storage.close()
