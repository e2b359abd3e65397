"""Tests of how RedisStorage connects: URLs, clients and clusters."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import redis
from helpers.redis_keys import fresh_prefix
from helpers.until import until
from redis.backoff import ConstantBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry
from services import Server, Valkey

from pgjobq import (
    ConfigurationError,
    Job,
    JobStatus,
    NewJob,
    Registry,
    StorageError,
    Worker,
    job,
    open_storage,
)
from pgjobq.storage.redis_storage import RedisStorage

MakeStorage = Callable[..., RedisStorage]
OwnServer = Callable[..., Server]


# -- URLs, clients and settings --------------------------------------------------------------------


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
def test_invalid_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="url: redis does not understand this URL") as refused:
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
def test_invalid_settings_are_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{field}: "):
        RedisStorage("redis://localhost", **options)


def test_callers_client_is_used_and_not_closed(make: MakeStorage, redis_url: str) -> None:
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


def test_warning_about_an_eviction_policy(
    own_server: OwnServer, make: MakeStorage, caplog: pytest.LogCaptureFixture
) -> None:
    server = own_server(partial(Valkey, "maxmemory 100mb", "maxmemory-policy allkeys-lru"))
    with caplog.at_level(logging.WARNING, "pgjobq.storage"):
        make(server.url).ping()
    assert [(vars(record)["event"], vars(record)["maxmemory_policy"]) for record in caplog.records] == [
        ("redis.evicts", "allkeys-lru")
    ]


# -- clusters --------------------------------------------------------------------------------------


@pytest.fixture
def cluster(own_server: OwnServer) -> list[Any]:
    """Start two nodes, each with half of the slots."""
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
    """Use prefixes in slots of both nodes, and one whose slot moves to the other node."""
    (node, first), (_, second) = cluster
    done: list[str] = []

    @job(registry=registry)
    def note(job: Job) -> None:
        done.append(job.id)

    password = node.url.split(":")[2].split("@")[0]
    passwords = [server.url.split(":")[2].split("@")[0] for server, _ in cluster]
    for client in (first, second):  # all nodes of a cluster need the same password
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
        storage = make(theirs, prefix=moved)  # whose client does not know about the move yet
        storage.enqueue("a", "note", {})
        assert storage.counts()[JobStatus.PENDING] == 1
        plain = make(f"redis://:{password}@127.0.0.1:{node.port}", prefix=prefixes[1])
        with pytest.raises(StorageError, match=r"is part of a cluster; use a redis\.cluster\.RedisCluster"):
            plain.ping()
