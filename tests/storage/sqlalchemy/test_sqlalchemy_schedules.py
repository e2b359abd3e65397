"""Schedules on SQLite: workers fire them, and a schedule that cannot be fired stops no other."""

from __future__ import annotations

import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from helpers.until import until
from sqlalchemy import text

from pgjobq import ConfigurationError, JobQueue, Registry, Schedule, Worker, job, schedule
from pgjobq.storage.cron import ticks_until
from pgjobq.storage.sqlalchemy_storage import SQLAlchemyStorage


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/jobs.db"


def test_two_workers_run_each_tick_once(url: str) -> None:
    registry, ran = Registry(), list[str]()

    @schedule(1, overlap="allow", missed="all", registry=registry)
    @job(registry=registry)
    def beat(job: Any) -> None:
        ran.append(job.id)

    with closing(SQLAlchemyStorage(url)) as one, closing(SQLAlchemyStorage(url)) as two:
        workers = [Worker(storage, registry=registry) for storage in (one, two)]
        for worker in workers:
            worker.start()
        until(lambda: len(ran) >= 4, 30)
        for worker in workers:
            worker.stop()
        (found,) = one.list_schedules()
    assert len(set(ran)) == len(ran)
    first = datetime.fromisoformat(min(ran).partition("@")[2])
    assert sorted(ran) == [f"beat@{first + timedelta(seconds=n):%Y-%m-%dT%H:%M:%SZ}" for n in range(len(ran))]
    assert found.declared is not None


def test_schedule_that_cannot_be_evaluated_stops_no_other(url: str) -> None:
    with JobQueue(url) as queue:
        for name in ("a", "b"):
            queue.create_schedule(name, "t", "0 0 1 1 *")
            queue.update_schedule_next_run(name, datetime.now(UTC) - timedelta(seconds=5))
        storage = queue.storage
        assert isinstance(storage, SQLAlchemyStorage)
        broken = text("update job_schedules set schedule = replace(schedule, '0 0 1 1 *', 'x x x x x') where id = 'a'")
        with storage.engine.begin() as conn:
            conn.execute(broken)
        storage.maintain([])
        assert [job.id.split("@")[0] for job in queue.list_jobs()] == ["b"]
        found = queue.get_schedule("a")
        assert found is not None
        assert found.next_run is None
        assert "cannot be read" in (found.last_error or "")


def test_without_cronsim_the_error_says_what_to_install(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with JobQueue(url) as queue:
        queue.create_schedule("a", "t", 60)
        with pytest.raises(ConfigurationError, match=r"pip install 'cronsim"):
            queue.create_schedule("b", "t", "@daily")


@pytest.mark.parametrize("expression", ["* * * * *", "0 0 * * *", "0 0 1 * *", "0 0 29 2 *", "90"])
@pytest.mark.parametrize("most", [1, 3, 1000])
def test_last_ticks_of_a_long_time(expression: str, most: int) -> None:
    kind = "interval" if expression == "90" else "cron"
    first, end = datetime(2020, 2, 29, tzinfo=UTC), datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    made = Schedule("a", "t", {}, kind, expression, starts_at=first)
    found = ticks_until(made, first, end, most)
    assert found == sorted(set(found))
    assert len(found) <= most
    assert found[-1] <= end
    again = ticks_until(made, found[0], end, most)
    assert again[-len(found) :] == found
    if len(found) < most:
        assert found[0] == first
