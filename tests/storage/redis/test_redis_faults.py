"""Tests of RedisStorage with servers that are dead, frozen, full, starting, or a replica, and with workers that die."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from helpers.until import until
from services import Redis, Server, Valkey

from pgjobq import (
    DuplicateJob,
    Job,
    JobStatus,
    LostJob,
    NewJob,
    Registry,
    StorageError,
    StorageUnavailable,
    Worker,
    job,
)
from pgjobq.storage.base import Completed
from pgjobq.storage.redis_storage import RedisStorage

OwnServer = Callable[..., Server]
BOTH = pytest.mark.parametrize("kind", [Valkey, Redis])
STRESS_JOBS = int(os.environ.get("PGJOBQ_STRESS_JOBS", "2000"))


def password_of(server: Server) -> str:
    return server.url.split(":")[2].split("@")[0]


@pytest.fixture
def make() -> Iterator[Callable[..., RedisStorage]]:
    """Return a function that creates storages. They are closed at the end."""
    made: list[RedisStorage] = []

    def make(server: Server, **options: Any) -> RedisStorage:
        made.append(RedisStorage(server.url, **options))
        return made[-1]

    yield make
    for storage in made:
        storage.close()


MakeStorage = Callable[..., RedisStorage]

CALLS: dict[str, Callable[[RedisStorage], Any]] = {
    "enqueue": lambda s: s.enqueue("new", "t", {}),
    "enqueue_many": lambda s: s.enqueue_many([NewJob(type="t"), NewJob(type="t")]),
    "dequeue": lambda s: s.dequeue(),
    "complete": lambda s: s.complete("held"),
    "fail": lambda s: s.fail("held", "boom"),
    "retry": lambda s: s.retry("held", 0),
    "release": lambda s: s.release("held"),
    "retry of another": lambda s: s.retry("waits", 0),
    "cancel": lambda s: s.cancel("waits"),
    "get_job": lambda s: s.get_job("held"),
    "list_jobs": lambda s: s.list_jobs(),
    "counts": lambda s: s.counts(),
    "rescue": lambda s: s.rescue(),
    "maintain": lambda s: s.maintain([]),
    "ping": lambda s: s.ping(),
}


@pytest.mark.parametrize(("kind", "how"), [(Valkey, "freeze"), (Redis, "kill")])
def test_every_call_reports_a_dead_server_and_works_after_its_restart(
    own_server: OwnServer, make: MakeStorage, kind: type[Valkey], how: str
) -> None:
    """The server is killed before the call, and while the call waits for its answer."""
    server = own_server(kind, durable=True)
    storage = make(server, timeout=0.3)
    for call in CALLS.values():
        storage.enqueue("held", "t", {}, priority=9)
        storage.enqueue("waits", "t", {})
        assert storage.dequeue_many(1)[0].id == "held"
        getattr(server, how)()
        with pytest.raises(StorageUnavailable, match=rf"Redis at 127\.0\.0\.1:{server.port}/0 ") as told:
            call(storage)
        assert password_of(server) not in str(told.value)
        server.kill()
        server.start()
        storage.ping()
        with suppress(LostJob):  # the call may have taken effect although its answer was lost
            storage.complete("held")
        storage.leave()
        with redis.Redis.from_url(server.url) as client:
            client.flushdb()


@BOTH
def test_worker_survives_repeated_kills_of_the_server(
    own_server: OwnServer, make: MakeStorage, registry: Registry, kind: type[Valkey]
) -> None:
    """The server is killed while jobs are enqueued, claimed and settled. Each job is completed; some may run twice."""
    server = own_server(kind, durable=True)
    storage, producer = make(server, lease=2.0, poll_interval=0.2), make(server)
    runs: Counter[str] = Counter()
    added: list[str] = []
    enough = threading.Event()

    @job(registry=registry, max_retries=50)
    def note(job: Job) -> None:
        runs[job.id] += 1

    def produce() -> None:
        while not enough.is_set():
            ids = [f"{len(added) + n:06}" for n in range(3)]
            while True:
                try:
                    producer.enqueue_many([NewJob(type="note", id=job_id, max_retries=50) for job_id in ids])
                except StorageUnavailable:
                    time.sleep(0.01)
                    continue
                except DuplicateJob:  # the jobs were added, but the answer was lost
                    pass
                break
            added.extend(ids)

    worker = Worker(storage, registry=registry)
    worker.start()
    thread = threading.Thread(target=produce)
    thread.start()
    try:
        for _ in range(4):
            seen = len(added)
            until(lambda seen=seen: len(added) > seen + 150 and len(runs) > seen, seconds=30)  # type: ignore[misc]  # a default
            server.kill()
            server.start()
        enough.set()
        thread.join(30)
        until(lambda: producer.counts()[JobStatus.COMPLETED] == len(added), 60)
    finally:
        enough.set()
        worker.stop(grace=1)
    counts = producer.counts()
    assert counts[JobStatus.COMPLETED] == sum(counts.values()) == len(added)
    assert set(runs) == set(added)
    again = sum(runs.values()) - len(runs)
    assert again < len(added) / 2


def test_flushed_scripts_are_loaded_again(own_server: OwnServer, make: MakeStorage) -> None:
    server = own_server(Valkey, durable=True)
    storage = make(server)
    with redis.Redis.from_url(server.url) as client:
        for n in range(3):
            client.script_flush()
            storage.enqueue(f"{n}", "t", {})
            client.script_flush()
            found = storage.dequeue()
            client.script_flush()
            assert found is not None
            storage.complete(found.id)
    server.halt()
    server.start()
    assert storage.counts()[JobStatus.COMPLETED] == 3


def test_claim_whose_answer_was_lost_is_given_back(own_server: OwnServer, make: MakeStorage) -> None:
    """The frozen server runs the claim when it continues, but the caller has given up by then."""
    server = own_server(Valkey)
    storage = make(server, timeout=0.3)
    storage.enqueue_many([NewJob(type="t", id=name) for name in "abc"])
    first = storage.dequeue()
    assert first is not None
    server.freeze()
    with pytest.raises(StorageUnavailable):
        storage.dequeue_many(2)
    server.thaw()
    until(lambda: storage.counts()[JobStatus.RUNNING] == 3, seconds=30)
    found = storage.dequeue_many(9)
    assert [(started.id, started.attempts) for started in found] == [("b", 1), ("c", 1)]
    assert storage.complete_many([first, *found]) == []


def test_claim_that_arrives_late_is_refused(own_server: OwnServer, make: MakeStorage) -> None:
    """The caller has given the claim up, so its jobs would stay running as long as the worker lives."""
    storage = make(own_server(Valkey))
    storage.dequeue()
    worker = storage.workers()[0]["id"]
    storage._may_hold_unknown = True
    storage.dequeue()  # invalidates every earlier claim that may still be on its way
    storage.enqueue_many([NewJob(type="t", id="a")])
    late = next(storage._numbers) - 2
    assert storage._server.call("claim", worker, late, 9, 10**6, 10**6, "", 1, 0) == [b""]
    assert storage.counts()[JobStatus.PENDING] == 1
    found = storage.dequeue()
    assert found is not None
    assert (found.id, found.attempts) == ("a", 1)


def test_full_memory_refuses_every_change(own_server: OwnServer, make: MakeStorage) -> None:
    server = own_server(Valkey)
    storage = make(server)
    storage.enqueue("held", "t", {}, priority=9)
    storage.enqueue("waits", "t", {})
    storage.enqueue_many([NewJob(type="t", id="soon", delay=0.1)])
    held = storage.dequeue()
    before = {found.id: found for found in storage.list_jobs()}
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", 1)
        time.sleep(0.15)  # `soon` is due
        for name in ("enqueue", "enqueue_many", "dequeue", "complete", "fail", "retry", "release", "cancel"):
            with pytest.raises(StorageError, match=r"has no memory left; prune jobs, or raise its maxmemory") as told:
                CALLS[name](storage)
            assert not isinstance(told.value, StorageUnavailable)
        assert {found.id: found for found in storage.list_jobs()} == before
        client.config_set("maxmemory", 0)
    assert held is not None
    assert storage.settle([Completed(held)]) == []
    assert [(found.id, found.attempts) for found in storage.dequeue_many(9)] == [("waits", 1), ("soon", 1)]


def test_prune_helps_when_memory_is_full(own_server: OwnServer, make: MakeStorage) -> None:
    server = own_server(Valkey)
    storage = make(server)
    storage.enqueue("a", "t", {})
    storage.complete_many(storage.dequeue_many(1))
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", 1)
        assert storage.prune(timedelta(0)) == 1


def test_replica_takes_no_jobs_until_it_is_the_primary(own_server: OwnServer, make: MakeStorage) -> None:
    primary = own_server(Valkey)
    replica = own_server(partial(Valkey, f"replicaof 127.0.0.1 {primary.port}", f"masterauth {password_of(primary)}"))
    ours, theirs = make(primary), make(replica)
    ours.enqueue("a", "t", {})
    with pytest.raises(StorageUnavailable, match="it is a replica and cannot store jobs; use the primary"):
        theirs.dequeue()
    with redis.Redis.from_url(replica.url) as client:
        until(lambda: client.dbsize() > 0, seconds=30)
        primary.kill()
        client.replicaof("NO", "ONE")
    found = theirs.dequeue()
    assert found is not None
    assert found.id == "a"


def test_worker_waits_for_a_server_that_is_starting(own_server: OwnServer, make: MakeStorage) -> None:
    server = own_server(Valkey, durable=True)
    storage = make(server)
    storage.enqueue_many([NewJob(type="t", id=f"{n:04}", data={"text": "x" * 1000}) for n in range(2000)])
    told: list[str] = []

    def reload() -> None:
        with redis.Redis.from_url(server.url) as client:
            client.config_set("key-load-delay", 200)  # microseconds
            client.config_set("loading-process-events-interval-bytes", 1024)
            client.execute_command("DEBUG", "RELOAD")

    thread = threading.Thread(target=reload)
    thread.start()
    while thread.is_alive():
        try:
            storage.counts()
        except StorageUnavailable as error:
            told.append(str(error))
    thread.join()
    assert [line for line in told if "LOADING" in line or "is loading the dataset in memory" in line]
    assert storage.counts()[JobStatus.PENDING] == 2000


def test_missing_server(own_server: OwnServer, make: MakeStorage) -> None:
    gone = own_server(Valkey)
    gone.stop()
    storage = make(gone)
    for call in ("ping", "dequeue", "counts"):
        with pytest.raises(StorageUnavailable, match=rf"^Redis at 127.0.0.1:{gone.port}/0 does not answer: ") as told:
            getattr(storage, call)()
        assert password_of(gone) not in str(told.value)


def test_wrong_password(own_server: OwnServer) -> None:
    server = own_server(Valkey)
    for url in (f"redis://:wrongone@127.0.0.1:{server.port}", f"redis://127.0.0.1:{server.port}"):
        storage = RedisStorage(url)
        with pytest.raises(StorageError, match=r"^Redis at 127.0.0.1:[0-9]+/0: .*user and password") as told:
            storage.ping()
        assert "wrongone" not in str(told.value)
        storage.close()


def test_user_without_rights(own_server: OwnServer) -> None:
    server = own_server(Valkey)
    with redis.Redis.from_url(server.url) as client:
        client.acl_setuser("poor", enabled=True, passwords=["+pw"], keys=["other:*"], commands=["+@all"])
    storage = RedisStorage(f"redis://poor:pw@127.0.0.1:{server.port}")
    with pytest.raises(StorageError, match="grant the user the keys and channels that begin with the prefix"):
        storage.ping()
    storage.close()


def test_key_that_is_not_pgjobqs(own_server: OwnServer, make: MakeStorage) -> None:
    server = own_server(Valkey)
    with redis.Redis.from_url(server.url) as client:
        client.set("{pgjobq}:seq", "theirs")
        client.set("{pgjobq}:workers", "theirs")
    with pytest.raises(StorageError, match="a key with this prefix is not pgjobq's; use another prefix"):
        make(server).dequeue()
    with pytest.raises(StorageError, match="not an integer"):
        make(server).enqueue("a", "t", {})


def test_cut_connection_is_replaced(own_server: OwnServer, make: MakeStorage) -> None:
    server = own_server(Valkey)
    storage = make(server)
    storage.enqueue("a", "t", {})
    with redis.Redis.from_url(server.url) as client:
        for _ in range(3):
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            assert storage.counts()[JobStatus.PENDING] == 1


def test_forked_child_is_a_worker_of_its_own(own_server: OwnServer, make: MakeStorage) -> None:
    storage = make(own_server(Valkey))
    storage.enqueue_many([NewJob(type="t", id=name) for name in "ab"])
    assert storage.dequeue() is not None
    storage.wait(0.01)
    child = os.fork()
    if not child:
        try:
            found = storage.dequeue()
            storage.wait(0.01)
            storage.complete("b")
            os._exit(0 if found is not None and len(storage.workers()) == 2 else 1)
        except BaseException:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    storage.complete("a")
    assert storage.counts()[JobStatus.COMPLETED] == 2


# -- workers that die -------------------------------------------------------------------------------------


def work(url: str, prefix: str, folder: str) -> None:
    """Run a worker in a child process. It writes each start to a file."""
    registry = Registry()
    log = os.open(Path(folder) / f"{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    @job(registry=registry)
    def note(job: Job) -> None:
        os.write(log, f"{job.id} {job.attempts}\n".encode())
        time.sleep(0.02)  # so that the worker holds jobs when it is killed, however fast the machine is

    storage = RedisStorage(url, prefix=prefix, lease=3.0)
    Worker(storage, registry=registry, grace=5).run()
    storage.close()


def kill_amid_work(storage: RedisStorage, pid: int) -> int:
    """Kill the worker while it holds jobs. Return their number."""

    def held() -> int:
        return sum(row["running"] for row in storage.workers() if row["name"].endswith(f":{pid}"))

    while True:
        os.kill(pid, signal.SIGSTOP)
        before = held()
        time.sleep(0.05)  # the server has finished the worker's last call by now
        if (found := held()) and found == before:
            os.kill(pid, signal.SIGKILL)
            return found
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.01)
        assert storage.counts()[JobStatus.PENDING], "the worker never held a job"


@pytest.mark.parametrize("kind", [Valkey, Redis] if "PGJOBQ_STRESS_JOBS" in os.environ else [Valkey])
def test_stress(own_server: OwnServer, make: MakeStorage, kind: type[Valkey], tmp_path: Path) -> None:
    """One of four worker processes is killed. No start is claimed twice, and no job is lost."""
    server = own_server(kind)
    prefix = f"stress-{secrets.token_hex(2)}"
    storage = make(server, prefix=prefix)
    ids = [f"{n:06}" for n in range(STRESS_JOBS)]
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=work, args=(server.url, prefix, str(tmp_path))) for _ in range(4)]
    for worker in workers:
        worker.start()
    try:
        until(lambda: len(storage.workers()) == 4, seconds=30)
        for at in range(0, STRESS_JOBS, 1000):
            storage.enqueue_many(
                [NewJob(type="note", id=job_id, priority=len(job_id)) for job_id in ids[at : at + 1000]]
            )
        until(lambda: storage.counts()[JobStatus.COMPLETED] > STRESS_JOBS // 4, seconds=30)
        held = kill_amid_work(storage, workers[0].pid or 0)
        until(lambda: storage.counts()[JobStatus.COMPLETED] == STRESS_JOBS, 60 + STRESS_JOBS / 200)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join(20)
            worker.kill()
    starts = Counter(line for path in tmp_path.iterdir() for line in path.read_text().splitlines())
    assert [start for start, times in starts.items() if times > 1] == []
    assert {start.split()[0] for start in starts} == set(ids)
    assert [worker.exitcode for worker in workers] == [-signal.SIGKILL, 0, 0, 0]
    counts = storage.counts()
    assert counts[JobStatus.COMPLETED] == sum(counts.values())
    assert held > 0
    sys.stdout.write(f"{STRESS_JOBS} jobs, {sum(starts.values())} starts; the worker killed held {held}\n")
