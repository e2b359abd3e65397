"""Tests of the bell of RedisStorage: which worker it wakes and when, and what happens without it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from helpers.redis_keys import asleep
from helpers.until import until

from pgjobq import (
    Job,
    JobStatus,
    NewJob,
    Registry,
    Worker,
    job,
)
from pgjobq.storage.redis_storage import RedisStorage

MakeStorage = Callable[..., RedisStorage]


# -- the bell --------------------------------------------------------------------------------------


def test_sleeping_worker_starts_a_job_of_another_process_at_once(
    make: MakeStorage, start: Callable[..., Worker], registry: Registry, client: Any, prefix: str
) -> None:
    started: list[float] = []

    @job(registry=registry)
    def note() -> None:
        started.append(time.monotonic())

    start(make(poll_interval=60.0))
    other = make()
    waits: list[float] = []
    for n in range(10):
        until(lambda: asleep(client, prefix) == 1)
        began = time.monotonic()
        other.enqueue(f"{n}", "note", {})
        until(lambda: len(started) > len(waits))
        waits.append(started[-1] - began)
    # The median, with a generous limit, because the machine may be busy.
    assert sorted(waits)[5] < 0.25


def test_wait_after_a_claim_that_found_a_job_is_short(make: MakeStorage, client: Any, prefix: str) -> None:
    """Such a claim does not register the worker to be woken, so a long sleep would miss the next job."""
    storage, other = make(poll_interval=60.0), make()

    def fall_asleep() -> bool:
        storage.wait(0.01)
        return storage.dequeue() is None and asleep(client, prefix) == 1

    until(fall_asleep)
    storage.wait(0.01)
    other.enqueue("a", "note", {})
    until(storage._woken.is_set)
    assert [job.id for job in storage.dequeue_many(2)] == ["a"]
    storage.wait(0.01)  # answers the bell
    waits = threading.Thread(target=storage.wait, args=(60.0,), daemon=True)
    waits.start()
    waits.join(10)
    assert not waits.is_alive()
    assert storage.dequeue() is None
    assert asleep(client, prefix) == 1


def test_sleeping_worker_wakes_for_an_earlier_due_time(
    make: MakeStorage, start: Callable[..., Worker], registry: Registry, client: Any, prefix: str
) -> None:
    started: dict[str, datetime] = {}

    @job(registry=registry)
    def note(job: Job) -> None:
        assert job.started_at is not None
        assert job.execute_at is not None
        started[job.id] = job.started_at

    other = make()
    other.enqueue_many([NewJob(type="note", id="far", delay=3600)])
    start(make(poll_interval=3600.0))
    until(lambda: asleep(client, prefix) == 1)
    for job_id, delay in (("later", 1.0), ("soon", 0.3)):
        other.enqueue_many([NewJob(type="note", id=job_id, delay=delay)])
        until(lambda: asleep(client, prefix) == 1)
    until(lambda: len(started) == 2, 10)
    assert list(started) == ["soon", "later"]


def test_each_of_several_jobs_wakes_a_worker(
    make: MakeStorage, start: Callable[..., Worker], registry: Registry, client: Any, prefix: str
) -> None:
    """Each job wakes a worker that serves its queue. A worker without room passes the wake-up on."""
    together = threading.Barrier(3, timeout=20)

    @job(registry=registry, queue="mail")
    def meet() -> None:
        together.wait()

    for queues in (["mail"], ["mail", "other"], None, ["other"]):
        start(make(poll_interval=3600.0), concurrency=1, queues=queues)
    until(
        lambda: (asleep(client, prefix, "mail"), asleep(client, prefix), asleep(client, prefix, "other")) == (2, 1, 2)
    )
    other = make()
    other.enqueue_many([NewJob(type="meet", queue="mail", id=f"{n}") for n in range(3)])
    until(lambda: other.counts()[JobStatus.COMPLETED] == 3)


def test_bell_for_a_dead_worker_wakes_the_next(
    make: MakeStorage, start: Callable[..., Worker], registry: Registry, client: Any, prefix: str
) -> None:
    done = threading.Event()

    @job(registry=registry)
    def note() -> None:
        done.set()

    client.sadd(f"{{{prefix}}}:asleep:", *(f"dead{n}" for n in range(20)))
    start(make(poll_interval=3600.0))
    until(lambda: asleep(client, prefix) == 21)
    make().enqueue("a", "note", {})
    assert done.wait(10)


def test_worker_without_the_right_to_listen_polls(
    make: MakeStorage, start: Callable[..., Worker], registry: Registry, client: Any, prefix: str, redis_url: str
) -> None:
    done = threading.Event()

    @job(registry=registry)
    def note() -> None:
        done.set()

    user = f"user-{prefix}"
    client.acl_setuser(user, enabled=True, passwords=["+secret"], keys=[f"{{{prefix}}}:*"], commands=["+@all"])
    try:
        url = f"redis://{user}:secret@{redis_url.rpartition('@')[2]}"
        start(make(url, poll_interval=0.05))
        producer = make(url)
        producer.enqueue("a", "note", {})
        assert done.wait(10)
        until(lambda: producer.counts()[JobStatus.COMPLETED] == 1)
        assert asleep(client, prefix) == 0
    finally:
        client.acl_deluser(user)


def test_stopping_a_sleeping_worker_takes_no_time(
    make: MakeStorage, start: Callable[..., Worker], client: Any, prefix: str
) -> None:
    worker = start(make(poll_interval=3600.0))
    until(lambda: asleep(client, prefix) == 1)
    began = time.monotonic()
    worker.stop()
    assert time.monotonic() - began < 5


def test_bell_ends_with_its_storage(redis_url: str, prefix: str) -> None:
    storage = RedisStorage(redis_url, prefix=prefix)
    storage.dequeue()
    storage.wait(0.01)
    bell = storage._bell
    assert bell is not None
    assert bell.is_alive()
    del storage  # without close()
    bell.join(20)
    assert not bell.is_alive()
