"""Tests of SQLAlchemyStorage in sessions, and in transactions of the caller and of the handler."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from helpers.sqlalchemy_databases import driven, postgres_url
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from pgjobq import Job, JobQueue, NewJob, Registry, Worker, job
from pgjobq.errors import (
    ConfigurationError,
    DuplicateJob,
    LostJob,
    StorageError,
    Unsupported,
)
from pgjobq.models import JobStatus
from pgjobq.storage.sqlalchemy_storage import JobRecord, SQLAlchemyStorage

# -- sessions --------------------------------------------------------------------------------------


def test_clean_up_with_a_session(storage: SQLAlchemyStorage) -> None:
    """A typical clean-up uses a naive time, which is a local time."""
    storage.enqueue_many([NewJob(id=name, type="t") for name in ("old", "new", "open")])
    done = storage.dequeue_many(2)
    storage.complete_many(done)
    record = storage.session.get(JobRecord, "old")  # so that the session holds the record when it is deleted
    assert record is not None
    assert record.updated_at.tzinfo is UTC
    record.updated_at -= timedelta(days=31)
    storage.session.commit()
    assert storage.session.get(JobRecord, "new") is not None

    cutoff = datetime.now() - timedelta(days=30)  # noqa: DTZ005  # naive on purpose
    storage.session.query(JobRecord).filter(JobRecord.status == "completed", JobRecord.updated_at < cutoff).delete()
    storage.session.commit()

    assert {job.id for job in storage.list_jobs()} == {"new", "open"}
    storage.leave()


def test_naive_time_in_a_query_is_local(sqlite: SQLAlchemyStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    sqlite.enqueue("a", "t", {})
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    try:
        now = datetime.now()  # noqa: DTZ005
        found = sqlite.session.query(JobRecord).filter(JobRecord.created_at <= now).count()
        earlier = sqlite.session.query(JobRecord).filter(JobRecord.created_at <= now - timedelta(hours=1)).count()
    finally:
        monkeypatch.undo()
        time.tzset()
    assert (found, earlier) == (1, 0)


def test_each_thread_has_its_own_session(sqlite: SQLAlchemyStorage) -> None:
    seen: list[Session] = []
    thread = threading.Thread(target=lambda: seen.append(sqlite.session()))
    thread.start()
    thread.join()
    assert sqlite.session() is sqlite.session()
    assert sqlite.session() is not seen[0]


def test_open_session_in_memory_does_not_block_the_queue() -> None:
    storage = SQLAlchemyStorage("sqlite:///:memory:", timeout=2.0)
    storage.enqueue("a", "t", {})
    assert storage.session.query(JobRecord).count() == 1  # without a commit
    assert storage.dequeue().id == "a"  # type: ignore[union-attr]
    storage.complete("a")
    storage.leave()
    storage.close()


# -- the caller's transaction ----------------------------------------------------------------------


@pytest.mark.parametrize("first", ["order", "job"])
@pytest.mark.parametrize("kind", ["connection", "session"])
def test_enqueue_in_the_callers_transaction(
    storage: SQLAlchemyStorage, business: Engine, kind: str, first: str
) -> None:
    storage.ping()
    queue = JobQueue(storage)
    for number, commits in ((1, False), (2, True)):
        with Session(business) if kind == "session" else business.connect() as conn:
            steps = [
                lambda conn=conn, number=number: conn.execute(text(f"insert into orders values ({number})")),
                lambda conn=conn, number=number: queue.enqueue("ship", {}, job_id=f"ship-{number}", connection=conn),
            ]
            for step in steps if first == "order" else reversed(steps):
                step()
            assert storage.get_job(f"ship-{number}") is None  # not before the commit
            conn.commit() if commits else conn.rollback()
        with business.connect() as conn:
            orders = conn.execute(text("select count(*) from orders")).scalar()
        assert (orders, storage.get_job(f"ship-{number}") is not None) == ((1, True) if commits else (0, False))


def test_first_use_in_the_callers_transaction(storage: SQLAlchemyStorage, business: Engine) -> None:
    """The tables do not exist yet, and the caller holds SQLite's write lock."""
    with business.begin() as conn:
        conn.execute(text("insert into orders values (1)"))
        storage.enqueue_many([NewJob(id="a", type="t")], conn)
    assert storage.dequeue().id == "a"  # type: ignore[union-attr]
    storage.leave()


def test_duplicate_does_not_spoil_the_callers_transaction(storage: SQLAlchemyStorage, business: Engine) -> None:
    storage.enqueue("there", "t", {})
    new = [NewJob(id="a", type="t"), NewJob(id="there", type="t"), NewJob(id="b", type="t")]
    with business.begin() as conn:
        conn.execute(text("insert into orders values (1)"))
        with pytest.raises(DuplicateJob, match="'there'"):
            storage.enqueue_many(new, conn)
        storage.enqueue_many([NewJob(id="c", type="t")], conn)
    assert {job.id for job in storage.list_jobs()} == {"there", "c"}
    with business.connect() as conn:
        assert conn.execute(text("select count(*) from orders")).scalar() == 1


@pytest.mark.parametrize("given", [object(), "a", sqlite3])
def test_object_that_is_not_a_connection(sqlite: SQLAlchemyStorage, given: object) -> None:
    with pytest.raises(ConfigurationError, match="connection: "):
        sqlite.enqueue_many([NewJob(type="t")], given)


def test_connection_to_another_kind_of_database(sqlite: SQLAlchemyStorage, empty_dsn: str) -> None:
    engine = create_engine(driven(postgres_url(empty_dsn)))
    with engine.connect() as conn, pytest.raises(ConfigurationError, match="it leads to postgresql"):
        sqlite.enqueue_many([NewJob(type="t")], conn)
    engine.dispose()


def test_enqueue_in_an_async_transaction(empty_dsn: str) -> None:
    storage = SQLAlchemyStorage(postgres_url(empty_dsn))
    queue = JobQueue(storage)

    async def enqueue() -> None:
        engine = create_async_engine(driven(postgres_url(empty_dsn)))
        async with engine.connect() as conn:
            await queue.enqueue_async("t", {}, job_id="dropped", connection=conn)
            await conn.rollback()
            await queue.enqueue_async("t", {}, job_id="kept", connection=conn)
            await conn.commit()
            with pytest.raises(ConfigurationError, match="async"):
                queue.enqueue("t", {}, connection=conn)
        with storage.engine.connect() as sync, pytest.raises(ConfigurationError, match="event loop"):
            await queue.enqueue_async("t", {}, connection=sync)
        await queue.enqueue_async("t", {}, job_id="alone")
        await engine.dispose()

    asyncio.run(enqueue())
    assert {job.id for job in storage.list_jobs()} == {"kept", "alone"}
    storage.close()


# -- the handler's transaction ---------------------------------------------------------------------


def held(storage: SQLAlchemyStorage, name: str = "a") -> Job:
    """Enqueue a job, start it and return it."""
    storage.enqueue(name, "t", {})
    found = storage.dequeue()
    assert found is not None
    return found


def orders(engine: Engine) -> int:
    """Return the number of orders."""
    with engine.connect() as conn:
        return int(conn.execute(text("select count(*) from orders")).scalar_one())


def test_transaction_completes_the_job_with_the_handlers_work(storage: SQLAlchemyStorage, business: Engine) -> None:
    transaction = storage.transaction(held(storage))
    with transaction as conn:
        conn.execute(text("insert into orders values (1)"))
    assert transaction.settled
    assert storage.get_job("a").status == "completed"  # type: ignore[union-attr]
    assert orders(business) == 1
    with pytest.raises(LostJob):
        storage.complete("a")
    storage.leave()


def test_transaction_rolls_back_with_the_handlers_error(storage: SQLAlchemyStorage, business: Engine) -> None:
    transaction = storage.transaction(held(storage))

    def work() -> None:
        with transaction as conn:
            conn.execute(text("insert into orders values (1)"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert not transaction.settled
    assert storage.get_job("a").status == "running"  # type: ignore[union-attr]
    assert orders(business) == 0
    storage.complete("a")
    storage.leave()


def test_transaction_of_a_lost_job_rolls_back(storage: SQLAlchemyStorage, business: Engine) -> None:
    start = held(storage)
    storage.cancel("a")
    with pytest.raises(LostJob, match="a was given"), storage.transaction(start) as conn:
        conn.execute(text("insert into orders values (1)"))
    assert orders(business) == 0
    assert storage.get_job("a").status == "cancelled"  # type: ignore[union-attr]
    storage.leave()


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_transaction_that_the_handler_ends_by_itself(storage: SQLAlchemyStorage, end: str) -> None:
    with pytest.raises(StorageError, match="ended the transaction itself"), storage.transaction(held(storage)) as conn:
        getattr(conn, end)()
    assert storage.get_job("a").status == "running"  # type: ignore[union-attr]
    storage.complete("a")
    storage.leave()


def test_transaction_in_a_worker(storage: SQLAlchemyStorage, business: Engine) -> None:
    registry = Registry()

    @job(type="ship", registry=registry)
    def ship(order: int, job: Any) -> None:
        with job.transaction() as conn:
            conn.execute(text("insert into orders values (:order)"), {"order": order})

    storage.enqueue_many([NewJob(type="ship", data={"order": n % 8}) for n in range(10)])
    Worker(storage, registry=registry).run_once()
    counts = storage.counts()
    # Two of the orders exist already. Their jobs are retried, and their transactions are rolled back.
    assert (orders(business), counts[JobStatus.COMPLETED], counts[JobStatus.PENDING]) == (8, 8, 2)


def test_transaction_is_not_for_async_handlers(sqlite: SQLAlchemyStorage) -> None:
    start = held(sqlite)

    async def handler() -> None:
        async with sqlite.transaction(start):
            pass

    with pytest.raises(Unsupported, match="use a sync handler"):
        asyncio.run(handler())
    sqlite.leave()
