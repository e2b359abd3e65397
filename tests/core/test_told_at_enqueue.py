"""Mistakes that the call of enqueue can report, and values that it turns into JSON."""

from __future__ import annotations

import enum
import functools
import warnings
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from pgjobq import Backoff, InvalidJob, JobQueue, NewJob, Registry, Retry, UnknownJobType, Worker, job
from pgjobq.handlers import Handler


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def queue(registry: Registry) -> Iterator[JobQueue]:
    with JobQueue("sqlite:///:memory:", registry=registry) as queue:
        yield queue


@pytest.mark.parametrize(
    ("data", "misfit"),
    [
        ({"too": "a"}, "missing: to; unexpected: too"),
        ({}, "missing: to"),
        (None, "missing: to"),
        ({"to": "a", "subject": "b", 1: 2}, "unexpected: 1"),
    ],
)
def test_data_must_fit_the_handler(queue: JobQueue, registry: Registry, data: Any, misfit: str) -> None:
    @job(registry=registry)
    def send_email(to: str, subject: str = "hi") -> None: ...

    with pytest.raises(InvalidJob) as caught:
        queue.enqueue(send_email, data)
    assert f"send_email ({misfit})" in str(caught.value)
    assert caught.value.field == "data"
    assert queue.list_jobs() == []
    queue.enqueue(send_email, {"to": "a"})
    queue.enqueue("send_email", data if data and 1 not in data else {})  # by type, the handler may be elsewhere


def test_every_form_of_handler_is_checked_as_its_run_is(queue: JobQueue, registry: Registry) -> None:
    @job(registry=registry)
    def whole(data: dict[str, Any]) -> None: ...

    @job(registry=registry)
    def open_ended(job: Any, to: str, **rest: Any) -> None: ...

    @job(registry=registry)
    def with_job(job: Any) -> None: ...

    queue.enqueue(whole, {"anything": 1})
    queue.enqueue(open_ended, {"to": "a", "more": 1})
    queue.enqueue(with_job)
    for handler, data in ((open_ended, {"more": 1}), (open_ended, {"to": "a", "job": 1}), (with_job, {"job": 1})):
        with pytest.raises(InvalidJob, match="does not fit"):
            queue.enqueue(handler, data)
    assert len(queue.list_jobs()) == 3


def test_call_of_the_handler_is_told_apart(queue: JobQueue, registry: Registry) -> None:
    @job(registry=registry)
    def send_email(to: str) -> None: ...

    @job(registry=registry)
    async def send_later(to: str) -> None: ...

    called: Any = send_email
    called_later: Any = send_later
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a coroutine that was never awaited
        for given, name in ((called("x"), "NoneType"), (called_later("x"), "coroutine"), (3, "int"), ({}, "dict")):
            wrong: Any = given
            with pytest.raises(InvalidJob, match=f"^job: {name} is neither a handler nor .* pass the function and its"):
                queue.enqueue(wrong)


def test_partial_and_wrapper_of_a_handler_are_named(queue: JobQueue, registry: Registry) -> None:
    @job(registry=registry)
    def send_email(to: str) -> None: ...

    @functools.wraps(send_email)
    def wrapper(to: str) -> None: ...

    with pytest.raises(UnknownJobType, match=r"^a partial of .*send_email is not a handler; pass the function itself"):
        queue.enqueue(functools.partial(send_email, to="a"))
    with pytest.raises(UnknownJobType, match=r"wraps a handler .*; move @job above"):
        queue.enqueue(wrapper, {"to": "a"})
    with pytest.raises(UnknownJobType, match="decorate it with @job"):
        queue.enqueue(lambda: None)
    registered = job(type="to ada", registry=registry)(functools.partial(send_email, to="ada"))
    queue.enqueue(registered)


def test_timedelta_is_a_duration_everywhere(queue: JobQueue, registry: Registry) -> None:
    before = datetime.now(UTC)
    queue.enqueue("t", delay=timedelta(hours=1), job_id="later")
    later = queue.get_job("later")
    assert later is not None
    assert later.execute_at is not None
    assert timedelta(0) <= later.execute_at - before - timedelta(hours=1) < timedelta(minutes=1)
    new = queue.new_job(
        "t", delay=timedelta(minutes=1), unique_key="k", unique_for=timedelta(minutes=5), on_conflict="debounce",
        debounce_ceiling=timedelta(minutes=2),
    )  # fmt: skip
    assert (new.delay, new.unique_for, new.debounce_ceiling) == (60.0, 300.0, 120.0)
    assert Retry(timedelta(minutes=2)).delay == 120.0
    handler = Handler(type="t", function=test_timedelta_is_a_duration_everywhere, backoff=lambda _: timedelta(days=1))
    assert handler.delay(1) == 86_400.0

    @job(registry=registry, timeout=timedelta(seconds=90), max_retries=0)
    def fails() -> None:
        raise ZeroDivisionError

    assert registry.get("fails").timeout == 90.0
    failing = queue.enqueue(fails)
    Worker(queue, registry=registry, grace=timedelta(seconds=5)).run_once()
    queue.retry(failing, delay=timedelta(days=2))
    retried = queue.get_job(failing)
    assert retried is not None
    assert retried.execute_at is not None
    assert retried.execute_at - before > timedelta(days=1)
    with pytest.raises(InvalidJob, match=r"^delay: -1\.0"):
        queue.enqueue("t", delay=timedelta(seconds=-1))


class Color(enum.Enum):
    RED = "r"


class Size(enum.Enum):
    LARGE = Decimal("1.50")


class Level(enum.IntEnum):
    HIGH = 9


VALUES = [
    (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    (Decimal("10.50"), "10.50"),
    (datetime(2030, 1, 31, 9, tzinfo=UTC), "2030-01-31T09:00:00+00:00"),
    (date(2030, 1, 31), "2030-01-31"),
    (time(9, 30), "09:30:00"),
    (Color.RED, "r"),
    (Size.LARGE, "1.50"),
    (Level.HIGH, 9),
]


@pytest.mark.parametrize(("value", "stored"), VALUES)
def test_values_of_the_standard_library_are_stored_as_text(queue: JobQueue, value: Any, stored: object) -> None:
    queue.enqueue("t", {"plain": 1, "value": value, "deep": [{"value": (value,)}]}, job_id="a")
    found = queue.get_job("a")
    assert found is not None
    assert found.data == {"plain": 1, "value": stored, "deep": [{"value": [stored]}]}
    assert NewJob(type="t", data={"value": value}).data == {"value": stored}


def test_other_values_are_still_refused_beside_them(queue: JobQueue) -> None:
    for bad, message in (
        ({"a": UUID(int=1), "b": object()}, r"^data\.b: object cannot be stored"),
        ({"a": UUID(int=1), 2: "b"}, "key 2 is not a string"),
        ({"a": UUID(int=1), "b": "\0"}, r"^data\.b: contains a NUL"),
        ({UUID(int=1): 1}, "is not a string; use strings as keys"),
    ):
        wrong: Any = bad
        with pytest.raises(InvalidJob, match=message):
            queue.enqueue("t", wrong)
    assert queue.list_jobs() == []


def test_key_is_formatted_from_what_is_stored(queue: JobQueue, registry: Registry) -> None:
    """A trigger that formats the same key sees only the stored value."""

    @job(registry=registry, unique="doc:{doc_id}:{color}", backoff=Backoff())
    def index(doc_id: UUID, color: Color) -> None: ...

    new = queue.new_job(index, {"doc_id": UUID(int=1), "color": Color.RED})
    assert new.unique_key == "doc:00000000-0000-0000-0000-000000000001:r"
