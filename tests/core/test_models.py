"""Job, NewJob and ids: what is normalized, what is refused, and the messages of the refusals."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import json
import math
import os
import pickle
import subprocess
import sys
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgjobq.errors import InvalidJob
from pgjobq.ids import new_job_id
from pgjobq.models import Job, JobStatus, NewJob, utc_now

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

# Texts that both JSON and PostgreSQL can store.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
LEAVES = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=10
)
DATA = st.dictionaries(TEXTS, VALUES, max_size=4)
TIMES = st.datetimes(datetime(1000, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  # Hypothesis needs naive bounds


# Job


def test_job_has_defaults() -> None:
    before = utc_now()
    job = Job(id="1", type="send_email")

    assert (job.data, job.status, job.queue, job.priority, job.attempts, job.max_retries) == (
        {},
        JobStatus.PENDING,
        "default",
        5,
        0,
        3,
    )
    assert (job.execute_at, job.error, job.started_at, job.finished_at, job.failed_at, job.worker_id) == (None,) * 6
    assert before <= job.created_at <= job.updated_at <= utc_now()
    assert job.data is not Job(id="2", type="send_email").data


@pytest.mark.parametrize("status", ["pending", "running", "completed", "failed", "cancelled"])
def test_status_can_be_given_as_a_string(status: str) -> None:
    job = Job(id="1", type="t", status=status)  # type: ignore[arg-type]  # as other storages do

    assert isinstance(job.status, JobStatus)
    assert job.status == status


@pytest.mark.parametrize("status", ["done", "PENDING", "", None, 3])
def test_unknown_status_is_refused_with_the_known_ones_listed(status: Any) -> None:
    with pytest.raises(InvalidJob, match="use pending, running, completed, failed or cancelled") as caught:
        Job(id="1", type="t", status=status)

    assert caught.value.field == "status"
    assert repr(status) in str(caught.value)


class Later(datetime):
    """A subclass of datetime, as some libraries return."""


@pytest.mark.parametrize(
    "given_time",
    [
        MOMENT,
        MOMENT.replace(tzinfo=None),
        MOMENT.astimezone(timezone(timedelta(hours=-9))),
        MOMENT.isoformat(),
        "2026-01-02T03:04:05.678901",
        "2026-01-02T05:34:05.678901+02:30",
        "2026-01-02T03:04:05.678901Z",
        Later(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    ],
)
@pytest.mark.parametrize("name", ["created_at", "updated_at", "execute_at", "started_at", "finished_at", "failed_at"])
def test_times_are_converted_to_utc(name: str, given_time: Any) -> None:
    job = Job(**{"id": "1", "type": "t", name: given_time})

    assert getattr(job, name) == MOMENT
    assert getattr(job, name).tzinfo is UTC


@pytest.mark.parametrize("given_time", ["tomorrow", "", 1767323045, dt.date(2026, 1, 2)])
def test_invalid_time_is_refused_by_field_name(given_time: Any) -> None:
    with pytest.raises(InvalidJob, match=r"^execute_at: .* is not a time; use a datetime or an ISO string") as caught:
        Job(id="1", type="t", execute_at=given_time)

    assert caught.value.field == "execute_at"


@settings(deadline=None)  # a busy machine must not fail the test
@given(
    st.builds(
        Job,
        id=TEXTS,
        type=TEXTS,
        data=DATA,
        status=st.sampled_from(JobStatus),
        queue=TEXTS,
        priority=st.integers(),
        attempts=st.integers(),
        max_retries=st.integers(),
        error=st.none() | TEXTS,
        created_at=TIMES,
        updated_at=TIMES,
        execute_at=st.none() | TIMES,
        started_at=st.none() | TIMES,
        finished_at=st.none() | TIMES,
        failed_at=st.none() | TIMES,
        worker_id=st.none() | st.integers(),
    )
)
def test_job_survives_a_round_trip_through_json(job: Job) -> None:
    assert Job.from_dict(json.loads(json.dumps(job.to_dict()))) == job


def test_to_dict_names_every_field_in_plain_types() -> None:
    values = Job(id="1", type="t", created_at=MOMENT, updated_at=MOMENT, status=JobStatus.RUNNING).to_dict()

    assert list(values) == [field.name for field in dataclasses.fields(Job)]
    assert values["created_at"] == "2026-01-02T03:04:05.678901+00:00"
    assert type(values["status"]) is str


def test_from_dict_reads_what_another_storage_wrote() -> None:
    # This is the format of a storage that writes ISO times without a zone and adds a key of its own.
    job = Job.from_dict(
        {
            "id": "1",
            "type": "send_email",
            "data": {"to": "a@b.c"},
            "status": "running",
            "attempts": 1,
            "max_retries": 3,
            "priority": 5,
            "execute_at": None,
            "created_at": "2026-01-02T03:04:05.678901",
            "updated_at": "2026-01-02T03:04:05.678901",
            "_score": -5,
        }
    )

    assert job == Job(
        id="1",
        type="send_email",
        data={"to": "a@b.c"},
        status=JobStatus.RUNNING,
        attempts=1,
        created_at=MOMENT,
        updated_at=MOMENT,
    )


def test_job_is_an_immutable_value() -> None:
    job = Job(id="1", type="t", data={"a": [1]}, created_at=MOMENT, updated_at=MOMENT)

    assert pickle.loads(pickle.dumps(job)) == job  # noqa: S301  # our own bytes
    assert len({job, dataclasses.replace(job), dataclasses.replace(job, attempts=1)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        job.attempts = 2  # type: ignore[misc]  # the test needs this error
    with pytest.raises(TypeError):
        Job("1", "t")  # type: ignore[call-arg]  # the test needs this error


# Ids


def test_id_is_a_uuid_of_version_7_with_the_current_time() -> None:
    before = time.time_ns() // 1_000_000
    text = new_job_id()
    after = time.time_ns() // 1_000_000

    parsed = uuid.UUID(text)
    assert str(parsed) == text
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    # The ids of this process may be slightly ahead of the clock if many were created within a microsecond each.
    assert before <= parsed.int >> 80 <= after + 1


@pytest.fixture
def own_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore the last id at the end, because the test sets the clock far ahead."""
    monkeypatch.setattr("pgjobq.ids._last_id", 0)


@pytest.mark.usefixtures("own_ids")
def test_ids_increase_when_the_clock_stops_or_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_800_000_000_000_000_000
    readings = [now] * 5_000 + [now - 3_600 * 10**9] * 100 + [now + 244, now + 10**9]
    clock = iter(readings)
    monkeypatch.setattr(time, "time_ns", lambda: next(clock))

    ids = [new_job_id() for _ in readings]

    assert all(a < b for a, b in itertools.pairwise(ids))
    assert all(uuid.UUID(text).version == 7 for text in ids)
    assert uuid.UUID(ids[0]).int >> 80 == now // 1_000_000
    assert uuid.UUID(ids[-1]).int >> 80 == now // 1_000_000 + 1_000


@pytest.mark.usefixtures("own_ids")
@settings(deadline=None)  # a busy machine must not fail the test
@given(st.lists(st.integers(0, 2**62), min_size=2, max_size=30))
def test_ids_increase_whatever_the_clock_says(readings: list[int]) -> None:
    clock = iter(readings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: next(clock))
        ids = [new_job_id() for _ in readings]

    assert ids == sorted(set(ids))


def test_ids_of_many_threads_differ_and_increase_in_each_thread() -> None:
    made: list[list[str]] = [[] for _ in range(8)]
    start = threading.Barrier(8)

    def make(ids: list[str]) -> None:
        start.wait()
        ids.extend(new_job_id() for _ in range(5_000))

    threads = [threading.Thread(target=make, args=(ids,)) for ids in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({text for ids in made for text in ids}) == 40_000
    assert all(ids == sorted(ids) for ids in made)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no os.fork")
def test_forked_child_creates_its_own_ids_even_when_the_lock_was_held() -> None:
    # Run in a separate process, because a forked child would inherit the threads and fixtures of the test run.
    program = """
import os, time
from pgjobq import ids
ids.new_job_id()
time.time_ns = lambda: 1_800_000_000_000_000_000  # parent and child see the same time
ids._id_lock.acquire()
if os.fork() == 0:
    print(ids.new_job_id(), flush=True)
    os._exit(0)
os.wait()
ids._id_lock.release()
print(ids.new_job_id())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)

    child, parent = done.stdout.split()
    assert child[:18] == parent[:18]
    assert child != parent


# NewJob


@settings(deadline=None)  # a busy machine must not fail the test
@given(DATA)
def test_data_survives_a_round_trip_through_json(data: dict[str, Any]) -> None:
    job = NewJob(type="t", data=data)

    assert json.loads(job.json) == data
    job.json.encode()  # PostgreSQL receives it as UTF-8


def test_new_job_has_defaults() -> None:
    one, two = NewJob(type="send_email"), NewJob(type="send_email")

    assert (one.queue, one.priority, one.max_retries, one.execute_at, one.delay) == ("default", 5, 3, None, None)
    assert (one.data, one.json) == ({}, "{}")
    assert one.id < two.id
    assert one.data is not two.data
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.priority = 9  # type: ignore[misc]  # the test needs this error


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "x"},
        {"type": "ü" * 255},
        {"queue": "x" * 255},
        {"id": "x"},
        {"id": "order/17 again"},
        {"priority": -(2**31)},
        {"priority": 2**31 - 1},
        {"max_retries": 0},
        {"max_retries": 1_000_000},
        {"execute_at": MOMENT},
        {"execute_at": MOMENT.astimezone(timezone(timedelta(hours=13)))},
        {"delay": 0},
        {"delay": 0.001},
        {"delay": 86_400 * 365},
        {"data": {"": "", "nested": {"list": [1, 2.5, None, True, (1, 2)]}}},
    ],
)
def test_valid_values_are_kept_unchanged(fields: dict[str, Any]) -> None:
    job = NewJob(**{"type": "t", **fields})

    assert {name: getattr(job, name) for name in fields} == fields


NAIVE = datetime(2026, 1, 2)  # noqa: DTZ001  # the test needs a naive time


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"type": ""}, "type", "type: has 0 characters; use the name of a handler, 1 to 255 characters"),
        ({"type": "x" * 10_000}, "type", "type: has 10000 characters; use "),
        ({"type": None}, "type", "type: None is not a string; use "),
        ({"type": b"send"}, "type", "type: b'send' is not a string; use "),
        ({"type": "a\0b"}, "type", "type: contains a NUL character"),
        ({"type": "a\ud800"}, "type", "type: contains half of a surrogate pair"),
        ({"queue": ""}, "queue", "queue: has 0 characters; use the name of a queue"),
        ({"queue": "x" * 256}, "queue", "queue: has 256 characters; use "),
        ({"queue": "a\0b"}, "queue", "queue: contains a NUL character"),
        ({"id": ""}, "job_id", "job_id: has 0 characters; use "),
        ({"id": "x" * 256}, "job_id", "job_id: has 256 characters; use "),
        ({"id": uuid.UUID(int=7)}, "job_id", "job_id: UUID("),
        ({"id": "a\0b"}, "job_id", "job_id: contains a NUL character"),
        (
            {"priority": 2**31},
            "priority",
            "priority: 2147483648 is not allowed; use a whole number from -2147483648 to ",
        ),
        ({"priority": -(2**31) - 1}, "priority", "priority: -2147483649 is not allowed; use "),
        ({"priority": 1.0}, "priority", "priority: 1.0 is not allowed; use a whole number "),
        ({"priority": True}, "priority", "priority: True is not allowed; use a whole number "),
        ({"priority": "5"}, "priority", "priority: '5' is not allowed; use a whole number "),
        ({"priority": None}, "priority", "priority: None is not allowed; use a whole number "),
        ({"max_retries": -1}, "max_retries", "max_retries: -1 is not allowed; use a whole number from 0 to "),
        ({"max_retries": 2**31}, "max_retries", "max_retries: 2147483648 is not allowed; use "),
        ({"max_retries": False}, "max_retries", "max_retries: False is not allowed; use "),
        (
            {"execute_at": NAIVE},
            "execute_at",
            "execute_at: 2026-01-02T00:00:00 has no time zone; use an aware datetime",
        ),
        (
            {"execute_at": "2026-01-02T00:00:00Z"},
            "execute_at",
            "execute_at: '2026-01-02T00:00:00Z' is not a datetime; ",
        ),
        (
            {"execute_at": dt.date(2026, 1, 2)},
            "execute_at",
            "execute_at: datetime.date(2026, 1, 2) is not a datetime; ",
        ),
        ({"delay": -0.1}, "delay", "delay: -0.1 is not allowed; use seconds from 0 to "),
        ({"delay": math.nan}, "delay", "delay: nan is not allowed; use seconds "),
        ({"delay": math.inf}, "delay", "delay: inf is not allowed; use seconds "),
        ({"delay": 1e300}, "delay", "delay: 1e+300 is not allowed; use seconds "),
        ({"delay": "60"}, "delay", "delay: '60' is not allowed; use seconds "),
        ({"delay": True}, "delay", "delay: True is not allowed; use seconds "),
        ({"delay": timedelta(-1)}, "delay", "delay: -86400.0 is not allowed; use seconds "),
        ({"delay": 1, "execute_at": MOMENT}, "delay", "delay: cannot be combined with execute_at; use only one"),
        ({"data": None}, "data", "data: NoneType is not a dict; use a dict"),
        ({"data": [1]}, "data", "data: list is not a dict; use a dict"),
        ({"data": '{"a": 1}'}, "data", "data: str is not a dict; use a dict"),
        ({"data": {1: 2}}, "data", "data: key 1 is not a string"),
        ({"data": {"a": [{"b": {None: 1}}]}}, "data", "data.a[0].b: key None is not a string"),
        ({"data": {"a": {"x\0y": 1}}}, "data", "data.a key 'x\\x00y': contains a NUL character"),
        ({"data": {"items": [1, 2, 3, {"note": "\0"}]}}, "data", "data.items[3].note: contains a NUL character"),
        ({"data": {"a": 10**5_000}}, "data", "data"),
    ],
)
def test_invalid_values_are_refused_by_field_name(fields: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        NewJob(**{"type": "t", **fields})

    assert str(caught.value).startswith(message)
    assert caught.value.field == field


BAD_LEAVES = st.sampled_from(
    [
        (math.nan, "nan is not a JSON number"),
        (math.inf, "inf is not a JSON number"),
        (-math.inf, "-inf is not a JSON number"),
        ("a\0", "contains a NUL character"),
        ("\udc80", "contains half of a surrogate pair"),
        (b"bytes", "bytes cannot be stored as JSON"),
        ({1, 2}, "set cannot be stored as JSON"),
        (timedelta(1), "timedelta cannot be stored as JSON"),
        (1j, "complex cannot be stored as JSON"),
        (object(), "object cannot be stored as JSON"),
    ]
)
# Each step nests the value in a dict with other keys, or in a list after other items.
GOOD_LEAVES: st.SearchStrategy[Any] = st.sampled_from([None, True, 0, 1.5, "", "\\u0000", "{", [], {}])
STEPS = st.lists(
    st.tuples(st.dictionaries(TEXTS, GOOD_LEAVES, max_size=2), TEXTS) | st.lists(GOOD_LEAVES, max_size=3), max_size=5
)


@settings(deadline=None)  # a busy machine must not fail the test
@given(BAD_LEAVES, st.dictionaries(TEXTS, GOOD_LEAVES, max_size=2), TEXTS, STEPS)
def test_value_that_json_cannot_hold_is_named_by_its_path(
    bad: tuple[Any, str], beside: dict[str, Any], first: str, steps: list[Any]
) -> None:
    value, wrong = bad
    path = ""
    for step in reversed(steps):
        if isinstance(step, list):
            value, path = [*step, value], f"[{len(step)}]{path}"
        else:
            siblings, key = step
            value, path = {**siblings, key: value}, f".{key}{path}"

    with pytest.raises(InvalidJob) as caught:
        NewJob(type="t", data={**beside, first: value})

    assert str(caught.value).startswith(f"data.{first}{path}: {wrong}")
    assert caught.value.field == "data"


def test_text_that_looks_like_an_escaped_nul_is_allowed() -> None:
    data = {"a": "\\u0000", "b": {"c": ["{\\u0000}"]}}

    assert json.loads(NewJob(type="t", data=data).json) == data


def test_data_that_contains_itself_is_refused() -> None:
    data: dict[str, Any] = {}
    data["me"] = [data]

    with pytest.raises(InvalidJob, match=r"^data\.me\[0\]\.me.*nested too deeply, or contains itself"):
        NewJob(type="t", data=data)


@pytest.mark.parametrize("depth", [2_000, 50_000])
def test_data_that_is_nested_too_deeply_is_refused(depth: int) -> None:
    data: dict[str, Any] = {}
    for _ in range(depth):
        data = {"a": data}

    with pytest.raises(InvalidJob, match="nested too deeply"):
        NewJob(type="t", data=data)
