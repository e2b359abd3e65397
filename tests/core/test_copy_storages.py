"""Copying between all kinds of storages: what goes out comes in, and is worked on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from helpers.copies import DATA, LATER, all_of, copied, fill
from helpers.places import KINDS, place

from pgjobq import BaseStorage, Job, JobQueue, NewJob, Registry, Worker, job, open_storage
from pgjobq.copying import copy_jobs
from pgjobq.storage.postgres_storage import PostgresStorage

NEAR = timedelta(milliseconds=1)  # what some databases keep times to


@pytest.fixture(params=KINDS)
def their(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BaseStorage]:
    """A storage of another kind than PostgreSQL's, empty."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    storage = open_storage(place(request.param, request, tmp_path))
    yield storage
    storage.close()


def alike(one: Job, other: Job) -> bool:
    """The same in every field; times to what both databases keep."""
    mine, yours = (asdict(replace(job, worker_id=None, claim_id=None)) for job in (one, other))
    # A pending job without a due time is due at once; some storages write down when that was.
    if one.status == "pending":
        mine["execute_at"], yours["execute_at"] = (job.execute_at or job.created_at for job in (one, other))
    return all(
        abs(mine[key] - yours[key]) < NEAR
        if isinstance(mine[key], datetime) and yours[key]
        else mine[key] == yours[key]
        for key in mine
    )


@pytest.mark.parametrize("way", ["to PostgreSQL", "from PostgreSQL"])
def test_every_job_arrives_as_it_was(their: BaseStorage, storage: PostgresStorage, way: str) -> None:
    source, destination = (their, storage) if way == "to PostgreSQL" else (storage, their)
    fill(source)
    before = all_of(source)
    report = copied(source, destination, batch=3)
    assert (report.read, report.added, report.there, report.running, report.refused) == (8, 8, 0, 2, {})
    after = all_of(destination)
    assert set(after) == set(before)
    for name in before.keys() - {"running", "used-up"}:
        assert alike(before[name], after[name]), f"{before[name]}\n{after[name]}"
    assert (after["running"].status, after["running"].attempts) == ("pending", 1)
    assert (after["used-up"].status, after["used-up"].attempts) == ("failed", 1)
    assert after["later"].execute_at == LATER
    assert after["completed"].data == DATA
    again = copied(source, destination)
    assert (again.added, again.there) == (0, 8)
    assert all_of(destination) == after


def test_jobs_that_arrived_are_worked_on(their: BaseStorage, storage: PostgresStorage) -> None:
    names = [f"{n * 7919 % 1000:03}" for n in range(20)]
    storage.enqueue_many([NewJob(id=name, type="note", data={"name": name}) for name in names])
    copied(storage, their, batch=6)
    registry, seen = Registry(), list[str]()

    @job(registry=registry)
    def note(name: str) -> None:
        seen.append(name)

    worker = Worker(JobQueue(their, registry=registry), registry=registry)
    for _ in range(50):  # an index may show them a moment later
        worker.run_once()
        if len(seen) == len(names):
            break
    # All of one statement, and so of one created_at: PostgreSQL gives those out by id.
    assert seen == sorted(names)
    assert {one.status for one in their.list_jobs()} == {"completed"}


def test_many_jobs_go_there_and_back(their: BaseStorage, storage: PostgresStorage) -> None:
    """More than a page of anything; cut off once."""
    storage.enqueue_many([NewJob(id=f"{n:04}", type="t", data={"n": n}) for n in range(1500)])
    cut_off = copy_jobs(storage, their, batch=400)
    for _ in range(3):
        next(cut_off)
    cut_off.close()
    report = copied(storage, their)
    assert (report.added, report.there) == (700, 800)
    before = all_of(storage)
    storage.cancel("0000")
    storage.prune(timedelta(0))
    report = copied(their, storage)
    assert (report.added, report.there) == (1, 1499)
    after = all_of(storage)
    assert set(after) == set(before)
    assert all(alike(before[name], after[name]) for name in before)


def test_refused_jobs_leave_nothing_of_their_batch_half_done(their: BaseStorage) -> None:
    jobs = [Job(id=f"{n}", type="t") for n in range(5)]
    jobs[3] = Job(id="bad", type="t", data={"a": "\0"})
    with pytest.raises(ValueError, match="NUL"):
        their.import_jobs(jobs)
    assert their.list_jobs() == []
