"""Unique keys in Python: what enqueue takes and returns, keys that handlers format, and storages without keys."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy
from helpers.memory_storages import DictStorage, Memory
from helpers.places import KINDS, place

from pgjobq import (
    ConfigurationError,
    InvalidJob,
    JobId,
    JobQueue,
    KeyTaken,
    NewJob,
    Registry,
    StorageUnavailable,
    Unsupported,
    job,
)
from pgjobq.storage.postgres_storage import PostgresStorage

Connection = psycopg.Connection[Any]


def test_returned_id_has_the_outcome_of_the_call(queue: JobQueue) -> None:
    first = queue.enqueue("t", unique_key="k")
    second = queue.enqueue("t", unique_key="k")
    third = queue.enqueue("t", {"n": 1}, unique_key="k", on_conflict="replace")
    assert (first, second, third) == (first, first, first)
    assert [id_.outcome for id_ in (first, second, third)] == ["added", "kept", "replaced"]
    found = queue.get_job(second)
    assert found is not None
    assert (found.data, found.unique_key) == ({"n": 1}, "k")
    assert queue.enqueue("t").outcome == "added"


def test_returned_id_is_a_string(queue: JobQueue) -> None:
    """It can be pickled, and mixed with other ids in a list."""
    made = queue.enqueue("t", unique_key="k")
    again = queue.enqueue("t", unique_key="k")
    copied = pickle.loads(pickle.dumps(again))  # noqa: S301  # the test's own bytes
    assert (type(copied), copied, copied.outcome) == (JobId, made, "kept")
    queue.cancel(again)
    ids = queue.enqueue_many([NewJob(type="t", id="plain"), NewJob(type="t", id=JobId("other"))])
    assert ids == ["plain", "other"]


def test_every_argument_reaches_the_database(queue: JobQueue) -> None:
    expires_at = datetime.now(UTC) + timedelta(days=1)
    queue.enqueue("t", job_id="a", unique_key="ключ", unique_for=60, unique_while="pending", expires_at=expires_at)
    found = queue.get_job("a")
    assert found is not None
    assert (found.unique_key, found.expires_at) == ("ключ", expires_at)
    queue.cancel("a")
    assert queue.enqueue("t", unique_key="ключ", unique_for=60).outcome == "added"
    assert queue.enqueue("t", expires_at=expires_at).outcome == "added"


def test_debounce_replaces_the_data_and_restarts_the_delay(queue: JobQueue) -> None:
    for n in range(3):
        id_ = queue.enqueue("t", {"n": n}, delay=60, unique_key="k", on_conflict="debounce", debounce_ceiling=90)
    found = queue.get_job(id_)
    assert found is not None
    assert found.data == {"n": 2}
    assert found.execute_at is not None
    assert timedelta(seconds=50) < found.execute_at - datetime.now(UTC) <= timedelta(seconds=60)
    with pytest.raises(InvalidJob, match="debounce_ceiling"):
        queue.enqueue(
            "t",
            execute_at=datetime.now(UTC) + timedelta(hours=1),
            unique_key="k",
            on_conflict="debounce",
            debounce_ceiling=9,
        )


def test_error_is_raised_when_the_key_is_taken(queue: JobQueue) -> None:
    first = queue.enqueue("t", unique_key="k")
    with pytest.raises(KeyTaken, match=f"unique_key: job {first}, which is pending, has the key 'k'"):
        queue.enqueue("t", unique_key="k", on_conflict="error")
    queue.cancel(first)
    second = queue.enqueue("t", unique_key="k", on_conflict="error")
    with pytest.raises(KeyTaken, match=f"the unfinished job {second} has the key 'k'"):
        queue.retry(first)


def test_enqueue_many_returns_an_outcome_for_each_job(queue: JobQueue) -> None:
    queue.enqueue("t", unique_key="k", job_id="a")
    keys = ["k", None, "new", "k"]
    ids = queue.enqueue_many([NewJob(type="t", unique_key=key, id=f"b{n}") for n, key in enumerate(keys)])
    assert ids == ["a", "b1", "b2", "a"]
    assert [id_.outcome for id_ in ids] == ["kept", "added", "added", "kept"]
    with pytest.raises(InvalidJob, match="differ between jobs of one call"):
        queue.enqueue_many([NewJob(type="t", unique_key="x"), NewJob(type="t", unique_key="y", on_conflict="replace")])


@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1"])
def test_unique_key_on_a_connection_of_the_caller(queue: JobQueue, conn: Connection, dsn: str, encoding: str) -> None:
    conn.execute(f"set client_encoding = {encoding}")
    with conn.transaction():
        first = queue.enqueue("t", unique_key="ключ", connection=conn)
        assert queue.enqueue("t", unique_key="ключ", connection=conn).outcome == "kept"
    found = queue.get_job(first)
    assert found is not None
    assert found.unique_key == "ключ"
    engine = sqlalchemy.create_engine(f"postgresql+psycopg://?{dsn.replace(' ', '&')}")
    with engine.begin() as alchemy:
        assert queue.enqueue("t", unique_key="ключ", connection=alchemy).outcome == "kept"
    engine.dispose()


def test_unique_key_with_enqueue_async(queue: JobQueue, dsn: str) -> None:
    async def both() -> list[JobId]:
        async with await psycopg.AsyncConnection.connect(dsn) as conn:
            first = await queue.enqueue_async("t", unique_key="k", connection=conn)
        return [first, await queue.enqueue_async("t", unique_key="k")]

    first, second = asyncio.run(both())
    assert (first, first.outcome, second.outcome) == (second, "added", "kept")


def test_error_in_an_old_snapshot_says_what_to_do(queue: JobQueue, connect: Callable[..., Connection]) -> None:
    conn = connect(autocommit=False)
    conn.execute("set transaction isolation level repeatable read; select 1 from jobs")
    queue.enqueue("t", unique_key="k")
    with pytest.raises(StorageUnavailable, match=r"unique_key: the key 'k'.*run the whole transaction again"):
        queue.enqueue("t", unique_key="k", connection=conn)


@pytest.mark.parametrize(("options", "field"), [
    ({"unique_key": ""}, "unique_key"),
    ({"unique_key": "x" * 256}, "unique_key"),
    ({"unique_key": "a\0"}, "unique_key"),
    ({"unique_key": 7}, "unique_key"),
    ({"unique_while": "pending"}, "unique_while"),
    ({"unique_for": 60}, "unique_for"),
    ({"on_conflict": "keep"}, "on_conflict"),
    ({"debounce_ceiling": 60}, "debounce_ceiling"),
    ({"unique_key": "k", "unique_while": "running"}, "unique_while"),
    ({"unique_key": "k", "unique_for": 0}, "unique_for"),
    ({"unique_key": "k", "unique_for": True}, "unique_for"),
    ({"unique_key": "k", "unique_for": float("nan")}, "unique_for"),
    ({"unique_key": "k", "on_conflict": "ignore"}, "on_conflict"),
    ({"unique_key": "k", "on_conflict": "debounce"}, "delay"),
    ({"unique_key": "k", "on_conflict": "debounce", "delay": 9, "debounce_ceiling": 8}, "debounce_ceiling"),
    ({"unique_key": "k", "on_conflict": "replace", "delay": 9, "debounce_ceiling": 10}, "debounce_ceiling"),
    ({"expires_at": datetime(2100, 1, 1)}, "expires_at"),  # noqa: DTZ001  # the test needs a naive time
    ({"expires_at": "2100-01-01"}, "expires_at"),
])  # fmt: skip
def test_invalid_input_names_the_field(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidJob) as error:
        NewJob(type="t", **options)
    assert error.value.field == field


def test_expiry_in_the_past_is_refused(queue: JobQueue) -> None:
    with pytest.raises(InvalidJob, match=r"expires_at: .* is in the past; use a time in the future"):
        queue.enqueue("t", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert queue.list_jobs() == []


# -- keys that a handler formats -------------------------------------------------------------------------


def test_handler_formats_the_key_from_data(queue: JobQueue, registry: Registry) -> None:
    @job(unique="doc:{doc_id}:{lang[0]}", registry=registry)
    def reindex(doc_id: int, lang: str) -> None: ...

    first = queue.enqueue(reindex, {"doc_id": 7, "lang": "en"})
    found = queue.get_job(first)
    assert found is not None
    assert found.unique_key == "doc:7:e"
    assert queue.enqueue(reindex, {"doc_id": 7, "lang": "es"}).outcome == "kept"
    assert queue.enqueue(reindex, {"doc_id": 8, "lang": "en"}).outcome == "added"
    assert queue.enqueue(reindex, {"doc_id": 7, "lang": "en"}, unique_key="other").outcome == "added"
    assert queue.enqueue(reindex, {"doc_id": 7, "lang": "en"}, on_conflict="replace").outcome == "replaced"
    assert queue.new_job(reindex, {"doc_id": 9, "lang": "x"}).unique_key == "doc:9:x"


@pytest.mark.parametrize("data", [None, {}, {"lang": "en"}, {"doc_id": 7, "lang": 1}])
def test_data_that_lacks_a_field_of_the_key_is_refused(
    queue: JobQueue, registry: Registry, data: dict[str, Any] | None
) -> None:
    @job(type="reindex", unique="doc:{doc_id}:{lang[0]}", registry=registry)
    def reindex(data: dict[str, Any]) -> None: ...

    with pytest.raises(InvalidJob, match=r"data: the unique key of 'reindex' is 'doc:\{doc_id\}:\{lang\[0\]\}', and"):
        queue.enqueue(reindex, data)
    assert queue.list_jobs() == []


@pytest.mark.parametrize(
    ("template", "reason"),
    [("doc:{", "not a format"), ("doc:{}", "without a name"), ("doc:{0}", "without a name"),
     ("doc:{id}", "not a parameter"), (7, "not a text")],
)  # fmt: skip
def test_template_is_checked_when_the_handler_is_registered(registry: Registry, template: Any, reason: str) -> None:
    def reindex(doc_id: int) -> None: ...

    with pytest.raises(ConfigurationError, match=f"unique: .*{reason}"):
        job(unique=template, registry=registry)(reindex)
    assert len(registry) == 0


# -- other storages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_other_storages_have_no_unique_keys(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with JobQueue(place(kind, request, tmp_path)) as queue:
        name = type(queue.storage).__name__
        with pytest.raises(Unsupported, match=f"unique_key: {name} has no unique keys; leave it out"):
            queue.enqueue("t", unique_key="k")
        with pytest.raises(Unsupported, match="unique_key"):
            queue.enqueue_many([NewJob(type="t"), NewJob(type="t", unique_key="k")])
        with pytest.raises(Unsupported, match=f"expires_at: {name} has no expiry"):
            asyncio.run(queue.enqueue_async("t", expires_at=datetime(2100, 1, 1, tzinfo=UTC)))
        assert queue.list_jobs() == []
        assert queue.enqueue("t").outcome == "added"


def test_storage_of_the_seven_methods_has_no_unique_keys() -> None:
    with pytest.raises(Unsupported, match="unique_key: DictStorage has no unique keys"):
        JobQueue(DictStorage(Memory())).enqueue("t", unique_key="k")


# -- the command -------------------------------------------------------------------------------------------


def test_command_takes_the_options_of_unique_keys(storage: PostgresStorage, dsn: str) -> None:
    def run(*arguments: str) -> Any:
        command = [sys.executable, "-m", "pgjobq", "enqueue", "t", "--dsn", dsn, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    first = run("--unique-key", "k", "--expires-at", "2100-01-01T00:00Z")
    assert first.returncode == 0
    again = run("--unique-key", "k", "--unique-while", "pending", "--unique-for", "10m")
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert "another job has the unique key 'k', and was kept" in again.stderr
    (found,) = storage.list_jobs()
    assert (found.unique_key, found.expires_at) == ("k", datetime(2100, 1, 1, tzinfo=UTC))
    debounced = ("--unique-key", "k", "--on-conflict", "debounce", "--delay", "5")
    assert run(*debounced, "--debounce-ceiling", "1m").stdout == first.stdout
    for wrong in (
        ("--unique-key", "k", "--on-conflict", "error"),
        ("--unique-for", "1m"),
        (*debounced, "--debounce-ceiling", "1s"),
        ("--unique-key", "k", "--unique-for", "soon"),
        ("--expires-at", "soon"),
        ("--expires-at", "2000-01-01T00:00Z"),
    ):
        done = run(*wrong)
        assert done.returncode != 0
        assert done.stdout == ""
    assert len(storage.list_jobs()) == 1


def test_cancel_jobs_with_a_key(queue: JobQueue) -> None:
    kept = queue.enqueue("t", unique_key="a")
    other = queue.enqueue("t", unique_key="b")
    assert queue.cancel_jobs(unique_key="a", reason="no") == 1
    assert [getattr(queue.get_job(id_), "status", None) for id_ in (kept, other)] == ["cancelled", "pending"]
    with pytest.raises(InvalidJob, match=r"unique_key: "):
        queue.cancel_jobs(unique_key="x" * 256)
    with pytest.raises(Unsupported, match=r"unique_key: SQLAlchemyStorage has no unique keys"):
        JobQueue("sqlite://").cancel_jobs(unique_key="a")


def test_a_handler_declares_the_options_of_its_key(queue: JobQueue, registry: Registry) -> None:
    @job(registry=registry, unique="doc:{n}", on_conflict="debounce", debounce_ceiling=60, unique_while="pending")
    def index(n: int) -> None: ...

    with pytest.raises(InvalidJob, match="delay: debounce needs it"):
        queue.enqueue(index, {"n": 1})
    first = queue.enqueue(index, {"n": 1}, delay=5)
    again = queue.enqueue(index, {"n": 1}, delay=5)
    assert (again, again.outcome) == (first, "replaced")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"on_conflict": "keep"}, "on_conflict: has no meaning without unique"),
        ({"unique": "k", "on_conflict": "merge"}, "on_conflict: 'merge' is not a choice"),
        ({"unique": "k", "unique_for": 0}, "unique_for: 0 is not allowed"),
        ({"unique": "k", "debounce_ceiling": 5}, "debounce_ceiling: has no meaning without on_conflict='debounce'"),
    ],
)
def test_bad_options_of_a_handler(registry: Registry, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        job(registry=registry, **settings)(lambda: None)
    assert says in str(raised.value)


def test_an_expiry_before_the_job_is_due_is_refused(queue: JobQueue, conn: Any) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    with pytest.raises(InvalidJob, match=r"expires_at: .* is not after execute_at; use a later time"):
        queue.enqueue("t", execute_at=soon, expires_at=soon)
    with pytest.raises(InvalidJob, match=r"expires_at: .* is not after execute_at"):
        queue.enqueue("t", delay=7200, expires_at=soon)
    with pytest.raises(InvalidJob, match=r"expires_at: .* is not after execute_at"):
        queue.enqueue_many([queue.new_job("t"), queue.new_job("t", delay=7200, expires_at=soon)])
    assert queue.list_jobs() == []
    assert queue.enqueue("t", delay=60, expires_at=soon)
