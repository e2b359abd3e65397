"""Tests of extreme values of a job's fields, on every storage."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers.places import KINDS, place

from pgjobq import InvalidJob, JobQueue, NewJob

NUMBERS: list[Any] = [
    1e16,
    -1e16,
    1.5e300,
    1e300,
    5e-324,
    0.1,
    2.0,
    123456789012345680.0,
    1.7976931348623157e308,
    10**18,
]
EAST, WEST = timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))


@pytest.fixture(params=["postgresql", *KINDS])
def queue(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobQueue]:
    """Return an empty queue on each kind of storage."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    url = request.getfixturevalue("dsn") if request.param == "postgresql" else place(request.param, request, tmp_path)
    with JobQueue(url) as made:
        yield made


def test_delays_may_be_ints_and_floats(queue: JobQueue) -> None:
    delays: list[float | None] = [1000, 1000.5, None, 0, 0.0]
    ids = queue.enqueue_many([NewJob(type="t", delay=delay) for delay in delays])
    due = {}
    for job_id, delay in zip(ids, delays, strict=True):
        job = queue.get_job(job_id)
        assert job is not None
        due[delay] = job.execute_at
    assert due[1000] is not None
    assert due[1000.5] is not None
    assert abs((due[1000.5] - due[1000]).total_seconds() - 0.5) < 0.01
    assert {job.id for job in queue.storage.dequeue_many(5)} == set(ids[2:])
    queue.storage.leave()


def test_floats_come_back_as_they_were(queue: JobQueue) -> None:
    text = '"1e+16" \\ 1e+20'
    for data in ({"numbers": NUMBERS}, {text: [text, {"deep": -1.25e22}]}):
        found = queue.get_job(queue.enqueue("t", data))
        assert found is not None
        assert found.data == data
        assert repr(found.data) == repr(data)  # 1e16 stays a float


@pytest.mark.parametrize("delay", [1e16, 1e300, float("inf"), 10**400])
def test_delay_that_is_too_long_is_refused(queue: JobQueue, delay: float) -> None:
    with pytest.raises(InvalidJob, match=r"^delay: .* use seconds from 0 to"):
        queue.enqueue("t", delay=delay)
    assert queue.list_jobs() == []


@pytest.mark.parametrize(
    "moment",
    [datetime(1, 1, 1, 5, tzinfo=EAST), datetime(9999, 12, 31, 20, tzinfo=WEST), datetime.max.replace(tzinfo=UTC)],
)
def test_time_outside_the_years_of_utc_is_refused(queue: JobQueue, moment: datetime) -> None:
    with pytest.raises(InvalidJob, match=r"^execute_at: is outside the years 1 to 9999 in") as told:
        queue.enqueue("t", execute_at=moment)
    assert told.value.field == "execute_at"
    with pytest.raises(InvalidJob, match=r"^execute_at: "):
        queue.storage.enqueue("a", "t", {}, execute_at=moment)
    assert queue.list_jobs() == []


@pytest.mark.parametrize(
    "moment", [datetime(9999, 12, 31, 13, tzinfo=EAST), datetime(9999, 12, 30, 23, 59, 59, 999000, tzinfo=UTC)]
)
def test_latest_times(queue: JobQueue, moment: datetime) -> None:
    found = queue.get_job(queue.enqueue("t", execute_at=moment))
    assert found is not None
    assert found.execute_at == moment
    assert queue.storage.dequeue() is None
    queue.storage.leave()


@pytest.mark.parametrize("moment", [datetime(1, 1, 2, tzinfo=UTC), datetime(1, 1, 1, 12, tzinfo=WEST)])
def test_earliest_times(queue: JobQueue, moment: datetime) -> None:
    job_id = queue.enqueue("t", execute_at=moment)
    job = queue.storage.dequeue()
    assert job is not None
    assert (job.id, job.execute_at) == (job_id, moment)
    queue.storage.complete(job_id)
    queue.storage.leave()


def test_callers_transaction_of_postgres(dsn: str) -> None:
    with JobQueue(dsn) as queue, psycopg.connect(dsn) as conn:
        jobs = [NewJob(type="t", delay=1), NewJob(type="t", delay=1.5, data={"numbers": NUMBERS})]
        queue.enqueue_many(jobs, connection=conn)
        conn.commit()
        found = queue.get_job(jobs[1].id)
        assert found is not None
        assert repr(found.data) == repr({"numbers": NUMBERS})
