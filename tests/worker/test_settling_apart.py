"""An outcome that cannot be settled does not delay others: it is found, logged, retried, and finally released."""

from __future__ import annotations

import itertools
import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy
from helpers.memory_storages import DictStorage
from helpers.places import place
from helpers.until import until
from pymongo import MongoClient

from pgjobq import BaseStorage, Job, NewJob, Registry, StorageUnavailable, Worker, job, open_storage
from pgjobq.storage.base import Completed, Failed, Outcome, Retried
from pgjobq.storage.postgres_storage import PostgresStorage
from pgjobq.worker import settler
from pgjobq.worker.in_flight import InFlight
from pgjobq.worker.settler import Settler

# Triggers that refuse a change of single jobs: becoming completed, or any end of running.
REFUSALS = {
    "sqlite": (
        "create trigger refuse before update on jobs when substr(old.id, 1, 3) = 'bad' and old.status = 'running' and {new}"
        " begin select raise(abort, 'not this one'); end"
    ),
    "mariadb": (
        "create trigger refuse before update on jobs for each row if left(old.id, 3) = 'bad' and old.status = 'running'"
        " and {new} then signal sqlstate '45000' set message_text = 'not this one'; end if"
    ),
}
REFUSALS_OF_POSTGRES = """
create function refuse() returns trigger language plpgsql as $$
begin raise exception 'not this one'; end $$;
create trigger refuse before update on pgjobq.jobs for each row
  when (left(old.id, 3) = 'bad' and old.status = 'running' and {new}) execute function refuse();
"""
REFUSALS_OF_MONGO = {  # validators of the collection
    "new.status = 'completed'": '{"$nor": [{"_id": {"$regex": "^bad"}, "status": "completed"}]}',
    "new.status <> 'running'": '{"$nor": [{"_id": {"$regex": "^bad"}, "status": {"$ne": "running"}}]}',
}
COMPLETED, ANYTHING = "new.status = 'completed'", "new.status <> 'running'"


class Place:
    """A database with a storage, in which a trigger or validator can refuse changes."""

    def __init__(self, kind: str, url: str, storage: BaseStorage, run: Callable[[str], None]) -> None:
        self.kind, self.url, self.storage, self.run = kind, url, storage, run
        self.jobs = 80 if kind == "mongo" else 300

    def refuse(self, new: str) -> None:
        """Make the database refuse this change for jobs whose id begins with bad."""
        if self.kind == "mongo":
            self.run(REFUSALS_OF_MONGO[new])
            return
        text = REFUSALS_OF_POSTGRES if self.kind == "postgres" else REFUSALS[self.kind]
        self.run(text.format(new=new))

    def relent(self) -> None:
        """Make the database accept the change again."""
        if self.kind == "mongo":
            self.run("{}")
            return
        self.run("drop trigger refuse" + (" on pgjobq.jobs" if self.kind == "postgres" else ""))


LEASED = ["sqlite", "mariadb", "mongo"]  # PostgreSQL has its own SQL functions for rescuing and leaving


@pytest.fixture(params=["postgres", *LEASED])
def there(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "postgres":
        dsn = request.getfixturevalue("dsn")
        with psycopg.connect(dsn, autocommit=True) as conn:
            yield from opened(request.param, dsn, lambda statement: conn.execute(statement) and None)  # type: ignore[arg-type]
        return
    url = place(request.param, request, tmp_path)
    if request.param == "mongo":
        with MongoClient[Any](url) as client:
            validate = client.get_default_database().command

            def run_command(text: str) -> None:
                validate("collMod", "jobs", validator=json.loads(text))

            yield from opened("mongo", url, run_command)
        return
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")

    def run(statement: str) -> None:
        with engine.connect() as conn:
            conn.exec_driver_sql(statement)

    yield from opened(request.param, url, run)
    engine.dispose()


def opened(kind: str, url: str, run: Callable[[str], None]) -> Iterator[Place]:
    storage = open_storage(url)
    storage.ping()
    yield Place(kind, url, storage, run)
    storage.close()


def quick(registry: Registry) -> None:
    @job(registry=registry)
    def quick() -> None: ...


def count(storage: BaseStorage, status: str) -> int:
    return len(storage.list_jobs(status))


def events(caplog: pytest.LogCaptureFixture, event: str) -> list[str]:
    """Return the ids of the jobs in the log lines of this event."""
    return [
        vars(record)["job_id"] for record in caplog.records if vars(record).get("event", record.getMessage()) == event
    ]


def test_other_outcomes_are_settled_and_the_log_names_the_refused_jobs(
    there: Place, registry: Registry, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settler, "RETRY_MIN", 0.2)
    quick(registry)
    names = [f"bad-{n}" if n in {3, 60} else f"good-{n}" for n in range(there.jobs)]
    there.storage.enqueue_many([NewJob(id=name, type="quick") for name in names])
    there.refuse(COMPLETED)
    worker = Worker(there.storage, registry=registry)
    worker.start()
    try:
        until(lambda: count(there.storage, "completed") == there.jobs - 2)
        assert {job.id for job in there.storage.list_jobs("running")} == {"bad-3", "bad-60"}
        there.storage.enqueue("later", "quick", {})
        until(lambda: count(there.storage, "completed") == there.jobs - 1)
        assert set(events(caplog, "job.unsettled")) == {"bad-3", "bad-60"}
        unsettled = [
            record for record in caplog.records if vars(record).get("event", record.getMessage()) == "job.unsettled"
        ]
        assert all(re.search("not this one|validation", vars(record)["error"]) for record in unsettled)
        there.relent()
        until(lambda: count(there.storage, "completed") == there.jobs + 1)
    finally:
        worker.stop()
    assert all(job.attempts == 1 for job in there.storage.list_jobs())


def test_refused_job_is_released_when_the_worker_stops(
    there: Place, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    quick(registry)
    there.storage.enqueue_many([NewJob(id=name, type="quick") for name in ("good-1", "bad", "good-2")])
    there.refuse(COMPLETED)
    worker = Worker(there.storage, registry=registry)
    worker.start()
    until(lambda: events(caplog, "job.unsettled"))
    worker.stop()
    assert {job.id: (str(job.status), job.attempts) for job in there.storage.list_jobs()} == {
        "good-1": ("completed", 1),
        "bad": ("pending", 0),
        "good-2": ("completed", 1),
    }
    assert events(caplog, "job.given_back") == ["bad"]


def test_job_that_cannot_be_released_is_left_to_rescue(
    there: Place, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    quick(registry)
    there.storage.enqueue_many([NewJob(id=name, type="quick") for name in ("good-1", "bad", "good-2")])
    there.refuse(ANYTHING)
    worker = Worker(there.storage, registry=registry)
    worker.start()
    until(lambda: events(caplog, "job.unsettled"))
    worker.stop()
    assert {job.id: str(job.status) for job in there.storage.list_jobs()} == {
        "good-1": "completed",
        "bad": "running",
        "good-2": "completed",
    }
    assert set(events(caplog, "job.left_to_rescue")) == {"bad"}


@pytest.mark.parametrize("there", LEASED, indirect=True)
def test_rescue_continues_after_a_row_that_the_database_refuses(there: Place, caplog: pytest.LogCaptureFixture) -> None:
    names = [f"good-{n}" for n in range(6)]
    there.storage.enqueue_many([NewJob(id=name, type="quick") for name in (*names[:3], "bad", *names[3:])])
    dead = open_storage(there.url, lease=0.3)
    assert len(dead.dequeue_many(7)) == 7
    there.refuse(ANYTHING)
    dead.close()
    until(lambda: there.storage.rescue() or count(there.storage, "pending") == 6)
    until(lambda: there.storage.rescue() == 0)
    assert {job.id for job in there.storage.list_jobs("running")} == {"bad"}
    assert events(caplog, "job.not_rescued") == ["bad"]
    there.relent()
    until(lambda: there.storage.rescue() == 1)


@pytest.mark.parametrize("there", LEASED, indirect=True)
def test_leave_releases_the_other_jobs(there: Place, caplog: pytest.LogCaptureFixture) -> None:
    there.storage.enqueue_many([NewJob(id=name, type="quick") for name in ("good-1", "bad", "good-2")])
    assert len(there.storage.dequeue_many(3)) == 3
    there.refuse(ANYTHING)
    there.storage.leave()
    assert {job.id: str(job.status) for job in there.storage.list_jobs()} == {
        "good-1": "pending",
        "bad": "running",
        "good-2": "pending",
    }
    assert events(caplog, "job.left_to_rescue") == ["bad"]


@pytest.mark.parametrize("kind", ["sqlite", "mariadb"])
def test_prune_continues_after_rows_that_cannot_be_deleted(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """More rows than fit in a batch cannot be deleted, and all rows have the same created_at."""
    storage: Any = open_storage(place(kind, request, tmp_path))
    storage.enqueue_many([NewJob(id=f"{'bad' if n < 5 else 'good'}-{n}", type="t") for n in range(12)])
    storage.complete_many(storage.dequeue_many(12))
    with storage.engine.begin() as conn:
        conn.exec_driver_sql(
            "update jobs set created_at = (select least_at from (select min(created_at) as least_at from jobs) as x)"
        )
        if kind == "sqlite":
            conn.exec_driver_sql(
                "create trigger keep before delete on jobs when substr(old.id, 1, 3) = 'bad'"
                " begin select raise(abort, 'not this one'); end"
            )
        else:
            conn.exec_driver_sql(
                "create table notes (job_id varchar(255) collate utf8mb4_nopad_bin references jobs (id))"
            )
            conn.exec_driver_sql("insert into notes select id from jobs where left(id, 3) = 'bad'")
    assert storage.prune(timedelta(0), batch=3) == 7
    assert {job.id[:3] for job in storage.list_jobs()} == {"bad"}
    assert [
        vars(record)["jobs"]
        for record in caplog.records
        if vars(record).get("event", record.getMessage()) == "jobs.not_pruned"
    ] == [5]
    storage.close()


def test_row_that_cannot_be_deleted_does_not_affect_others(
    storage: PostgresStorage, registry: Registry, conn: psycopg.Connection[Any]
) -> None:
    """A foreign key of the user refers to a job, and the worker deletes jobs as they complete."""
    quick(registry)
    storage.enqueue_many([NewJob(id=name, type="quick") for name in ("good-1", "bad", "good-2")])
    conn.execute("create table notes (job_id text references jobs)")
    conn.execute("insert into notes values ('bad')")
    worker = Worker(storage, registry=registry, keep=timedelta(0))
    worker.start()
    until(lambda: [job.id for job in storage.list_jobs()] == ["bad"])
    worker.stop()


def test_error_with_characters_that_the_column_lacks_is_escaped(
    request: pytest.FixtureRequest, tmp_path: Path, registry: Registry
) -> None:
    storage = open_storage(place("mariadb", request, tmp_path))
    storage.ping()
    with storage.engine.begin() as conn:  # type: ignore[attr-defined]  # the storage is a SQLAlchemyStorage
        conn.exec_driver_sql("alter table jobs modify error longtext character set utf8mb3")

    @job(registry=registry, max_retries=0)
    def breaks() -> None:
        raise ValueError("snow \N{SNOWMAN}, party \N{PARTY POPPER}")

    storage.enqueue("a", "breaks", {}, max_retries=0)
    worker = Worker(storage, registry=registry)
    worker.start()
    until(lambda: count(storage, "failed") == 1)
    worker.stop()
    failed = storage.get_job("a")
    assert failed is not None
    assert r"ValueError: snow \u2603, party \U0001f389" in (failed.error or "")
    storage.close()


# -- the settler alone -----------------------------------------------------------------------------------


class Refusing(DictStorage):
    """Refuses to settle batches that contain certain jobs, and records the calls."""

    def __init__(self, *refused: str, error: Exception | None = None) -> None:
        super().__init__()
        self.refused, self.error = set(refused), error or ValueError("not this one")
        self.asked: list[list[str]] = []

    def settle(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        self.asked.append([outcome.job.id for outcome in outcomes])
        if self.refused & set(self.asked[-1]):
            raise self.error
        return super().settle(outcomes)

    def start(self, *names: str) -> list[Job]:
        self.enqueue_many([NewJob(id=name, type="t") for name in names])
        return self.dequeue_many(len(names))


def handed(storage: BaseStorage, outcomes: Sequence[Outcome]) -> tuple[Settler, InFlight]:
    in_flight = InFlight(1)
    for outcome in outcomes:
        in_flight.note_claimed(1)
        in_flight.add_outcome(outcome)
    return Settler(storage, in_flight), in_flight


def test_batch_without_an_error_is_settled_in_one_call() -> None:
    storage = Refusing()
    one, _ = handed(storage, [Completed(job) for job in storage.start(*map(str, range(100)))])
    one.run_once()
    assert [len(asked) for asked in storage.asked] == [100]


def test_refused_outcomes_are_found_by_halving() -> None:
    storage = Refusing("70")
    one, _ = handed(storage, [Completed(job) for job in storage.start(*map(str, range(100)))])
    one.run_once()
    assert [job.id for job in storage.list_jobs("running")] == ["70"]
    assert len(storage.asked) < 20


@pytest.mark.parametrize(
    "away", [StorageUnavailable("the database is away"), ConnectionResetError("the connection was reset")]
)
def test_batch_is_not_split_while_the_database_is_unavailable(away: Exception) -> None:
    storage = Refusing("1", error=away)
    one, in_flight = handed(storage, [Completed(job) for job in storage.start("0", "1", "2")])
    with pytest.raises(type(away)):
        one.run_once()
    assert storage.asked == [["0", "1", "2"]]
    assert [outcome and outcome.job.id for outcome in in_flight.outcomes] == ["0", "1", "2"]
    assert in_flight.unfinished() == 0
    storage.refused.clear()
    assert one.flush(1)
    assert len(storage.list_jobs("completed")) == 3


def test_no_outcome_is_lost_if_the_database_becomes_unavailable_while_splitting() -> None:
    class Leaving(Refusing):
        def settle(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
            if len(self.asked) == 3:
                self.error, self.refused = StorageUnavailable("it is away"), {job.id for job in self.list_jobs()}
            return super().settle(outcomes)

    storage = Leaving("0")
    one, in_flight = handed(storage, [Completed(job) for job in storage.start(*map(str, range(8)))])
    with pytest.raises(StorageUnavailable):
        one.run_once()
    storage.refused.clear()
    assert one.flush(1)
    assert len(storage.list_jobs("completed")) == 8
    assert not in_flight.outcomes


def test_refused_outcomes_are_retried_at_growing_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    storage = Refusing("bad")
    one, in_flight = handed(storage, [Completed(job) for job in storage.start("bad")])
    one.run_once()
    tries = []
    for _ in range(300):
        now += 1.0
        before = len(storage.asked)
        in_flight.has_outcome.set()  # run_once need not wait for an outcome
        one.run_once()
        tries += [now] if len(storage.asked) > before else []
    pauses = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert pauses[:6] == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0]
    assert set(pauses[5:]) == {60.0}


def test_number_of_logged_outcomes_is_limited(caplog: pytest.LogCaptureFixture) -> None:
    names = [f"bad-{n}" for n in range(50)]
    storage = Refusing(*names)
    one, _ = handed(storage, [Completed(job) for job in storage.start(*names)])
    one.run_once()
    assert len(events(caplog, "job.unsettled")) == settler.NAMED
    assert [
        vars(record)["more"]
        for record in caplog.records
        if vars(record).get("event", record.getMessage()) == "jobs.unsettled"
    ] == [40]


@pytest.mark.parametrize("kind", [Failed, Retried])
def test_error_that_cannot_be_stored_is_written_in_ascii(kind: Any) -> None:
    class Ascii(DictStorage):
        def settle(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
            for outcome in outcomes:
                if isinstance(outcome, Failed | Retried) and outcome.error is not None:
                    outcome.error.encode("ascii")
            self.settled = outcomes
            return super().settle(outcomes)

    storage = Ascii()
    storage.enqueue("a", "t", {})
    (held,) = storage.dequeue_many(1)
    one, _ = handed(storage, [Failed(held, "größe") if kind is Failed else Retried(held, 0, "größe")])
    one.run_once()
    assert [error_of(outcome) for outcome in storage.settled] == [r"gr\xf6\xdfe"]


def error_of(outcome: Outcome) -> str | None:
    assert isinstance(outcome, Failed | Retried)
    return outcome.error


def test_default_settle_can_be_repeated_after_an_error() -> None:
    """The default settle() calls the seven methods, so some outcomes are already settled when one of them raises."""

    class Halfway(DictStorage):
        def fail(self, job_id: str, error: str) -> None:
            if error == "boom":
                raise ValueError(error)
            super().fail(job_id, error)

    storage = Halfway()
    storage.enqueue_many([NewJob(id=name, type="t") for name in "abc"])
    a, b, c = storage.dequeue_many(3)
    outcomes: list[Outcome] = [Completed(a), Retried(b, 60, "x"), Failed(c, "boom")]
    with pytest.raises(ValueError, match="boom"):
        storage.settle(outcomes)
    assert storage.settle([Completed(a), Retried(b, 60, "x"), Failed(c, "bang")]) == []
    assert storage.settle([Failed(a, "late"), Completed(b)]) == [Failed(a, "late"), Completed(b)]


def test_refused_outcome_is_logged_as_an_error(caplog: pytest.LogCaptureFixture) -> None:
    storage = Refusing("bad")
    one, _ = handed(storage, [Completed(job) for job in storage.start("bad")])
    one.run_once()
    assert {
        record.levelno for record in caplog.records if vars(record).get("event", record.getMessage()) == "job.unsettled"
    } == {logging.ERROR}
