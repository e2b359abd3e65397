"""A worker leaves jobs of types that it has no handler for to workers that have one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers.memory_storages import DictStorage, MemoryStorage
from helpers.places import KINDS, place
from helpers.until import until
from helpers.working import finished

from pgjobq import BaseStorage, Job, JobQueue, JobStatus, Registry, Worker, job, open_storage
from pgjobq.postgres.doctor import examine
from pgjobq.storage.postgres_storage import PostgresStorage
from pgjobq.worker import fetcher

Connection = psycopg.Connection[Any]
StartWorker = Callable[..., Worker]


@pytest.fixture
def start() -> Iterator[StartWorker]:
    """Return a function that starts workers. They are stopped at the end."""
    workers: list[Worker] = []

    def make(storage: BaseStorage, registry: Registry, **options: Any) -> Worker:
        workers.append(Worker(storage, registry=registry, **{"grace": 5, **options}))
        workers[-1].start()
        return workers[-1]

    yield make
    for worker in workers:
        worker.stop(grace=1)


@pytest.fixture
def elsewhere() -> Registry:
    """A registry with a handler for the type foreign."""
    registry = Registry()

    @job(registry=registry)
    def foreign() -> None: ...

    return registry


@pytest.fixture
def here(registry: Registry) -> Registry:
    """A registry with a handler for the type known."""

    @job(registry=registry)
    def known() -> None: ...

    return registry


def told(caplog: pytest.LogCaptureFixture, name: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.message.startswith(name)]


def claims_of(storage: BaseStorage, monkeypatch: pytest.MonkeyPatch) -> list[list[Job]]:
    """Return a list that collects the storage's claims from now on."""
    claims: list[list[Job]] = []
    claim = storage.dequeue_many

    def counted(*arguments: Any) -> list[Job]:
        claims.append(claim(*arguments))
        return claims[-1]

    monkeypatch.setattr(storage, "dequeue_many", counted)
    return claims


@pytest.fixture(params=["postgresql", *KINDS])
def make_any(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a function that creates storages on one database of each kind."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    postgres = request.param == "postgresql"
    url = request.getfixturevalue("dsn") if postgres else place(request.param, request, tmp_path)
    made: list[BaseStorage] = []

    def make() -> BaseStorage:
        made.append(PostgresStorage(url) if postgres else open_storage(url))
        return made[-1]

    yield make
    for storage in made:
        storage.close()


def test_unknown_types_are_left_to_other_workers(
    make_any: Callable[[], BaseStorage],
    here: Registry,
    elsewhere: Registry,
    start: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Every storage does this. The log has one line for each type, and later jobs of the type are not claimed."""
    storage, other = make_any(), make_any()
    queue = JobQueue(storage, registry=here)
    claims = claims_of(storage, monkeypatch)
    left = [queue.enqueue("foreign", priority=9) for _ in range(5)]
    start(storage, here)
    finished(queue, queue.enqueue("known"))
    until(lambda: all(found.status == "pending" for found in map(queue.get_job, left) if found))
    before = sum(job.type == "foreign" for jobs in claims for job in jobs)
    left += [queue.enqueue("foreign", priority=9) for _ in range(5)]
    finished(queue, queue.enqueue("known"))
    assert sum(job.type == "foreign" for jobs in claims for job in jobs) == before
    assert [(found.status, found.attempts) for found in map(queue.get_job, left) if found] == [("pending", 0)] * 10
    (record,) = told(caplog, "type.left")
    assert vars(record)["job_type"] == "foreign"
    assert "no handler for jobs of type 'foreign'; registered: known" in str(vars(record)["reason"])
    start(other, elsewhere)
    assert {finished(queue, job_id).status for job_id in left} == {JobStatus.COMPLETED}


def test_storage_of_the_seven_methods_hides_unknown_jobs_for_a_while(
    here: Registry,
    elsewhere: Registry,
    start: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log reports it. Each time costs the job a try, because such a storage can only retry."""
    storage = DictStorage()
    queue = JobQueue(storage, registry=here)
    left = queue.enqueue("foreign", priority=9)
    worker = start(storage, here)
    finished(queue, queue.enqueue("known"))
    found = until(lambda: (found := queue.get_job(left)) and found.status == "pending" and found)
    assert found.attempts == 1
    assert found.execute_at is not None
    assert (found.execute_at - found.updated_at).total_seconds() == pytest.approx(fetcher.LEAVE_FOR, abs=0.1)
    (record,) = told(caplog, "type.left")
    assert vars(record)["hidden_for"] == fetcher.LEAVE_FOR
    worker.stop()
    monkeypatch.setattr(fetcher, "LEAVE_FOR", 0.05)
    again = queue.enqueue("foreign")
    worker.start()
    until(lambda: (found := queue.get_job(again)) and found.attempts > 1)
    worker.stop()
    start(storage, elsewhere)
    assert finished(queue, again).status == JobStatus.COMPLETED
    assert len(told(caplog, "type.left")) == 2  # once each time the worker started


def test_type_is_taken_again_when_its_handler_is_registered_later(start: StartWorker, here: Registry) -> None:
    storage = MemoryStorage()
    queue = JobQueue(storage, registry=here)
    left = queue.enqueue("foreign")
    start(storage, here)
    finished(queue, queue.enqueue("known"))

    @job(registry=here)
    def foreign() -> None: ...

    assert finished(queue, left).status == JobStatus.COMPLETED


def test_run_once_counts_only_jobs_that_it_ran(here: Registry, elsewhere: Registry, storage: PostgresStorage) -> None:
    for memory in (MemoryStorage(), storage):
        queue = JobQueue(memory, registry=here)
        left = [queue.enqueue("foreign", priority=9) for _ in range(3)]
        queue.enqueue("known")
        assert Worker(memory, registry=here).run_once(limit=1) == 1
        assert [found.attempts for found in map(queue.get_job, left) if found] == [0, 0, 0]
        assert Worker(memory, registry=elsewhere).run_once() == 3
        assert Worker(memory, registry=here, fail_unknown=True).run_once() == 0


# -- PostgreSQL: which worker is notified, and what is reported --------------------------------------


def unserved(dsn: str) -> tuple[bool, str]:
    (found,) = [found for found in examine(dsn, "pgjobq") if found.name == "unserved types"]
    return found.ok, found.detail


@pytest.mark.parametrize("how", ["enqueue", "enqueue many", "retry"])
def test_worker_that_leaves_a_type_is_not_notified_of_it(connect: Callable[..., Connection], how: str) -> None:
    """It would find no job, and the job would wait for another worker's poll."""
    sessions = {name: connect() for name in ("leaves", "takes")}
    for name, session in sessions.items():
        session.execute(f"listen {name}".encode())
        worker = session.execute("select register_worker(%s)", [name]).fetchone()
        assert worker is not None
        for _ in range(2):  # the first call registers the worker in the doorbell
            session.execute("select set_worker_state(%s, 'asleep', channel => %s)", [worker[0], name])
        if name == "leaves":
            session.execute("select leave_types(%s, '{foreign,other}')", worker)
    conn = connect()
    conn.execute(
        "insert into jobs (id, type, status) select 'f' || n, 'foreign', 'failed' from generate_series(1, 6) as n"
    )

    def enqueue(job_type: str, n: int) -> None:
        statement = {
            "enqueue": "select enqueue_job(%(type)s)",
            "enqueue many": "select enqueue_jobs(array[%(type)s, %(type)s, 'foreign'])",
            "retry": "update jobs set status = 'pending', type = %(type)s where id = 'f' || %(n)s",
        }[how]
        conn.execute(statement, {"type": job_type, "n": n})

    def heard(name: str) -> list[str]:
        return [told.channel for told in sessions[name].notifies(timeout=0.2) if told.channel == name]

    for n in range(1, 4):
        enqueue("foreign", n)
    assert (heard("leaves"), set(heard("takes"))) == ([], {"takes"})
    for n in range(4, 7):
        enqueue("known", n)
    assert heard("leaves")  # when it is its turn
    assert heard("takes")


def test_types_that_no_worker_takes_are_reported(
    dsn: str, make_storage: Callable[..., PostgresStorage], conn: Connection, here: Registry, start: StartWorker
) -> None:
    storage = make_storage()
    queue = JobQueue(storage, registry=here)
    queue.enqueue("foreign", queue="mail")
    queue.enqueue("foreign", queue="mail", delay=3600)
    queue.enqueue("known", queue="mail")
    types = {(row["queue"], row["type"], row["jobs"]) for row in storage.unserved_types()}
    assert types == {("mail", "foreign", 1), ("mail", "known", 1)}
    start(make_storage(), here)
    until(lambda: storage.unserved_types() == [{"queue": "mail", "type": "foreign", "jobs": 1}])
    assert unserved(dsn) == (False, "due jobs of types that no worker takes: foreign (1 in mail)")
    # A worker that leaves no types, such as one in psql, takes all of them.
    conn.execute("select register_worker('by hand', '{other}')")
    assert not unserved(dsn)[0]
    conn.execute("select register_worker('by hand', '{mail}')")
    assert storage.unserved_types() == []
    assert unserved(dsn)[0]


def test_left_types_are_reported_again_when_the_worker_registers_again(
    storage: PostgresStorage, conn: Connection, make_storage: Callable[..., PostgresStorage]
) -> None:
    make_storage().enqueue("a", "foreign", {})
    storage.leave_types(["foreign"])
    assert storage.dequeue() is None
    assert conn.execute("select id, left_types from workers").fetchall() == [(1, ["foreign"])]
    conn.execute("delete from workers")
    assert storage.dequeue() is None
    make_storage().enqueue("b", "known", {})
    found = storage.dequeue()
    assert found is not None
    assert conn.execute("select left_types from workers where id = %s", [found.worker_id]).fetchone() == (["foreign"],)
    storage.leave_types([])
    assert [found.id for found in storage.dequeue_many(9)] == ["a"]
    assert conn.execute("select left_types from workers").fetchone() == ([],)


def test_worker_can_leave_many_types_without_claiming_again_and_again(
    storage: PostgresStorage, here: Registry, start: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker can leave any number of types, and hardly claims while their jobs wait."""
    queue = JobQueue(storage, registry=here)
    claims = claims_of(storage, monkeypatch)
    left = [queue.enqueue(f"foreign-{n}") for n in range(60)]
    start(storage, here)
    for _ in range(3):
        finished(queue, queue.enqueue("known"))
    until(lambda: {found.status for found in map(queue.get_job, left) if found} == {"pending"})
    made = len(claims)
    threading.Event().wait(1.0)
    assert len(claims) - made <= 20
    assert [found.attempts for found in map(queue.get_job, left) if found] == [0] * 60
