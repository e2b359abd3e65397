"""Tests of PostgresStorage: order, settling, fencing and invalid arguments."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from pgjobq import (
    ConfigurationError,
    DuplicateJob,
    InvalidJob,
    JobNotFound,
    JobQueue,
    JobStatus,
    LostJob,
    NewJob,
    NotMigrated,
    StorageUnavailable,
)
from pgjobq.storage.base import Completed, Failed, Released, Retried
from pgjobq.storage.postgres_storage import PostgresStorage

MakeStorage = Callable[..., PostgresStorage]
Connection = psycopg.Connection[Any]


def test_job_goes_from_enqueue_to_completed(storage: PostgresStorage) -> None:
    storage.enqueue("a", "greet", {"name": "Ü \U0001f600", "n": [1, {"x": None}]}, max_retries=1, priority=7)
    waiting = storage.get_job("a")
    assert waiting is not None
    assert (waiting.status, waiting.attempts, waiting.priority, waiting.max_retries) == (JobStatus.PENDING, 0, 7, 1)
    assert waiting.created_at.tzinfo is UTC

    started = storage.dequeue()
    assert started is not None
    assert (started.id, started.status, started.attempts) == ("a", JobStatus.RUNNING, 1)
    assert started.data == {"name": "Ü \U0001f600", "n": [1, {"x": None}]}
    assert storage.dequeue() is None

    storage.complete("a")
    done = storage.get_job("a")
    assert done is not None
    assert done.status == JobStatus.COMPLETED
    assert done.finished_at is not None


def test_order_by_priority_then_by_due_time(storage: PostgresStorage) -> None:
    soon = datetime.now(UTC) - timedelta(seconds=1)
    storage.enqueue("low", "t", {}, priority=1)
    storage.enqueue("first", "t", {})
    storage.enqueue("second", "t", {}, execute_at=soon)
    storage.enqueue("high", "t", {}, priority=9)
    storage.enqueue("future", "t", {}, priority=9, execute_at=datetime.now(UTC) + timedelta(hours=1))
    assert [job.id for job in storage.dequeue_many(10)] == ["high", "first", "second", "low"]


def test_priority_holds_across_queues(storage: PostgresStorage) -> None:
    storage.enqueue("a5", "t", {}, queue="a")
    storage.enqueue("b9", "t", {}, priority=9, queue="b")
    storage.enqueue("a7", "t", {}, priority=7, queue="a")
    storage.enqueue("c8", "t", {}, priority=8, queue="c")
    assert [job.id for job in storage.dequeue_many(2, ["a", "b"])] == ["b9", "a7"]
    assert [job.id for job in storage.dequeue_many(9)] == ["c8", "a5"]


def test_retry_keeps_the_error_and_hides_the_job_for_its_delay(storage: PostgresStorage, conn: Connection) -> None:
    storage.enqueue("a", "t", {})
    job = storage.dequeue()
    assert job is not None
    assert storage.settle([Retried(job, 60, "ValueError: no")]) == []
    waiting = storage.get_job("a")
    assert waiting is not None
    assert (waiting.status, waiting.error, waiting.attempts) == (JobStatus.PENDING, "ValueError: no", 1)
    assert storage.dequeue() is None
    conn.execute("update jobs set execute_at = now() - interval '1 second' where id = 'a'")
    again = storage.dequeue()
    assert again is not None
    assert again.attempts == 2


def test_retried_job_is_ordered_by_priority(storage: PostgresStorage) -> None:
    storage.enqueue("a", "t", {}, priority=9)
    storage.dequeue()
    storage.enqueue("b", "t", {}, priority=5)
    storage.retry("a", 0)
    assert [job.id for job in storage.dequeue_many(2)] == ["a", "b"]


def test_duplicate_id_changes_nothing(storage: PostgresStorage) -> None:
    storage.enqueue("a", "t", {"v": 1})
    with pytest.raises(DuplicateJob, match="a"):
        storage.enqueue("a", "t", {"v": 2})
    with pytest.raises(DuplicateJob):
        storage.enqueue_many([NewJob(type="t", id="b"), NewJob(type="t", id="a")])
    assert [(job.id, job.data) for job in storage.list_jobs()] == [("a", {"v": 1})]
    assert len(storage.dequeue_many(10)) == 1


@pytest.mark.parametrize("call", ["complete", "fail", "retry", "cancel"])
def test_unknown_id(storage: PostgresStorage, call: str) -> None:
    arguments: list[Any] = ["boom"] if call == "fail" else [0] if call == "retry" else []
    with pytest.raises(JobNotFound, match="nobody"):
        getattr(storage, call)("nobody", *arguments)


@pytest.mark.parametrize("call", ["complete", "fail"])
def test_settling_acts_only_on_a_running_job(storage: PostgresStorage, call: str) -> None:
    storage.enqueue("a", "t", {})
    arguments = ["boom"] if call == "fail" else []
    with pytest.raises(LostJob, match="pending"):
        getattr(storage, call)("a", *arguments)
    assert storage.counts()[JobStatus.PENDING] == 1


def test_repeated_complete_is_refused_and_repeated_settle_is_accepted(storage: PostgresStorage) -> None:
    storage.enqueue("a", "t", {})
    job = storage.dequeue()
    assert job is not None
    storage.complete("a")
    with pytest.raises(LostJob, match="completed"):
        storage.complete("a")
    # A worker repeats a settle whose answer was lost.
    assert storage.settle([Completed(job)]) == []
    assert storage.settle([Failed(job, "late")]) == [Failed(job, "late")]


def test_late_settle_of_a_lost_job_is_refused(make_storage: MakeStorage, conn: Connection) -> None:
    first, second = make_storage(), make_storage()
    first.enqueue("a", "t", {})
    lost = first.dequeue()
    assert lost is not None
    conn.execute("select give_back_claims(%s, '{}', 'crashed', null)", [lost.worker_id])
    again = second.dequeue()
    assert again is not None
    assert again.attempts == 2
    for outcome in (Completed(lost), Failed(lost, "x"), Retried(lost, 0, "x"), Released(lost)):
        assert first.settle([outcome]) == [outcome]
    with pytest.raises(LostJob):
        first.complete("a")
    assert first.maintain([lost]).lost == [lost]
    job = second.get_job("a")
    assert job is not None
    assert (job.status, job.attempts, job.worker_id) == (JobStatus.RUNNING, 2, again.worker_id)
    second.complete("a")


def test_release_does_not_count_the_start(storage: PostgresStorage) -> None:
    storage.enqueue("a", "t", {})
    storage.dequeue()
    storage.release("a")
    job = storage.dequeue()
    assert job is not None
    assert job.attempts == 1


def test_mixed_outcomes_settle_in_one_call(storage: PostgresStorage, conn: Connection) -> None:
    storage.enqueue_many([NewJob(type="t", id=name) for name in "abcd"])
    a, b, c, d = storage.dequeue_many(4)
    error = "Boom: \0 \ud800"
    assert storage.settle([Completed(a), Failed(b, error), Retried(c, 0, error), Released(d)]) == []
    assert {job.id: str(job.status) for job in storage.list_jobs()} == {
        "a": "completed",
        "b": "failed",
        "c": "pending",
        "d": "pending",
    }
    assert storage.get_job("b").error == "Boom: \\0 \\ud800"  # type: ignore[union-attr]  # the job exists
    assert conn.execute("select count(*) from claims").fetchone() == (0,)


def test_cancel(storage: PostgresStorage) -> None:
    storage.enqueue("waits", "t", {})
    storage.enqueue("runs", "t", {}, priority=9)
    running = storage.dequeue()
    assert running is not None
    assert storage.cancel("waits")
    assert storage.cancel("runs")
    assert not storage.cancel("runs")
    assert storage.dequeue() is None
    assert storage.settle([Completed(running)]) == [Completed(running)]
    assert storage.counts()[JobStatus.CANCELLED] == 2
    storage.retry("waits", 0)
    assert storage.dequeue() is not None


def test_prune_deletes_finished_jobs_past_their_age(storage: PostgresStorage, conn: Connection) -> None:
    storage.enqueue_many([NewJob(type="t", id=f"{n:02}") for n in range(25)])
    for job in storage.dequeue_many(20):
        storage.complete(job.id)
    conn.execute(
        "update jobs set created_at = created_at - interval '9 days', finished_at = finished_at - interval '8 days'"
    )
    conn.execute("update jobs set finished_at = now() where id = '00'")
    assert storage.prune(timedelta(days=7), batch=10) == 19
    assert storage.prune(timedelta(days=7)) == 0
    assert {job.id for job in storage.list_jobs()} == {"00"} | {f"{n:02}" for n in range(20, 25)}


def test_list_jobs_filters_and_limits(storage: PostgresStorage) -> None:
    storage.enqueue_many([NewJob(type="t", id=name, queue="q" if name < "c" else "default") for name in "abcd"])
    storage.dequeue_many(1, ["q"])
    assert [job.id for job in storage.list_jobs("running")] == ["a"]
    assert {job.id for job in storage.list_jobs("pending")} == {"b", "c", "d"}
    assert len(storage.list_jobs("pending", 2)) == 2
    assert storage.list_jobs("pending", 0) == []
    assert [job.id for job in storage.list_jobs(None, None, "q")] == ["b", "a"]
    with pytest.raises(InvalidJob, match="status: 'done' is "):
        storage.list_jobs("done")
    with pytest.raises(InvalidJob, match="limit: -1"):
        storage.list_jobs(limit=-1)


def test_large_data_is_allowed_and_can_be_limited(make_storage: MakeStorage, conn: Connection, dsn: str) -> None:
    storage = make_storage()
    storage.enqueue("big", "t", {"text": "x" * 1_500_000})
    job = storage.dequeue()
    assert job is not None
    assert len(job.data["text"]) == 1_500_000
    with pytest.raises(InvalidJob, match="max_data_bytes"):
        make_storage(max_data_bytes=100).enqueue("b", "t", {"text": "x" * 100})
    conn.execute("set pgjobq.max_data_bytes = 100")
    with pytest.raises(psycopg.Error, match=r"data: has 1\d\d bytes") as error:
        conn.execute("select enqueue_job('t', jsonb_build_object('text', repeat('x', 100)))")
    assert error.value.sqlstate == "JQ001"
    assert "reference" in str(error.value.diag.message_hint)


def test_claim_whose_answer_was_lost_loses_no_job(storage: PostgresStorage, conn: Connection) -> None:
    storage.enqueue_many([NewJob(type="t", id=name) for name in "ab"])
    (a,) = storage.dequeue_many(1)
    # The database has claimed b for this worker, but the answer was lost.
    conn.execute("select from claim_jobs(%s, null, 1)", [a.worker_id])
    storage._claiming._may_hold_unknown = True
    (b,) = storage.dequeue_many(5)
    assert (b.id, b.attempts) == ("b", 1)
    assert storage.complete_many([a, b]) == []


def test_server_that_does_not_answer() -> None:
    storage = PostgresStorage("postgresql://nobody@127.0.0.1:1/nowhere")
    with pytest.raises(StorageUnavailable, match=r"127\.0\.0\.1"):
        storage.get_job("a")
    storage.close()


def test_invalid_dsn() -> None:
    with pytest.raises(ConfigurationError, match="dsn"):
        PostgresStorage("this is no dsn")
    with pytest.raises(ConfigurationError, match="oracle"):
        JobQueue("oracle://x")


def test_database_without_the_schema(empty_dsn: str) -> None:
    storage = PostgresStorage(empty_dsn)
    with pytest.raises(NotMigrated, match="pgjobq migrate"):
        storage.enqueue("a", "t", {})
    storage.close()
