"""Tests of schedules on PostgreSQL from Python."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from pgjobq import InvalidJob, InvalidSchedule, JobQueue, Registry, Schedule, ScheduleNotFound, Unsupported, job
from pgjobq.storage.base import BaseStorage
from pgjobq.storage.postgres_storage import PostgresStorage

Connection = psycopg.Connection[Any]


@pytest.fixture
def queue(dsn: str) -> Any:
    with JobQueue(dsn) as queue:
        yield queue


def test_create_and_read(queue: JobQueue) -> None:
    next_run = queue.create_schedule("nightly", "send", "0 9 * * *", time_zone="Europe/Berlin", data={"to": "a"})
    found = queue.get_schedule("nightly")
    assert found is not None
    assert (found.job_type, found.job_data, found.schedule_expression) == ("send", {"to": "a"}, "0 9 * * *")
    assert (found.time_zone, found.overlap, found.next_run) == ("Europe/Berlin", "skip", next_run)
    assert found.next_run is not None
    assert found.next_run.tzinfo is UTC
    assert queue.list_schedules() == [found]
    assert Schedule.from_dict(found.to_dict()) == found
    assert queue.get_schedule("other") is None


def test_handler_gives_the_defaults(dsn: str) -> None:
    registry = Registry()

    @job(queue="mail", priority=7, max_retries=1, registry=registry)
    def send() -> None: ...

    with JobQueue(dsn, registry=registry) as queue:
        queue.create_schedule("nightly", send, timedelta(minutes=15), priority=9)
        found = queue.get_schedule("nightly")
    assert found is not None
    assert (found.job_type, found.queue, found.priority, found.max_retries) == ("send", "mail", 9, 1)
    assert (found.schedule_type, found.schedule_expression) == ("interval", "900")


def test_the_form_of_dbjobq(queue: JobQueue) -> None:
    at: Any = datetime(2030, 1, 1, tzinfo=UTC).timestamp()  # DBJobQ's times are seconds
    queue.create_schedule(Schedule("a", "t", {"n": 1}, "interval", "60", at, enabled=True))
    queue.create_schedule(Schedule("b", "t", {}, "cron", "@daily", at))
    assert queue.enable_schedule("b", False)
    assert [one.id for one in queue.list_schedules(enabled_only=True)] == ["a"]
    assert queue.get_due_schedules() == []
    assert queue.update_schedule_next_run("a", 1_700_000_000.0, 1_600_000_000.0)
    (due,) = queue.get_due_schedules()
    assert due.id == "a"
    assert due.last_run == datetime.fromtimestamp(1_600_000_000, UTC)
    assert queue.delete_schedule("a")
    assert not queue.delete_schedule("a")
    assert not queue.enable_schedule("a", True)
    assert not queue.update_schedule_next_run("a", None)


def test_moved_run_is_fired_once(queue: JobQueue, dsn: str) -> None:
    queue.create_schedule("a", "t", "0 0 1 1 *")
    before = queue.get_schedule("a")
    assert before is not None
    moved = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=5)
    queue.update_schedule_next_run("a", moved)
    with closing(PostgresStorage(dsn)) as other:
        assert [job.id for job in other.dequeue_many(5)] == [f"a@{moved:%Y-%m-%dT%H:%M:%SZ}"]
        assert other.dequeue_many(5) == []
    after = queue.get_schedule("a")
    assert after is not None
    assert (after.next_run, after.last_run) == (before.next_run, moved)


def test_run_backfill_and_preview(queue: JobQueue) -> None:
    queue.create_schedule("a", "t", "0 0 * * *", enabled=False)
    assert queue.run_schedule("a").startswith("a@")
    until = datetime(2026, 1, 10, tzinfo=UTC)
    assert queue.backfill_schedule("a", until - timedelta(days=4), until) == 5
    ticks = queue.next_ticks("0 9 * * *", "Europe/Berlin", until, 2)
    assert ticks == [until + timedelta(hours=8), until + timedelta(days=1, hours=8)]
    for call in (queue.run_schedule, lambda name: queue.backfill_schedule(name, until)):
        with pytest.raises(ScheduleNotFound, match="id: there is no schedule 'b'"):
            call("b")


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"expression": "0 9 * *"}, "expression"),
        ({"expression": "61 9 * * *"}, "expression"),
        ({"expression": 0.1}, "expression"),
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"id": "a@b"}, "id"),
        ({"id": ""}, "id"),
        ({"data": {"x": float("nan")}}, "data"),
        ({"missed": "never"}, "missed"),
        ({"missed": "all", "overlap": "skip"}, "overlap"),
        ({"jitter": -1}, "jitter"),
        ({"catch_up": 0}, "catch_up"),
        ({"priority": 2**40}, "priority"),
        ({"starts_at": datetime(2026, 1, 1)}, "starts_at"),  # noqa: DTZ001  # the point
        ({"job": None}, "job"),
        ({"queue": "x" * 300}, "queue"),
    ],
)
def test_refusals_name_the_field(queue: JobQueue, values: dict[str, Any], field: str) -> None:
    given: dict[str, Any] = {"id": "a", "job": "t", "expression": "0 9 * * *"} | values
    with pytest.raises(InvalidSchedule, match="use") as raised:
        queue.create_schedule(given.pop("id"), given.pop("job"), given.pop("expression"), **given)
    assert raised.value.field == field
    assert isinstance(raised.value, InvalidJob)
    assert queue.list_schedules() == []


def test_unknown_option(queue: JobQueue) -> None:
    with pytest.raises(TypeError, match="'tz' is not an option of a schedule"):
        queue.create_schedule("a", "t", "@daily", tz="UTC")  # type: ignore[call-arg]  # the point


def test_storage_without_schedules_says_so() -> None:
    from helpers.memory_storages import DictStorage

    storage: BaseStorage = DictStorage()
    with pytest.raises(Unsupported, match="DictStorage has no schedules"):
        JobQueue(storage).create_schedule("a", "t", "@daily")
    assert storage.declared_schedules() is None
