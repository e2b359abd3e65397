"""Jobs that are copied between PostgreSQL and every other kind of storage arrive unchanged and can run."""

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

NEAR = timedelta(milliseconds=1)  # the precision of times in some databases


@pytest.fixture(params=KINDS)
def their(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BaseStorage]:
    """An empty storage of another kind than PostgresStorage."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    storage = open_storage(place(request.param, request, tmp_path))
    yield storage
    storage.close()


def alike(one: Job, other: Job) -> bool:
    """Return whether the jobs are equal in every field, with times to the precision that both databases keep."""
    mine, yours = (asdict(replace(job, worker_id=None, claim_id=None)) for job in (one, other))
    # A pending job without execute_at is due at once. Some storages store the time of the enqueue instead.
    if one.status == "pending":
        mine["execute_at"], yours["execute_at"] = (job.execute_at or job.created_at for job in (one, other))
    return all(
        abs(mine[key] - yours[key]) < NEAR
        if isinstance(mine[key], datetime) and yours[key]
        else mine[key] == yours[key]
        for key in mine
    )


@pytest.mark.parametrize("way", ["to PostgreSQL", "from PostgreSQL"])
def test_every_job_arrives_unchanged(their: BaseStorage, storage: PostgresStorage, way: str) -> None:
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


def test_copied_jobs_run(their: BaseStorage, storage: PostgresStorage) -> None:
    names = [f"{n * 7919 % 1000:03}" for n in range(20)]
    storage.enqueue_many([NewJob(id=name, type="note", data={"name": name}) for name in names])
    copied(storage, their, batch=6)
    registry, seen = Registry(), list[str]()

    @job(registry=registry)
    def note(name: str) -> None:
        seen.append(name)

    worker = Worker(JobQueue(their, registry=registry), registry=registry)
    for _ in range(50):  # an index may be eventually consistent
        worker.run_once()
        if len(seen) == len(names):
            break
    # One statement enqueued all jobs with the same created_at, so PostgreSQL exports them in the order of their ids.
    assert seen == sorted(names)
    assert {one.status for one in their.list_jobs()} == {"completed"}


def test_many_jobs_are_copied_there_and_back(their: BaseStorage, storage: PostgresStorage) -> None:
    """Copy more jobs than fit in one page of any storage, and interrupt the copy once."""
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


def test_refused_job_undoes_the_import_of_its_whole_batch(their: BaseStorage) -> None:
    jobs = [Job(id=f"{n}", type="t") for n in range(5)]
    jobs[3] = Job(id="bad", type="t", data={"a": "\0"})
    with pytest.raises(ValueError, match="NUL"):
        their.import_jobs(jobs)
    assert their.list_jobs() == []
