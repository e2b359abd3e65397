"""Jobs whose worker died, on storages with leases: the log names them, and each then runs alone."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from helpers.places import KINDS, place

from pgjobq import BaseStorage, NewJob, open_storage
from pgjobq.outcomes import Completed, Failed, Released

Open = Callable[..., BaseStorage]


@pytest.fixture(params=KINDS)
def opened(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Return a function that opens storages on one database. They are closed at the end."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    url = place(request.param, request, tmp_path)
    made: list[BaseStorage] = []

    def opened(**options: Any) -> BaseStorage:
        made.append(open_storage(url, **options))
        return made[-1]

    yield opened
    for storage in made:
        storage.close()


def crash(storage: BaseStorage, opened: Open, jobs: int) -> int:
    """Let a worker claim this many jobs and die, rescue them, and return the worker's id."""
    with closing(opened(lease=0.2)) as dead:
        held = dead.dequeue_many(jobs)
    assert len(held) == jobs
    deadline, rescued = time.monotonic() + 20, 0
    while rescued < jobs:
        rescued += storage.rescue()
        assert time.monotonic() < deadline
    return int(held[0].worker_id or 0)


def test_log_names_the_dead_worker_and_its_jobs(opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    storage = opened(lease=0.2)
    storage.enqueue_many([NewJob(id=name, type="t") for name in ("a", "b")])
    workers = [crash(storage, opened, 2)]
    storage.enqueue("c", "t", {})
    workers += [crash(storage, opened, 3) for _ in range(2)]
    lines = [vars(record) for record in caplog.records if vars(record).get("event") == "jobs.rescued"]
    assert [line["worker_id"] for line in lines] == workers
    assert all(line["worker_name"].startswith(f"{socket.gethostname()}:") for line in lines)
    assert all(0.2 <= line["stood"] < 20 for line in lines)
    assert [set(line["job_ids"].split()) for line in lines] == [{"a", "b"}, {"a", "b", "c"}, {"a", "b", "c"}]
    assert [(line["rescued"], line["failed"]) for line in lines] == [(2, 0), (3, 0), (1, 2)]
    assert "crashes" not in lines[0]
    assert set(lines[1]["crashes"].split()) == {"a:2", "b:2"}
    assert set(lines[2]["crashes"].split()) == {"a:3", "b:3", "c:2"}
    assert set(lines[2]["failed_ids"].split()) == {"a", "b"}
    failed = storage.get_job("a")
    assert failed is not None
    assert str(failed.error).endswith("(try 1 of 4, crash 3 of 3); it failed because of its crashes")
    assert failed.failed_at == failed.finished_at is not None


def test_job_whose_worker_crashed_runs_alone(opened: Open) -> None:
    storage = opened()
    storage.suspects_alone = True
    storage.enqueue_many([NewJob(id=name, type="t") for name in ("a", "b")])
    crash(storage, opened, 2)
    storage.enqueue_many([NewJob(id=name, type="t") for name in ("c", "d")])
    for _ in range(2):
        (held,) = storage.dequeue_many(9)
        assert held.crashes == 1
        assert storage.dequeue_many(9) == []
        assert storage.settle([Completed(held)]) == []
    assert sorted(job.id for job in storage.dequeue_many(9)) == ["c", "d"]
    assert {job.attempts for job in storage.list_jobs()} == {1, 2}
    assert sum(job.crashes for job in storage.list_jobs()) == 0


def test_suspect_waits_until_the_other_jobs_have_ended(opened: Open) -> None:
    """The worker claims nothing for some seconds while it runs another job. Later it claims the suspect alone."""
    storage = opened()
    storage.suspects_alone = True
    storage.enqueue("a", "t", {}, max_retries=0)
    crash(storage, opened, 1)
    storage.enqueue("first", "t", {}, priority=9)
    first, *others = storage.dequeue_many(1)
    assert (first.id, others) == ("first", [])
    assert storage.dequeue_many(9) == []  # the suspect was claimed and released, and its start is not counted
    suspect = storage.get_job("a")
    assert suspect is not None
    assert (suspect.status, suspect.attempts, suspect.crashes) == ("pending", 1, 1)
    storage.enqueue("second", "t", {}, priority=9)
    assert storage.dequeue_many(9) == []
    assert storage.settle([Completed(first)]) == []
    (second,) = storage.dequeue_many(1)
    assert second.id == "second"
    assert storage.settle([Released(second, 60.0)]) == []
    deadline = time.monotonic() + 10
    while not (found := storage.dequeue_many(9)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert [job.id for job in found] == ["a"]
    assert storage.settle([Failed(found[0], "boom")]) == []
    failed = storage.get_job("a")
    assert failed is not None
    assert (failed.status, failed.attempts, failed.crashes) == ("failed", 1, 0)
