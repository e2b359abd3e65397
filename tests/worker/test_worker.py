"""The worker on a real database: what handlers receive, how their jobs end, and how the worker stops."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from helpers.until import until
from helpers.working import finished

from pgjobq import ConfigurationError, Fail, Job, JobQueue, JobStatus, LostJob, Registry, Retry, Worker, job
from pgjobq.backoff import constant
from pgjobq.storage.postgres_storage import PostgresStorage

Connection = psycopg.Connection[Any]
StartWorker = Callable[..., Worker]


@pytest.fixture
def start(queue: JobQueue, registry: Registry) -> Iterator[StartWorker]:
    """Return a function that starts workers on the queue. They are stopped at the end."""
    workers: list[Worker] = []

    def make(on: Any = queue, **options: Any) -> Worker:
        workers.append(Worker(on, registry=registry, **{"grace": 5, **options}))
        workers[-1].start()
        return workers[-1]

    yield make
    for worker in workers:
        worker.stop(grace=1)


def status_of(queue: JobQueue, job_id: str) -> JobStatus:
    found = queue.get_job(job_id)
    assert found is not None
    return found.status


def test_handlers_receive_data_as_their_parameters_ask(queue: JobQueue, registry: Registry, start: StartWorker) -> None:
    seen: dict[str, Any] = {}

    @job(registry=registry)
    def named(to: str, subject: str = "none") -> None:
        seen["named"] = (to, subject)

    @job(registry=registry)
    def whole(data: dict[str, Any]) -> None:
        seen["whole"] = data

    @job(registry=registry)
    async def both(job: Job, **rest: Any) -> None:
        seen["both"] = (job.id, job.attempts, job.status, rest)

    ids = [queue.enqueue(named, {"to": "a"}), queue.enqueue(whole, {"x": 1}), queue.enqueue(both, {"y": 2}, job_id="b")]
    start()
    assert [finished(queue, job_id).status for job_id in ids] == [JobStatus.COMPLETED] * 3
    assert seen == {"named": ("a", "none"), "whole": {"x": 1}, "both": ("b", 1, JobStatus.RUNNING, {"y": 2})}


def test_failed_job_is_retried_after_its_backoff_until_no_tries_are_left(
    queue: JobQueue, registry: Registry, start: StartWorker
) -> None:
    starts: list[int] = []

    @job(registry=registry, max_retries=2, backoff=constant(0))
    def breaks(job: Job) -> None:
        starts.append(job.attempts)
        raise ValueError("no luck")

    job_id = queue.enqueue(breaks)
    start()
    failed = finished(queue, job_id)
    assert failed.status == JobStatus.FAILED
    assert starts == [1, 2, 3]
    assert failed.attempts == 3
    assert failed.failed_at is not None
    assert failed.error is not None
    assert failed.error.startswith("ValueError: no luck\nTraceback")
    assert "test_worker.py" in failed.error


def test_handler_can_ask_for_a_retry_or_fail_at_once(queue: JobQueue, registry: Registry, start: StartWorker) -> None:
    @job(registry=registry)
    def later() -> None:
        raise Retry(delay=3600, reason="rate limit")

    @job(registry=registry)
    async def never() -> None:
        raise Fail("no such customer")

    waits, fails = queue.enqueue(later), queue.enqueue(never)
    start()
    failed = finished(queue, fails)
    assert (failed.status, failed.attempts, failed.error) == (JobStatus.FAILED, 1, "Fail: no such customer")
    waiting = until(lambda: (found := queue.get_job(waits)) and found.attempts and found.status == "pending" and found)
    assert waiting.error == "Retry: rate limit"
    assert 3590 < (waiting.execute_at - waiting.updated_at).total_seconds() < 3610


def test_data_that_does_not_fit_fails_the_job_at_once_and_names_the_keys(
    queue: JobQueue, registry: Registry, start: StartWorker
) -> None:
    @job(registry=registry)
    def mail(to: str, subject: str) -> None:
        raise AssertionError("must not run")

    job_id = queue.enqueue("mail", {"to": "a", "sbject": "typo"})
    unknown = queue.enqueue("nobody_knows")
    start(fail_unknown=True)
    failed = finished(queue, job_id)
    assert (failed.status, failed.attempts) == (JobStatus.FAILED, 1)
    assert "missing: subject" in str(failed.error)
    assert "unexpected: sbject" in str(failed.error)
    assert "no handler for jobs of type 'nobody_knows'; registered: mail" in str(finished(queue, unknown).error)


def test_job_that_python_cannot_read_fails_without_affecting_others(
    queue: JobQueue, registry: Registry, start: StartWorker, conn: Connection
) -> None:
    @job(registry=registry)
    def whole(data: dict[str, Any]) -> None: ...

    deep = '{"a":' * 3000 + "1" + "}" * 3000
    conn.execute("select enqueue_job('whole', %s::jsonb, 9, job_id => 'deep')", [deep])
    conn.execute("select enqueue_job('whole', %s::jsonb, 9, job_id => 'long')", ['{"n": ' + "9" * 5000 + "}"])
    good = queue.enqueue(whole, {"n": 1})
    start()
    assert finished(queue, good).status == JobStatus.COMPLETED
    for job_id in ("deep", "long"):
        assert str(finished(queue, job_id).error).startswith("BadArguments: data cannot be read: ")
    assert len(queue.list_jobs()) == 3


def test_job_fails_if_a_sync_wrapper_returns_a_coroutine(
    queue: JobQueue, registry: Registry, start: StartWorker
) -> None:
    async def inner() -> None: ...

    @job(registry=registry)
    def wrapper() -> Any:
        return inner()

    job_id = queue.enqueue(wrapper)
    start()
    assert "make the wrapper async" in str(finished(queue, job_id).error)


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_timeout_fails_the_job_and_frees_its_place(
    queue: JobQueue, registry: Registry, start: StartWorker, colour: str
) -> None:
    release = threading.Event()

    @job(registry=registry, timeout=0.2, max_retries=0)
    def slow() -> None:
        release.wait(20)

    @job(registry=registry, timeout=0.2, max_retries=0)
    async def slow_async() -> None:
        await asyncio.sleep(20)

    @job(registry=registry)
    def quick() -> None: ...

    stuck = queue.enqueue(slow if colour == "sync" else slow_async)
    start(concurrency=1)
    failed = finished(queue, stuck)
    assert failed.error == "JobTimeout: ran longer than 0.2 seconds"
    # The handler is stuck, but its place is free again.
    assert finished(queue, queue.enqueue(quick)).status == JobStatus.COMPLETED
    release.set()


def test_transaction_completes_the_job_with_the_handlers_work(
    queue: JobQueue, registry: Registry, start: StartWorker, conn: Connection
) -> None:
    conn.execute("create table public.effects (job_id text)")

    @job(registry=registry)
    def effect(job: Any) -> None:
        with job.transaction() as transaction:
            transaction.execute("insert into public.effects values (%s)", [job.id])

    @job(registry=registry)
    async def async_effect(job: Any) -> None:
        async with job.transaction() as transaction:
            await transaction.execute("insert into public.effects values (%s)", [job.id])

    @job(registry=registry, max_retries=0)
    def broken(job: Any) -> None:
        with job.transaction() as transaction:
            transaction.execute("insert into public.effects values (%s)", [job.id])
            raise ValueError("after the insert")

    good = [queue.enqueue(effect, job_id="a"), queue.enqueue(async_effect, job_id="b")]
    bad = queue.enqueue(broken, job_id="c")
    worker = start()
    assert [finished(queue, job_id).status for job_id in good] == [JobStatus.COMPLETED] * 2
    assert finished(queue, bad).status == JobStatus.FAILED
    assert conn.execute("select job_id from public.effects order by 1").fetchall() == [("a",), ("b",)]
    worker.stop()
    assert conn.execute("select count(*) from claims").fetchone() == (0,)


def test_transaction_of_a_lost_job_is_rolled_back(
    queue: JobQueue, registry: Registry, start: StartWorker, conn: Connection
) -> None:
    conn.execute("create table public.effects (job_id text)")
    raised: list[BaseException] = []

    @job(registry=registry)
    def effect(job: Any) -> None:
        try:
            with job.transaction() as transaction:
                transaction.execute("insert into public.effects values (%s)", [job.id])
                conn.execute("select cancel_job(%s)", [job.id])
        except LostJob as error:
            raised.append(error)
            raise

    job_id = queue.enqueue(effect)
    start()
    assert finished(queue, job_id).status == JobStatus.CANCELLED
    until(lambda: raised)
    assert conn.execute("select count(*) from public.effects").fetchone() == (0,)


def test_cancelled_async_handler_is_stopped(queue: JobQueue, registry: Registry, start: StartWorker) -> None:
    began, stopped = threading.Event(), threading.Event()

    @job(registry=registry)
    async def endless() -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            stopped.set()
            raise

    job_id = queue.enqueue(endless)
    start()
    assert began.wait(5)
    assert queue.cancel(job_id)
    assert stopped.wait(5)
    assert status_of(queue, job_id) == JobStatus.CANCELLED


def test_pause_and_resume(queue: JobQueue, registry: Registry, start: StartWorker) -> None:
    @job(registry=registry)
    def quick() -> None: ...

    worker = start()
    assert (worker.is_running(), worker.is_paused()) == (True, False)
    assert finished(queue, queue.enqueue(quick)).status == JobStatus.COMPLETED
    worker.pause()
    assert worker.is_paused()
    # A claim may be under way when pause() returns, so wait until the fetcher has stopped.
    until(lambda: not worker._fetcher.resumed.is_set())
    time.sleep(0.1)
    held = queue.enqueue(quick)
    time.sleep(0.5)
    assert status_of(queue, held) == JobStatus.PENDING
    worker.resume()
    assert finished(queue, held).status == JobStatus.COMPLETED
    worker.stop()
    assert not worker.is_running()


def test_stop_waits_for_running_jobs_and_releases_the_rest(
    queue: JobQueue, registry: Registry, start: StartWorker, conn: Connection
) -> None:
    began, go = threading.Event(), threading.Event()

    @job(registry=registry)
    def slow() -> None:
        began.set()
        go.wait(10)

    running = queue.enqueue(slow, priority=9)
    worker = start(concurrency=1)
    assert began.wait(5)
    waiting = [queue.enqueue(slow) for _ in range(3)]
    threading.Timer(0.3, go.set).start()
    worker.stop(grace=5)
    assert status_of(queue, running) == JobStatus.COMPLETED
    left = [queue.get_job(job_id) for job_id in waiting]
    assert [(found.status, found.attempts) for found in left if found] == [(JobStatus.PENDING, 0)] * 3
    assert conn.execute("select (select count(*) from claims) + (select count(*) from workers)").fetchone() == (0,)


def test_stop_without_grace_releases_running_jobs(queue: JobQueue, registry: Registry, start: StartWorker) -> None:
    began, go = threading.Event(), threading.Event()

    @job(registry=registry)
    def stuck() -> None:
        began.set()
        go.wait(20)

    job_id = queue.enqueue(stuck)
    worker = start()
    assert began.wait(5)
    worker.stop(grace=0)
    found = queue.get_job(job_id)
    assert found is not None
    assert (found.status, found.attempts) == (JobStatus.PENDING, 0)
    go.set()


def test_worker_serves_only_its_queues(queue: JobQueue, registry: Registry, start: StartWorker) -> None:
    @job(registry=registry, queue="mail")
    def mail() -> None: ...

    other, mine = queue.enqueue(mail, queue="other"), queue.enqueue(mail)
    start(queues=["mail"])
    assert finished(queue, mine).status == JobStatus.COMPLETED
    assert status_of(queue, other) == JobStatus.PENDING


def test_scheduled_job_runs_when_it_is_due(queue: JobQueue, registry: Registry, start: StartWorker) -> None:
    ran: list[float] = []

    @job(registry=registry)
    def timed() -> None:
        ran.append(time.monotonic())

    start()
    time.sleep(0.3)  # let the worker fall asleep with no scheduled job
    asked = time.monotonic()
    queue.enqueue(timed, delay=0.7)
    until(lambda: ran)
    assert 0.65 < ran[0] - asked < 3


def test_worker_continues_after_it_lost_its_connections(
    queue: JobQueue, registry: Registry, start: StartWorker, conn: Connection
) -> None:
    began, go = threading.Event(), threading.Event()

    @job(registry=registry)
    def slow() -> None:
        began.set()
        go.wait(10)

    @job(registry=registry)
    def quick() -> None: ...

    cut = queue.enqueue(slow)
    start()
    assert began.wait(5)
    cutting = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    assert conn.execute(cutting).fetchone() is not None
    go.set()
    # Either this worker settles the job, or the job is rescued and tried again. It completes once in both cases.
    completed = "select status from jobs where id = %s"
    until(lambda: conn.execute(completed, [cut]).fetchone() == ("completed",))
    again = conn.execute("select enqueue_job('quick')").fetchone()
    until(lambda: conn.execute(completed, again).fetchone() == ("completed",))


def test_storage_can_be_used_by_only_one_worker(queue: JobQueue, registry: Registry, start: StartWorker) -> None:
    start()
    with pytest.raises(ConfigurationError, match="create a storage for each Worker"):
        start()


def test_many_jobs_run_once_each_and_leave_no_rows_behind(
    queue: JobQueue,
    registry: Registry,
    start: StartWorker,
    conn: Connection,
    make_storage: Callable[..., PostgresStorage],
) -> None:
    ran: list[int] = []

    @job(registry=registry)
    def count(n: int) -> None:
        ran.append(n)

    @job(registry=registry)
    async def count_async(n: int) -> None:
        ran.append(n)

    jobs = [queue.new_job(count if n % 2 else count_async, {"n": n}) for n in range(3000)]
    queue.enqueue_many(jobs)
    workers = [start(), start(make_storage())]
    until(lambda: queue.counts()[JobStatus.COMPLETED] == 3000, 30)
    assert sorted(ran) == list(range(3000))
    for worker in workers:
        worker.stop()
    left = "select (select count(*) from ready) + (select count(*) from claims) + (select count(*) from workers) + (select count(*) from doorbell)"
    assert conn.execute(left).fetchone() == (0,)


def test_run_once_runs_the_due_jobs(queue: JobQueue, registry: Registry) -> None:
    @job(registry=registry)
    def quick() -> None: ...

    queue.enqueue_many([queue.new_job(quick) for _ in range(3)])
    queue.enqueue(quick, delay=60)
    assert Worker(queue, registry=registry).run_once(limit=2) == 2
    assert Worker(queue, registry=registry).run_once() == 1
    assert queue.counts()[JobStatus.PENDING] == 1


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"queues": "mail"}, {"queues": []}, {"grace": -1}])
def test_invalid_settings_are_refused_by_name(storage: PostgresStorage, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        Worker(storage, **options)
