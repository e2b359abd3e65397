"""RedisStorage on Valkey and on Redis: the contract, and what is Redis' own. Faults are in test_redis_faults."""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest
import redis
from helpers.until import until
from redis.backoff import ConstantBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry
from services import Server, Valkey

from pgjobq import (
    ConfigurationError,
    InvalidJob,
    Job,
    JobStatus,
    NewJob,
    Registry,
    SchemaTooNew,
    StorageError,
    Worker,
    job,
    open_storage,
)
from pgjobq.models import UnreadableData
from pgjobq.redis import rows
from pgjobq.storage.redis_storage import PAGE, RedisStorage
from pgjobq.testing import StorageContract

MakeStorage = Callable[..., RedisStorage]
OwnServer = Callable[..., Server]


def fresh_prefix() -> str:
    return f"test-{secrets.token_hex(4)}"


class TestOnValkey(StorageContract):
    """What every storage promises."""

    storage_class = RedisStorage

    @pytest.fixture
    def make_storage(self, redis_url: str) -> partial[RedisStorage]:
        return partial(RedisStorage, redis_url, prefix=fresh_prefix(), lease=3.0)


class TestOnRedis(TestOnValkey):
    """The same on Debian's Redis."""

    @pytest.fixture
    def make_storage(self, debian_redis_url: str) -> partial[RedisStorage]:
        return partial(RedisStorage, debian_redis_url, prefix=fresh_prefix(), lease=3.0)


@pytest.fixture
def prefix() -> str:
    """Of the test's own keys."""
    return fresh_prefix()


@pytest.fixture
def make(redis_url: str, prefix: str) -> Iterator[MakeStorage]:
    """Makes storages on the test's keys; closed at the end."""
    made: list[RedisStorage] = []

    def make(url: Any = redis_url, **options: Any) -> RedisStorage:
        made.append(RedisStorage(url, **{"prefix": prefix, **options}))
        return made[-1]

    yield make
    for storage in made:
        storage.close()


@pytest.fixture
def storage(make: MakeStorage) -> RedisStorage:
    """One such storage."""
    return make()


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    """The server, as redis-py sees it."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def start(registry: Registry) -> Iterator[Callable[..., Worker]]:
    """Starts workers; stopped at the end."""
    workers: list[Worker] = []

    def start(storage: RedisStorage, **options: Any) -> Worker:
        workers.append(Worker(storage, registry=registry, **options))
        workers[-1].start()
        return workers[-1]

    yield start
    for worker in workers:
        worker.stop(grace=1)


def asleep(client: Any, prefix: str, queue: str = "") -> int:
    """How many workers are asleep."""
    return int(client.scard(f"{{{prefix}}}:asleep:{queue}"))


# -- keys -------------------------------------------------------------------------------------------------


def test_two_prefixes_do_not_meet(make: MakeStorage) -> None:
    one, two = make(), make(prefix=fresh_prefix())
    one.enqueue("a", "t", {"of": 1})
    two.enqueue("a", "t", {"of": 2})
    found = two.dequeue()
    assert found is not None
    assert found.data == {"of": 2}
    assert two.dequeue() is None
    assert one.counts()[JobStatus.PENDING] == 1
    assert two.prune(timedelta(0), ["completed"]) == 0


def test_every_key_has_the_prefix_as_its_hash_tag_and_nothing_is_left_after_prune(
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


def test_prune_of_more_than_a_page_leaves_what_is_younger(make: MakeStorage, client: Any, prefix: str) -> None:
    storage = make()
    jobs = 2 * PAGE + 50
    storage.enqueue_many([NewJob(type="t", id=f"{n:05}") for n in range(jobs)])
    storage.complete_many(storage.dequeue_many(jobs))
    recent = [f"{n:05}" for n in range(0, jobs, 2)]
    hour_ago = rows.microseconds(datetime.now(UTC) - timedelta(hours=1))
    for n in range(1, jobs, 2):
        client.hset(f"{{{prefix}}}:job:{n:05}", "finished_at", hour_ago)
    assert storage.prune(timedelta(minutes=30)) == 0  # all were created since
    for entry in client.zrange(f"{{{prefix}}}:is:completed:default", 0, -1):
        client.zrem(f"{{{prefix}}}:is:completed:default", entry)
        client.zadd(f"{{{prefix}}}:is:completed:default", {f"{hour_ago - 1:016x}{entry[16:]}": 0})
    assert storage.prune(timedelta(minutes=30)) == jobs - len(recent)
    assert sorted(found.id for found in storage.list_jobs()) == recent


def test_jobs_that_were_deleted_by_hand_are_passed_over(storage: RedisStorage, client: Any, prefix: str) -> None:
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


def test_newer_layout_is_told(make: MakeStorage, client: Any, prefix: str) -> None:
    client.set(f"{{{prefix}}}:layout", 2)
    for call in ("ping", "dequeue", "counts"):
        with pytest.raises(SchemaTooNew, match="is of version 2, this pgjobq knows 1; upgrade pgjobq"):
            getattr(make(), call)()


# -- order and batches ------------------------------------------------------------------------------------


def test_many_queues_are_one_line(storage: RedisStorage) -> None:
    """The next of all: by priority, then by the time when it fell due, then by its place."""
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


def test_answer_with_much_data_is_cut(storage: RedisStorage) -> None:
    text = "x" * 3_000_000
    storage.enqueue_many([NewJob(type="t", id=f"{n}", data={"text": text}) for n in range(9)])
    assert len(storage.list_jobs()) == 9
    assert [len(batch) for batch in storage.export_jobs(batch=4)] == [4, 4, 1]
    first = storage.dequeue_many(9)
    assert [found.id for found in first] == ["0", "1", "2", "3", "4"]
    second = storage.dequeue_many(9)
    assert [found.id for found in second] == ["5", "6", "7", "8"]
    assert all(len(found.data["text"]) == len(text) for found in first + second)


def test_one_job_with_more_data_than_an_answer_has_is_given_alone(storage: RedisStorage) -> None:
    storage.enqueue_many([NewJob(type="t", id=f"{n}", data={"text": "x" * 20_000_000}) for n in range(2)])
    assert [found.id for found in storage.dequeue_many(9)] == ["0"]
    assert [found.id for found in storage.dequeue_many(9)] == ["1"]
    assert len(storage.list_jobs()) == 2


def test_calls_that_are_too_large_are_refused(storage: RedisStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_DATA", 1000)
    with pytest.raises(InvalidJob, match=r"data: [0-9]+ bytes in one call are more than the 1000") as refused:
        storage.enqueue("a", "t", {"text": "x" * 1000})
    assert refused.value.field == "data"
    with pytest.raises(InvalidJob, match="jobs: 100001 are too many for one call; give at most 100000"):
        storage.enqueue_many([NewJob(type="t", id="a")] * 100_001)
    assert storage.list_jobs() == []


@pytest.mark.parametrize("year", [1, 9999])
def test_times_that_are_none_in_utc_are_refused(storage: RedisStorage, year: int) -> None:
    zone = timezone(timedelta(hours=9 if year == 1 else -9))
    end = datetime(1, 1, 1, tzinfo=zone) if year == 1 else datetime(9999, 12, 31, 23, tzinfo=zone)
    with pytest.raises(InvalidJob, match="execute_at: is not within the years 1 to 9999"):
        storage.enqueue("a", "t", {}, execute_at=end)
    assert storage.list_jobs() == []


def test_microseconds_are_kept(storage: RedisStorage) -> None:
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


def test_export_misses_nothing_that_changes_meanwhile(storage: RedisStorage) -> None:
    """Nor gives it twice: a job that was running is pending in the next page, say."""
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


def test_jobs_arrive_with_their_state(make: MakeStorage) -> None:
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
    other.close()  # as if it had died
    until(lambda: [row["alive"] for row in storage.workers()].count(False) == 1)
    assert storage.rescue() == 1
    assert [row["alive"] for row in storage.workers()] == [True]
    storage.leave()
    assert storage.workers() == []


# -- the bell ---------------------------------------------------------------------------------------------


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
    # The median, and generously: the machine has other things to do.
    assert sorted(waits)[5] < 0.25


def test_sleeping_worker_wakes_for_a_job_that_falls_due_before_all_it_knew(
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
    """Of those that serve its queue; a job that one took too many of is passed on."""
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


def test_bell_of_a_worker_that_died_rings_for_the_next(
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


def test_worker_that_may_not_listen_polls(
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
    del storage  # without close
    bell.join(20)
    assert not bell.is_alive()


# -- how it is told where to go ---------------------------------------------------------------------------


def test_urls(make: MakeStorage, redis_url: str) -> None:
    opened = open_storage(redis_url.replace("redis://", "valkey://"), prefix=fresh_prefix())
    opened.ping()
    opened.close()
    make(f"{redis_url}?socket_timeout=3").ping()


def test_unix_socket(own_server: OwnServer, make: MakeStorage) -> None:
    server = own_server(partial(Valkey, "unixsocket s.sock"))
    password = server.url.split(":")[2].split("@")[0]
    storage = make(f"unix://:{password}@{server.folder}/s.sock")
    storage.ping()
    server.kill()
    with pytest.raises(StorageError, match=r"Redis at /.*/s.sock does not answer"):
        storage.ping()


@pytest.mark.parametrize(
    "url", ["redis://:secret@localhost:port/0", "redis://:sec/ret@localhost:6379/0", "http://localhost", ""]
)
def test_url_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="url: is none that redis understands") as refused:
        RedisStorage(url)
    assert "sec" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"prefix": ""}, "prefix"),
        ({"prefix": "a{b}"}, "prefix"),
        ({"prefix": "a b"}, "prefix"),
        ({"prefix": "x" * 65}, "prefix"),
        ({"prefix": None}, "prefix"),
        ({"timeout": 0}, "timeout"),
        ({"lease": 0}, "lease"),
        ({"poll_interval": -1}, "poll_interval"),
    ],
)
def test_settings_that_are_none_are_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{field}: "):
        RedisStorage("redis://localhost", **options)


def test_client_of_the_callers_is_used_and_not_closed(make: MakeStorage, redis_url: str) -> None:
    retry = Retry(ConstantBackoff(0.01), 3)
    with redis.Redis.from_url(redis_url, decode_responses=True, retry=retry) as theirs:
        storage = make(theirs)
        storage.enqueue("a", "t", {"text": "é☃"})
        found = storage.dequeue()
        assert found is not None
        assert found.data == {"text": "é☃"}
        storage.complete("a")
        assert storage.counts()[JobStatus.COMPLETED] == 1
        assert [row["queue"] for row in storage.stats()] == ["default"]
        storage.ping()
        storage.close()
        assert theirs.ping()


def test_policy_that_throws_jobs_away_is_warned_of(
    own_server: OwnServer, make: MakeStorage, caplog: pytest.LogCaptureFixture
) -> None:
    server = own_server(partial(Valkey, "maxmemory 100mb", "maxmemory-policy allkeys-lru"))
    with caplog.at_level(logging.WARNING, "pgjobq.storage"):
        make(server.url).ping()
    assert [(vars(record)["event"], vars(record)["maxmemory_policy"]) for record in caplog.records] == [
        ("redis.evicts", "allkeys-lru")
    ]


# -- clusters ---------------------------------------------------------------------------------------------


@pytest.fixture
def cluster(own_server: OwnServer) -> list[Any]:
    """Two nodes, which have half of the slots each."""
    nodes = [own_server(partial(Valkey, "cluster-enabled yes")) for _ in range(2)]
    clients: list[Any] = [redis.Redis.from_url(node.url, decode_responses=True) for node in nodes]
    for node, low, high in zip(clients, (0, 8192), (8191, 16383), strict=True):
        node.execute_command("CLUSTER", "ADDSLOTSRANGE", low, high)
        node.config_set("masterauth", "")
    clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[1].port)
    until(lambda: all(node.cluster("info")["cluster_state"] == "ok" for node in clients))
    until(lambda: all(len(node.cluster("nodes")) == 2 for node in clients))
    return [*zip(nodes, clients, strict=True)]


def _drained(storage: RedisStorage, jobs: int) -> None:
    until(lambda: storage.counts()[JobStatus.COMPLETED] == jobs)


def slot_of(client: Any, prefix: str) -> int:
    return int(client.execute_command("CLUSTER", "KEYSLOT", f"{{{prefix}}}:"))


def test_cluster(cluster: list[Any], make: MakeStorage, start: Callable[..., Worker], registry: Registry) -> None:
    """Prefixes in slots of both nodes; and one that moves to the other node."""
    (node, first), (_, second) = cluster
    done: list[str] = []

    @job(registry=registry)
    def note(job: Job) -> None:
        done.append(job.id)

    password = node.url.split(":")[2].split("@")[0]
    passwords = [server.url.split(":")[2].split("@")[0] for server, _ in cluster]
    for client in (first, second):  # one password for all, as a cluster needs
        client.config_set("requirepass", password)
    assert passwords[0] == password
    start_at: Any = partial(ClusterNode, "127.0.0.1")
    with RedisCluster(startup_nodes=[start_at(node.port)], password=password) as theirs:
        prefixes = [next(p for p in map(str, range(99)) if (slot_of(first, p) < 8192) is low) for low in (True, False)]
        for prefix in prefixes:
            storage = make(theirs, prefix=prefix, poll_interval=0.2)
            storage.ping()
            storage.enqueue_many([NewJob(type="note", id=f"{prefix}-{n}") for n in range(20)])
            worker = start(storage)
            _drained(storage, 20)
            worker.stop()
        assert len(done) == 40
        moved = next(p for p in map(str, range(99, 199)) if slot_of(first, p) < 8192)
        owner = second.cluster("myid")
        for client in (second, first):
            client.execute_command("CLUSTER", "SETSLOT", slot_of(first, moved), "NODE", owner)
        storage = make(theirs, prefix=moved)  # whose client does not know yet
        storage.enqueue("a", "note", {})
        assert storage.counts()[JobStatus.PENDING] == 1
        plain = make(f"redis://:{password}@127.0.0.1:{node.port}", prefix=prefixes[1])
        with pytest.raises(StorageError, match=r"is part of a cluster; give a redis\.cluster\.RedisCluster"):
            plain.ping()
