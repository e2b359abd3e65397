"""Tests of RedisStorage on Valkey and Redis: the contract, and what only this storage does.

The tests of faults are in test_redis_faults.py.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from helpers.redis_keys import fresh_prefix
from helpers.until import until

from pgjobq import (
    InvalidJob,
    Job,
    JobStatus,
    NewJob,
    SchemaTooNew,
)
from pgjobq.models import UnreadableData
from pgjobq.storage.redis import enqueueing, rows
from pgjobq.storage.redis_storage import PAGE, RedisStorage
from pgjobq.testing import StorageContract

MakeStorage = Callable[..., RedisStorage]


class TestOnValkey(StorageContract):
    """The contract on Valkey."""

    storage_class = RedisStorage

    @pytest.fixture
    def make_storage(self, redis_url: str) -> partial[RedisStorage]:
        return partial(RedisStorage, redis_url, prefix=fresh_prefix(), lease=3.0)


class TestOnRedis(TestOnValkey):
    """The contract on Debian's Redis."""

    @pytest.fixture
    def make_storage(self, debian_redis_url: str) -> partial[RedisStorage]:
        return partial(RedisStorage, debian_redis_url, prefix=fresh_prefix(), lease=3.0)


# -- keys ------------------------------------------------------------------------------------------


def test_two_prefixes_are_separate(make: MakeStorage) -> None:
    one, two = make(), make(prefix=fresh_prefix())
    one.enqueue("a", "t", {"of": 1})
    two.enqueue("a", "t", {"of": 2})
    found = two.dequeue()
    assert found is not None
    assert found.data == {"of": 2}
    assert two.dequeue() is None
    assert one.counts()[JobStatus.PENDING] == 1
    assert two.prune(timedelta(0), ["completed"]) == 0


def test_every_key_has_the_prefix_as_hash_tag_and_prune_removes_all(
    make: MakeStorage, client: Any, prefix: str
) -> None:
    before = set(client.scan_iter())
    storage = make()
    storage.enqueue_many([NewJob(type="t", id=f"a{n}", queue=f"q{n % 3}") for n in range(6)])
    storage.enqueue("later", "t", {}, execute_at=datetime.now(UTC) + timedelta(hours=1))
    storage.complete_many(storage.dequeue_many(4))
    storage.cancel("later")
    for held in storage.dequeue_many(9):
        storage.fail(held.id, "boom")
    keys = {str(key) for key in set(client.scan_iter()) - before}
    assert {key.startswith(f"{{{prefix}}}:") for key in keys} == {True}
    assert storage.prune(timedelta(0), ["completed", "failed", "cancelled"]) == 7
    storage.leave()
    left = {str(key).rpartition(":")[2] for key in set(client.scan_iter()) - before}
    assert left == {"seq", "layout"}


def test_prune_of_more_than_a_page_keeps_younger_jobs(make: MakeStorage, client: Any, prefix: str) -> None:
    storage = make()
    jobs = 2 * PAGE + 50
    storage.enqueue_many([NewJob(type="t", id=f"{n:05}") for n in range(jobs)])
    storage.complete_many(storage.dequeue_many(jobs))
    recent = [f"{n:05}" for n in range(0, jobs, 2)]
    hour_ago = rows.microseconds(datetime.now(UTC) - timedelta(hours=1))
    for n in range(1, jobs, 2):
        client.hset(f"{{{prefix}}}:job:{n:05}", "finished_at", hour_ago)
    assert storage.prune(timedelta(minutes=30)) == 0  # all jobs are younger
    for entry in client.zrange(f"{{{prefix}}}:is:completed:default", 0, -1):
        client.zrem(f"{{{prefix}}}:is:completed:default", entry)
        client.zadd(f"{{{prefix}}}:is:completed:default", {f"{hour_ago - 1:016x}{entry[16:]}": 0})
    assert storage.prune(timedelta(minutes=30)) == jobs - len(recent)
    assert sorted(found.id for found in storage.list_jobs()) == recent


def test_manually_deleted_jobs_are_passed_over(storage: RedisStorage, client: Any, prefix: str) -> None:
    storage.enqueue_many([NewJob(type="t", id=name) for name in "abcd"])
    storage.enqueue_many([NewJob(type="t", id="soon", delay=0.05)])
    client.delete(f"{{{prefix}}}:job:a", f"{{{prefix}}}:job:soon")
    client.hset(f"{{{prefix}}}:job:b", "data", "no JSON")
    client.hset(f"{{{prefix}}}:job:c", "data", "[1]")
    time.sleep(0.06)  # `soon` is due
    found = storage.dequeue_many(9)
    assert [started.id for started in found] == ["b", "c", "d"]
    assert [type(started.data) for started in found] == [UnreadableData, UnreadableData, dict]
    assert storage.get_job("a") is None
    assert len(storage.list_jobs()) == 3


def test_newer_layout_is_refused(make: MakeStorage, client: Any, prefix: str) -> None:
    client.set(f"{{{prefix}}}:layout", 2)
    for call in ("ping", "dequeue", "counts"):
        with pytest.raises(SchemaTooNew, match="have version 2, this pgjobq supports up to 1; upgrade pgjobq"):
            getattr(make(), call)()


# -- order and batches -----------------------------------------------------------------------------


def test_claims_merge_many_queues(storage: RedisStorage) -> None:
    """Jobs of all queues are ordered by priority, then by due time, then by the order of enqueueing."""
    past = datetime(2020, 1, 1, tzinfo=UTC)
    new = [
        NewJob(type="t", id=f"{n:04}", queue=f"q{n % 7}", priority=n % 3, execute_at=past + timedelta(days=n % 2))
        for n in range(500)
    ]
    storage.enqueue_many(new)
    expected = [found.id for found in sorted(new, key=lambda n: (-n.priority, n.execute_at or past))]
    started = storage.dequeue_many(150)
    for limit in (1, 60, 200, 150):
        started += storage.dequeue_many(limit, [f"q{n}" for n in range(7)])
    assert [found.id for found in started] == expected


def test_claim_of_much_data_is_divided(storage: RedisStorage) -> None:
    text = "x" * 3_000_000
    storage.enqueue_many([NewJob(type="t", id=f"{n}", data={"text": text}) for n in range(9)])
    assert len(storage.list_jobs()) == 9
    assert [len(batch) for batch in storage.export_jobs(batch=4)] == [4, 4, 1]
    first = storage.dequeue_many(9)
    assert [found.id for found in first] == ["0", "1", "2", "3", "4"]
    second = storage.dequeue_many(9)
    assert [found.id for found in second] == ["5", "6", "7", "8"]
    assert all(len(found.data["text"]) == len(text) for found in first + second)


def test_job_that_exceeds_the_size_of_an_answer_is_claimed_alone(storage: RedisStorage) -> None:
    storage.enqueue_many([NewJob(type="t", id=f"{n}", data={"text": "x" * 20_000_000}) for n in range(2)])
    assert [found.id for found in storage.dequeue_many(9)] == ["0"]
    assert [found.id for found in storage.dequeue_many(9)] == ["1"]
    assert len(storage.list_jobs()) == 2


def test_too_large_calls_are_refused(storage: RedisStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enqueueing, "MAX_DATA", 1000)
    with pytest.raises(
        InvalidJob, match=r"data: [0-9]+ bytes in one call are more than the maximum of 1000"
    ) as refused:
        storage.enqueue("a", "t", {"text": "x" * 1000})
    assert refused.value.field == "data"
    with pytest.raises(InvalidJob, match="jobs: 100001 are too many for one call; use at most 100000"):
        storage.enqueue_many([NewJob(type="t", id="a")] * 100_001)
    assert storage.list_jobs() == []


def test_microseconds_are_stored(storage: RedisStorage) -> None:
    for moment in (datetime(1, 1, 2, 0, 0, 0, 1, tzinfo=UTC), datetime(2020, 2, 3, 4, 5, 6, 789012, tzinfo=UTC)):
        storage.enqueue(f"{moment}", "t", {}, execute_at=moment)
        found = storage.dequeue()
        assert found is not None
        assert found.execute_at == moment
    far = datetime(9999, 12, 30, 23, 59, 59, 999999, tzinfo=UTC)
    storage.enqueue("far", "t", {}, execute_at=far)
    stored = storage.get_job("far")
    assert stored is not None
    assert stored.execute_at == far


def test_export_while_jobs_change(storage: RedisStorage) -> None:
    """Each job is exported once, even if its status changes between two pages."""
    jobs = 3 * PAGE
    storage.enqueue_many([NewJob(type="t", id=f"{n:05}", queue=f"q{n % 2}") for n in range(jobs)])
    seen: list[str] = []
    for batch in storage.export_jobs(batch=PAGE):
        seen += [found.id for found in batch]
        held = storage.dequeue_many(400)
        storage.complete_many(held[:200])
        for job_id in (found.id for found in held[200:]):
            storage.retry(job_id, 60)
    assert seen == [f"{n:05}" for n in range(jobs)]


def test_imported_jobs_keep_their_state(make: MakeStorage) -> None:
    source, target = make(), make(prefix=fresh_prefix())
    source.enqueue_many([NewJob(type="t", id=name, queue="q") for name in ("done", "bad", "again", "running", "ready")])
    held = {found.id: found for found in source.dequeue_many(4)}
    source.complete("done")
    source.fail("bad", "boom")
    source.retry("again", 3600)
    source.enqueue("off", "t", {})
    source.cancel("off")
    exported = [found for batch in source.export_jobs() for found in batch]
    assert target.import_jobs(exported) == 6
    assert target.import_jobs(exported) == 0
    arrived = {found.id: found for found in target.list_jobs()}
    for before in exported:
        after = arrived[before.id]
        if before.id == "running":
            assert (after.status, after.attempts) == (JobStatus.PENDING, held["running"].attempts)
        else:
            assert (after, after.worker_id) == (_unheld(before), None)
    assert [found.id for found in target.dequeue_many(9)] == ["running", "ready"]
    assert [found.id for found in target.list_jobs()] == [found.id for found in source.list_jobs()]


def _unheld(found: Job) -> Job:
    return Job.from_dict({**found.to_dict(), "worker_id": None})


def test_stats_and_workers(make: MakeStorage) -> None:
    storage, other = make(), make(lease=0.2)
    storage.enqueue_many([NewJob(type="t", id=f"{n}", queue=f"q{n % 2}") for n in range(5)])
    storage.dequeue_many(1, ["q0"])
    other.dequeue_many(1, ["q1"])
    found = {(row["queue"], row["status"]): row for row in storage.stats()}
    assert {key: row["jobs"] for key, row in found.items()} == {
        ("q0", "pending"): 2,
        ("q0", "running"): 1,
        ("q1", "pending"): 1,
        ("q1", "running"): 1,
    }
    assert 0 <= found["q0", "pending"]["oldest_due_age"] < 60
    assert found["q0", "running"]["oldest_due_age"] is None
    assert [(row["alive"], row["running"], str(os.getpid()) in row["name"]) for row in storage.workers()] == [
        (True, 1, True),
        (True, 1, True),
    ]
    assert all(abs((datetime.now(UTC) - row["started_at"]).total_seconds()) < 60 for row in storage.workers())
    other.close()  # without leave(), so it counts as dead
    until(lambda: [row["alive"] for row in storage.workers()].count(False) == 1)
    assert storage.rescue() == 1
    assert [row["alive"] for row in storage.workers()] == [True]
    storage.leave()
    assert storage.workers() == []
