"""A storage that implements only the seven methods works with Worker and JobQueue, by the defaults of BaseStorage."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from helpers.memory_storages import ENDS, DictStorage
from helpers.until import until

from pgjobq import (
    BaseStorage,
    DuplicateJob,
    InvalidJob,
    Job,
    JobQueue,
    JobStatus,
    LostJob,
    NewJob,
    Registry,
    Retry,
    Unsupported,
    Worker,
    job,
)
from pgjobq.backoff import constant
from pgjobq.storage.base import Completed, Failed, Maintenance, Outcome, Released, Retried


@pytest.fixture
def memory() -> DictStorage:
    return DictStorage()


@pytest.fixture
def jobs(memory: DictStorage, registry: Registry) -> JobQueue:
    return JobQueue(memory, registry=registry)


@pytest.fixture
def start(jobs: JobQueue, registry: Registry) -> Iterator[Callable[..., Worker]]:
    """Return a function that starts workers on the storage. They are stopped at the end."""
    workers: list[Worker] = []

    def make(**options: Any) -> Worker:
        workers.append(Worker(jobs, registry=registry, **options))
        workers[-1].start()
        return workers[-1]

    yield make
    for worker in workers:
        worker.stop(grace=1)


def finished(memory: DictStorage, job_id: str) -> Job:
    """Wait until the job has finished, and return it."""
    until(lambda: memory.jobs[job_id].status in ENDS, seconds=10)
    return memory.jobs[job_id]


def test_jobs_complete_sync_and_async(
    memory: DictStorage, jobs: JobQueue, registry: Registry, start: Callable[..., Worker]
) -> None:
    ran: list[int] = []

    @job(registry=registry)
    def count(n: int) -> None:
        ran.append(n)

    @job(registry=registry)
    async def count_async(n: int) -> None:
        ran.append(n)

    ids = [jobs.enqueue(count if n % 2 else count_async, {"n": n}) for n in range(40)]
    start(concurrency=4)
    assert {finished(memory, job_id).status for job_id in ids} == {JobStatus.COMPLETED}
    assert sorted(ran) == list(range(40))
    assert {found.attempts for found in jobs.list_jobs()} == {1}


def test_failing_jobs_are_retried_until_no_tries_are_left(
    memory: DictStorage, jobs: JobQueue, registry: Registry, start: Callable[..., Worker]
) -> None:
    @job(registry=registry, max_retries=2, backoff=constant(0))
    def breaks() -> None:
        raise ValueError("no luck")

    @job(registry=registry)
    def second_time(job: Job) -> None:
        if job.attempts < 2:
            raise Retry(delay=0.01)

    bad, good, unknown = jobs.enqueue(breaks), jobs.enqueue(second_time), jobs.enqueue("nobody_knows")
    start(fail_unknown=True)
    failed = finished(memory, bad)
    assert (failed.status, failed.attempts) == (JobStatus.FAILED, 3)
    assert str(failed.error).startswith("ValueError: no luck")
    assert (finished(memory, good).status, memory.jobs[good].attempts) == (JobStatus.COMPLETED, 2)
    assert "nobody_knows" in str(finished(memory, unknown).error)


def test_worker_starts_a_job_that_is_enqueued_while_it_waits(
    memory: DictStorage,
    jobs: JobQueue,
    registry: Registry,
    start: Callable[..., Worker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits = threading.Event()
    sleep = memory.wait

    def wait(timeout: float, queues: Sequence[str] | None = None) -> None:
        waits.set()
        sleep(timeout, queues)

    monkeypatch.setattr(memory, "wait", wait)

    @job(registry=registry)
    def quick() -> None: ...

    start()
    assert waits.wait(5)
    assert finished(memory, jobs.enqueue(quick)).status == JobStatus.COMPLETED
    assert finished(memory, jobs.enqueue(quick, delay=0.3)).status == JobStatus.COMPLETED


def test_stopped_worker_releases_unfinished_jobs(
    memory: DictStorage, jobs: JobQueue, registry: Registry, start: Callable[..., Worker]
) -> None:
    began, go = threading.Event(), threading.Event()

    @job(registry=registry)
    def stuck() -> None:
        began.set()
        go.wait(20)

    job_id = jobs.enqueue(stuck)
    worker = start()
    assert began.wait(5)
    worker.stop(grace=0)
    assert memory.jobs[job_id].status == JobStatus.PENDING
    go.set()


def test_queue_other_than_default_is_unsupported(memory: DictStorage, jobs: JobQueue, registry: Registry) -> None:
    @job(registry=registry, queue="mail")
    def mail() -> None: ...

    with pytest.raises(Unsupported, match="queue: DictStorage has no queues; leave the queue out"):
        jobs.enqueue(mail)
    with pytest.raises(Unsupported, match="queue"):
        jobs.enqueue("greet", queue="mail")
    with pytest.raises(Unsupported, match="queue: DictStorage has no queues; leave the queue out"):
        jobs.list_jobs(queue="default")
    assert memory.jobs == {}


def test_unknown_status_is_refused(jobs: JobQueue) -> None:
    with pytest.raises(InvalidJob, match="status: 'done' is not a status; use pending, running"):
        jobs.list_jobs("done")


def test_optional_features_are_unsupported_by_default(memory: DictStorage, jobs: JobQueue) -> None:
    memory.enqueue("a", "greet", {})
    with pytest.raises(Unsupported, match="DictStorage cannot enqueue on the caller"):
        jobs.enqueue("greet", connection=object())
    with pytest.raises(Unsupported, match="DictStorage cannot enqueue on the caller"):
        asyncio.run(jobs.enqueue_async("greet", connection=object()))
    with pytest.raises(Unsupported, match="DictStorage cannot cancel"):
        jobs.cancel("a")
    with pytest.raises(Unsupported, match="DictStorage cannot prune"):
        memory.prune(timedelta(days=1))
    with pytest.raises(Unsupported, match="DictStorage cannot import jobs with their state"):
        memory.import_jobs([memory.jobs["a"]])
    with pytest.raises(Unsupported, match="DictStorage cannot complete jobs in a transaction"):
        memory.transaction(memory.jobs["a"])
    assert list(memory.jobs) == ["a"]


def test_default_enqueue_many_keeps_order_and_turns_delay_into_execute_at(memory: DictStorage) -> None:
    before = datetime.now(UTC)
    new = [NewJob(id="a", type="t", priority=7, max_retries=1), NewJob(id="b", type="t", data={"x": 1}, delay=60)]
    assert memory.enqueue_many(new) == ["a", "b"]
    assert asyncio.run(memory.enqueue_many_async([NewJob(id="c", type="t")])) == ["c"]
    assert list(memory.jobs) == ["a", "b", "c"]
    assert (memory.jobs["a"].priority, memory.jobs["a"].max_retries) == (7, 1)
    due = memory.jobs["b"].execute_at
    assert due is not None
    assert 60 <= (due - before).total_seconds() < 65
    with pytest.raises(DuplicateJob):
        memory.enqueue_many([NewJob(id="a", type="t")])


def test_default_dequeue_many_takes_due_jobs_in_order(memory: DictStorage) -> None:
    memory.enqueue_many([NewJob(id=f"p{n}", type="t", priority=n) for n in range(5)])
    memory.enqueue_many([NewJob(id="later", type="t", priority=9, delay=60)])
    assert [found.id for found in memory.dequeue_many(2)] == ["p4", "p3"]
    assert [found.id for found in memory.dequeue_many(9, ["ignored"])] == ["p2", "p1", "p0"]
    assert memory.dequeue_many(9) == []


def test_default_settle_reports_lost_jobs_and_settles_the_rest(memory: DictStorage) -> None:
    memory.enqueue_many([NewJob(id=name, type="t") for name in "abcdef"])
    held = {found.id: found for found in memory.dequeue_many(6)}
    memory.fail("e", "before")
    del memory.jobs["f"]
    outcomes: list[Outcome] = [
        Completed(held["a"]),
        Failed(held["b"], "broken"),
        Retried(held["c"], 60.0, "again"),
        Released(held["d"]),
        Completed(held["e"]),
        Completed(held["f"]),
    ]
    assert memory.settle(outcomes) == outcomes[4:]
    statuses = {name: memory.jobs[name].status for name in "abcd"}
    assert statuses == {"a": "completed", "b": "failed", "c": "pending", "d": "pending"}
    assert memory.jobs["b"].error == "broken"
    assert memory.dequeue_many(9) == [memory.jobs["d"]]  # the released job is due at once, the retried job is not


def test_default_complete_many_and_release(memory: DictStorage) -> None:
    memory.enqueue_many([NewJob(id=name, type="t") for name in "abc"])
    a, b, _ = memory.dequeue_many(3)
    memory.fail("b", "before")
    assert memory.complete_many([a, b]) == [b]
    memory.release("c")
    assert memory.jobs["c"].status == JobStatus.PENDING
    with pytest.raises(LostJob):
        memory.release("a")
    assert memory.settle([Completed(memory.jobs["c"])]) != []  # this object does not hold the job any more


def test_default_counts_name_every_status(memory: DictStorage) -> None:
    assert memory.counts() == dict.fromkeys(JobStatus, 0)
    memory.enqueue_many([NewJob(type="t") for _ in range(3)])
    memory.dequeue()
    assert memory.counts() == {**dict.fromkeys(JobStatus, 0), JobStatus.PENDING: 2, JobStatus.RUNNING: 1}


def test_default_export_gives_batches_oldest_first(memory: DictStorage) -> None:
    for name in "abcde":
        memory.enqueue(name, "greet", {})
    assert [[one.id for one in batch] for batch in memory.export_jobs(2)] == [["a", "b"], ["c", "d"], ["e"]]


def test_default_maintenance_does_nothing_and_wait_is_short(memory: DictStorage) -> None:
    memory.enqueue("a", "t", {})
    running = memory.dequeue_many(1)
    assert memory.rescue() == 0
    assert memory.maintain(running) == Maintenance(lost=(), rescued=0)
    began = time.monotonic()
    memory.wait(60)
    memory.wait(0.01)
    assert time.monotonic() - began < 2
    # The other methods do nothing by default.
    memory.on_watch(lambda: None)
    memory.wake()
    memory.leave()
    memory.close()
    assert memory.jobs["a"].status == JobStatus.RUNNING


def test_maintain_reports_the_count_of_an_overridden_rescue() -> None:
    class Rescuer(DictStorage):
        def rescue(self) -> int:
            return 2

    assert Rescuer().maintain([]).rescued == 2


def test_storage_without_one_of_the_seven_methods_cannot_be_created() -> None:
    class Six(DictStorage):
        pass

    abstract = {"enqueue", "dequeue", "complete", "fail", "retry", "get_job", "list_jobs"}
    assert BaseStorage.__abstractmethods__ == abstract
    for name in abstract:
        lacking = type("Lacking", (BaseStorage,), {n: getattr(DictStorage, n) for n in abstract - {name}})
        with pytest.raises(TypeError, match=name):
            lacking()
    assert isinstance(Six(), BaseStorage)


@pytest.mark.parametrize("option", ["priorty", "type", "id", "json"])
def test_unknown_option_of_a_job_is_refused_by_name(memory: DictStorage, jobs: JobQueue, option: str) -> None:
    given: Any = {option: "x"}
    with pytest.raises(TypeError, match=f"'{option}' is not an option of a job; the options are priority, delay, .*"):
        jobs.enqueue("count", {}, **given)
    assert not memory.jobs
