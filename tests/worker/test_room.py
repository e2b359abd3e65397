"""Handlers inside job.transaction() leave connections in the pool for claims, settles and maintenance."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from helpers.sqlalchemy_databases import driven, mariadb_database, postgres_url
from helpers.until import until
from helpers.working import finished
from psycopg_pool import ConnectionPool
from sqlalchemy import create_engine

from pgjobq import JobQueue, JobStatus, Registry, RunningJob, StorageUnavailable, Worker, job
from pgjobq.room import OWN_CALLS, Room
from pgjobq.storage.base import BaseStorage
from pgjobq.storage.postgres_storage import PostgresStorage
from pgjobq.storage.sqlalchemy_storage import SQLAlchemyStorage

AT_ONCE = 20


@pytest.fixture
def ends() -> Iterator[ExitStack]:
    """An ExitStack that is closed at the end of the test."""
    with ExitStack() as stack:
        yield stack


Make = Callable[[pytest.FixtureRequest, ExitStack], BaseStorage]


def postgres(request: pytest.FixtureRequest, _: ExitStack) -> BaseStorage:
    return PostgresStorage(request.getfixturevalue("dsn"), timeout=3)


def alchemy_postgres(request: pytest.FixtureRequest, _: ExitStack) -> BaseStorage:
    return SQLAlchemyStorage(postgres_url(request.getfixturevalue("empty_dsn")), timeout=3)


def alchemy_mariadb(request: pytest.FixtureRequest, ends: ExitStack) -> BaseStorage:
    url = ends.enter_context(mariadb_database(request.getfixturevalue("mariadb_url")))
    return SQLAlchemyStorage(url, timeout=3)


@pytest.mark.parametrize("make", [postgres, alchemy_postgres, alchemy_mariadb], ids=lambda make: make.__name__)
def test_pool_grows_with_the_transactions_that_are_open_at_once(
    request: pytest.FixtureRequest, ends: ExitStack, registry: Registry, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    storage = make(request, ends)
    ends.callback(storage.close)
    queue, together = JobQueue(storage, registry=registry), threading.Barrier(AT_ONCE + 1)

    @job(registry=registry, max_retries=0)
    def inside(job: RunningJob) -> None:
        with job.transaction():
            together.wait(15)  # all handlers are inside
            together.wait(15)  # the test has checked what else works meanwhile

    @job(registry=registry, max_retries=0)
    def quick() -> None:
        pass

    held = [queue.enqueue(inside) for _ in range(AT_ONCE)]
    worker = Worker(queue, concurrency=AT_ONCE + 1, registry=registry)
    with caplog.at_level(logging.WARNING):
        worker.start()
        ends.callback(worker.stop, grace=1)
        together.wait(15)
        beside = [queue.enqueue(quick) for _ in range(3)]
        assert [finished(queue, job_id).status for job_id in beside] == [JobStatus.COMPLETED] * 3
        storage.rescue()
        together.wait(15)
        assert {finished(queue, job_id).status for job_id in held} == {JobStatus.COMPLETED}
    assert [r.getMessage() for r in caplog.records if r.name.startswith(("pgjobq", "psycopg"))] == []


def pool_of_psycopg(request: pytest.FixtureRequest, ends: ExitStack) -> BaseStorage:
    dsn = request.getfixturevalue("dsn")
    return PostgresStorage(ends.enter_context(ConnectionPool(dsn, min_size=4, max_size=4, timeout=3)))


def engine_of_alchemy(request: pytest.FixtureRequest, ends: ExitStack) -> BaseStorage:
    url = driven(postgres_url(request.getfixturevalue("empty_dsn")))
    engine = create_engine(url, pool_size=3, max_overflow=1, pool_timeout=3)
    ends.callback(engine.dispose)
    return SQLAlchemyStorage(engine, timeout=3)


@pytest.mark.parametrize("make", [pool_of_psycopg, engine_of_alchemy], ids=lambda make: make.__name__)
def test_pool_of_the_caller_is_not_resized_and_keeps_connections_for_claims_and_settles(
    request: pytest.FixtureRequest, ends: ExitStack, registry: Registry, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    storage = make(request, ends)
    ends.callback(storage.close)
    queue, go, most = JobQueue(storage, registry=registry), threading.Event(), threading.Semaphore(2)
    too_many = threading.Event()

    @job(registry=registry, max_retries=0)
    def inside(job: RunningJob) -> None:
        with job.transaction():
            if not most.acquire(blocking=False):
                too_many.set()
            go.wait(15)
            most.release()

    @job(registry=registry, max_retries=0)
    def quick() -> None:
        pass

    held = [queue.enqueue(inside) for _ in range(6)]
    worker = Worker(queue, concurrency=8, registry=registry)
    with caplog.at_level(logging.WARNING, logger="pgjobq"):
        worker.start()
        ends.callback(worker.stop, grace=1)
        told = until(lambda: [r for r in caplog.records if "pool.too_small" in r.getMessage()])
        beside = [queue.enqueue(quick) for _ in range(5)]
        assert {finished(queue, job_id).status for job_id in beside} == {JobStatus.COMPLETED}
        go.set()
        assert {finished(queue, job_id).status for job_id in held} == {JobStatus.COMPLETED}
    assert not too_many.is_set()
    assert [r.getMessage() for r in caplog.records] == [told[0].getMessage()]
    assert told[0].max_size == 4
    assert f"the worker's concurrency plus {OWN_CALLS}" in told[0].getMessage()


def test_transaction_that_finds_no_room_raises_an_error_with_a_remedy() -> None:
    room = Room(3, timeout=0.01)
    told = r"max_size 3, had no room .* set its max_size to the worker's concurrency"
    with room.taken(), pytest.raises(StorageUnavailable, match=told):
        room.taken().__enter__()
    with room.taken():
        pass


@pytest.mark.parametrize("max_size", [1, 2, 3])
def test_smallest_pools_have_room_for_one_transaction(max_size: int) -> None:
    room = Room(max_size, timeout=0.01)
    for _ in range(2):
        with room.taken():
            pass


def test_pool_grows_only_as_far_as_needed() -> None:
    asked: list[int] = []
    room = Room(5, 1.0, asked.append)
    for most in (1, 2, 4, 3):
        with ExitStack() as stack:
            for _ in range(most):
                stack.enter_context(room.taken())
    assert asked == [6, 7, 8]


def test_room_is_released_if_the_transaction_cannot_begin(make_storage: Callable[..., Any], dsn: str) -> None:
    storage = PostgresStorage(dsn, timeout=1)
    storage.enqueue("a", "t", {})
    found = storage.dequeue()
    assert found is not None
    storage.close()
    with pytest.raises(StorageUnavailable):
        storage.transaction(found).__enter__()
    assert storage._database.room._open == 0
