"""The server: a pool of connections, and the scripts that the server runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import resources
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import MovedError, NoScriptError, RedisError
from redis.retry import Retry

from pgjobq.checks import check_seconds, is_cut
from pgjobq.errors import ConfigurationError
from pgjobq.forks import renew_in_child
from pgjobq.storage.redis.errors import translate
from pgjobq.storage.redis.schema import LAYOUT, check_layout

Client = redis.Redis | RedisCluster
MAX_REPLY = 2**24  # bytes of data in one answer
MOVES = 3  # redirections to another node of a cluster


@cache
def script(name: str) -> tuple[bytes, str]:
    """Return a script of lua/, with the common part prepended, and the digest by which the server knows it."""
    folder = resources.files("pgjobq.storage.redis") / "lua"
    source = b"\n".join((folder / f"{part}.lua").read_bytes() for part in ("common", name))
    return source, hashlib.sha1(source, usedforsecurity=False).hexdigest()


class Server:
    """Runs scripts on a server, or on the node of a cluster that has the prefix's slot. Thread-safe.

    Commands are never sent twice, because after an error it is unknown whether the server executed them. The storage
    decides what to do then. The caller's client keeps its connections but does not retry, and is not closed.
    """

    def __init__(self, given: str | Client, prefix: str, timeout: float) -> None:
        check_seconds("timeout", timeout)
        self.root = f"{{{prefix}}}:"
        self._own, self._checked = isinstance(given, str), False
        self._is_cluster = isinstance(given, RedisCluster)
        self._given, self._timeout = given, timeout
        self._client: Any = _connected(given, timeout) if isinstance(given, str) else given
        renew_in_child(self)

    def after_fork(self) -> None:
        """Connect again in a forked child. The caller's client does this by itself."""
        if isinstance(self._given, str):
            self._client = _connected(self._given, self._timeout)

    @property
    def name(self) -> str:
        """The address of the server, without user and password."""
        if self._is_cluster:
            return ", ".join(f"{node.host}:{node.port}" for node in self._client.get_primaries())
        settings = self._client.connection_pool.connection_kwargs
        if "path" in settings:
            return str(settings["path"])
        if "host" in settings:
            return f"{settings['host']}:{settings.get('port', 6379)}/{settings.get('db') or 0}"
        return str(getattr(self._client.connection_pool, "service_name", "an unknown address"))

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raise redis's errors as subclasses of PgjobqError, with the original error as the cause."""
        try:
            yield
        except (RedisError, OSError) as error:
            raise translate(error, self.name) from error

    def call(self, name: str, *arguments: Any) -> Any:
        """Run a script and return its result."""
        if not self._checked:
            check_layout(int(self._run("layout", LAYOUT)), self.name, self.root)
            self._checked = True
        return self._run(name, *arguments)

    def _run(self, name: str, *arguments: Any) -> Any:
        source, digest = script(name)
        with self.translated():
            try:
                return self.execute("EVALSHA", digest, 1, self.root, *arguments)
            except NoScriptError:  # the server was restarted, or its scripts were flushed
                return self.execute("EVAL", source, 1, self.root, *arguments)

    def execute(self, *command: Any) -> Any:
        """Send a command once. Raises redis's errors."""
        for left in reversed(range(MOVES)):
            try:
                return self._execute(command)
            except MovedError:
                if not left or not self._is_cluster:
                    raise
                self._client.nodes_manager.initialize()
        raise AssertionError

    def _execute(self, command: tuple[Any, ...]) -> Any:
        client = self._client
        if self._is_cluster:
            client = client.get_redis_connection(client.get_node_from_key(self.root))
        pool = client.connection_pool
        connection = pool.get_connection()
        try:
            connection.send_command(*command)
            return connection.read_response()
        finally:
            pool.release(connection)

    def pubsub(self) -> Any:
        """Return a subscriber with its own connection."""
        return self._client.pubsub(ignore_subscribe_messages=False)

    def close(self) -> None:
        """Close the connections, unless they belong to the caller's client."""
        if self._own:
            self._client.close()


def _connected(url: str, timeout: float) -> redis.Redis:
    try:
        if is_cut(url):
            raise ValueError  # as the library does for most invalid URLs
        pool = redis.ConnectionPool.from_url(
            url,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            **{
                name: value
                for name, value in {"socket_timeout": timeout, "socket_connect_timeout": min(timeout, 5.0)}.items()
                if f"{name}=" not in url
            },
        )
    except (ValueError, TypeError):
        # The library's messages may contain the password.
        raise ConfigurationError(
            "url: redis does not understand this URL; use redis://user:password@host:port/number, rediss://... or"
            " unix:///path, and percent-encode special characters in the user and the password"
        ) from None
    return redis.Redis(connection_pool=pool)
