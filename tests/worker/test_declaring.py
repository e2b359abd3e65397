"""Tests of @schedule: a worker creates what its program declares, and leaves what an operator has changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from helpers.memory_storages import DictStorage
from helpers.until import until

from pgjobq import ConfigurationError, JobQueue, Registry, Schedule, Unsupported, Worker, job, schedule
from pgjobq.storage.postgres_storage import PostgresStorage

Start = Callable[[Registry], Worker]


@pytest.fixture
def queue(dsn: str) -> Iterator[JobQueue]:
    with JobQueue(dsn) as queue:
        yield queue


@pytest.fixture
def start(dsn: str) -> Iterator[Start]:
    with ExitStack() as stack:

        def start(registry: Registry) -> Worker:
            storage = PostgresStorage(dsn)
            stack.callback(storage.close)
            worker = Worker(storage, registry=registry)
            worker.start()
            stack.callback(worker.stop)
            return worker

        yield start


def program(expression: str = "0 9 * * *", **options: Any) -> tuple[Registry, list[str]]:
    """Return the registry of a program with one declared schedule, and the list of the ids of its jobs that ran."""
    registry, ran = Registry(), list[str]()

    @schedule(expression, registry=registry, **options)
    @job(queue="reports", priority=7, registry=registry)
    def send_report(job: Any) -> None:
        ran.append(job.id)

    return registry, ran


def stored(queue: JobQueue, schedule_id: str = "send_report") -> Schedule:
    found = queue.get_schedule(schedule_id)
    assert found is not None
    return found


def test_worker_creates_what_is_declared(queue: JobQueue, start: Start) -> None:
    start(program(tz="Europe/Berlin", id="daily")[0])
    until(queue.list_schedules)
    found = stored(queue, "daily")
    assert (found.job_type, found.queue, found.priority, found.time_zone) == (
        "send_report",
        "reports",
        7,
        "Europe/Berlin",
    )
    until(lambda: queue.storage.declared_schedules() == {"daily"})


def test_declaration_ends_with_the_worker(queue: JobQueue, start: Start) -> None:
    worker = start(program()[0])
    until(lambda: queue.storage.declared_schedules() == {"send_report"})
    worker.stop()
    assert queue.storage.declared_schedules() == set()
    assert stored(queue).declared is not None


def test_pause_and_edit_outlive_a_restart_until_the_declaration_changes(queue: JobQueue, start: Start) -> None:
    start(program()[0]).stop()
    queue.enable_schedule("send_report", False)
    worker = start(program()[0])
    until(queue.storage.declared_schedules)
    assert not stored(queue).enabled
    worker.stop()
    start(program("0 8 * * *")[0])
    until(lambda: stored(queue).enabled)
    assert stored(queue).schedule_expression == "0 8 * * *"


def test_two_workers_run_a_tick_once(queue: JobQueue, start: Start) -> None:
    registry, ran = program("0 0 1 1 *", overlap="allow")
    start(registry)
    start(registry)
    until(queue.list_schedules)
    ticks = [datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=5 - n) for n in range(4)]
    for n, tick in enumerate(ticks):
        until(lambda: queue.update_schedule_next_run("send_report", tick))  # noqa: B023  # called at once
        until(lambda: len(ran) == n + 1)  # noqa: B023  # called at once
    time.sleep(0.2)
    assert sorted(ran) == [f"send_report@{tick:%Y-%m-%dT%H:%M:%SZ}" for tick in ticks]


def test_current_job(queue: JobQueue, start: Start) -> None:
    registry, gate = Registry(), threading.Event()

    @job(registry=registry)
    def slow() -> None:
        gate.wait(20)

    worker = start(registry)
    assert worker.current_job() is None
    queue.enqueue("slow", job_id="a")
    until(lambda: worker.current_job() == "a")
    gate.set()
    until(lambda: worker.current_job() is None)


def test_refused_declaration_is_logged_and_stops_nothing(
    queue: JobQueue, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    registry, _ = program("0 9 31 2 *", id="never")

    @schedule(60, id="often", registry=registry)
    @job(registry=registry)
    def other() -> None: ...

    start(registry)
    until(lambda: queue.get_schedule("often"))
    until(lambda: "schedule.refused" in caplog.text)
    assert queue.get_schedule("never") is None
    assert "due on no day" in caplog.text


def test_order_of_the_decorators_does_not_matter(queue: JobQueue, start: Start) -> None:
    registry = Registry()

    @job(registry=registry)
    @schedule(timedelta(minutes=5), data={"n": 1}, registry=registry)
    def a(n: int) -> None: ...

    start(registry)
    until(queue.list_schedules)
    assert (stored(queue, "a").schedule_expression, stored(queue, "a").job_data) == ("300", {"n": 1})


@pytest.mark.parametrize(
    ("expression", "options", "message"),
    [
        ("0 9 * *", {}, "expression: '0 9 \\* \\*' is not allowed; use five fields"),
        (None, {}, "expression: 'None' is not allowed"),
        ("@daily", {"id": "a@b"}, "id: 'a@b' is not allowed; use a name without @"),
        ("@daily", {"missed": "never"}, "missed: 'never' is not allowed; use once, skip or all"),
        ("@daily", {"jitter": -1}, "jitter: .* is not allowed; use seconds"),
        ("@daily", {"starts_at": datetime(2026, 1, 1)}, "starts_at: .* has no time zone"),  # noqa: DTZ001  # the point
    ],
)
def test_wrong_declaration_is_refused_at_once(expression: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"@schedule: {message}"):
        program(expression, **options)


def test_data_must_fit_the_handler() -> None:
    registry, _ = program(data={"to": "a"})
    with pytest.raises(ConfigurationError, match=r"data does not fit .*\(unexpected: to\)"):
        registry.schedules()


def test_function_must_be_a_handler() -> None:
    registry = Registry()
    schedule("@daily", registry=registry)(time.sleep)
    with pytest.raises(ConfigurationError, match="is not a handler; decorate it with @job"):
        registry.schedules()


def test_ids_are_unique() -> None:
    registry = Registry()

    @schedule("@daily", id="a", registry=registry)
    @schedule("@hourly", registry=registry)
    @job(registry=registry)
    def a() -> None: ...

    with pytest.raises(ConfigurationError, match="id 'a' is taken"):
        registry.schedules()
    with pytest.raises(ConfigurationError, match="another schedule of this id"):
        schedule("@weekly", registry=registry)(a)


def test_module_may_be_executed_again() -> None:
    registry = Registry()

    def define(expression: str) -> None:
        @schedule(expression, registry=registry)
        @job(registry=registry)
        def again() -> None: ...

    define("@daily")
    define("@hourly")
    assert registry.schedules()["again"].schedule_expression == "@hourly"


def test_storage_without_schedules_is_refused() -> None:
    worker = Worker(DictStorage(), registry=program()[0])
    with pytest.raises(Unsupported, match="@schedule: DictStorage has no schedules"):
        worker.start()
    assert not worker.is_running()
