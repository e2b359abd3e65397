"""The listener: one connection that hears notifications and holds the worker's lock."""

from __future__ import annotations

import logging
import os
import random
import select
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import sql

from pgjobq.postgres.pool import SERVER_KEEPALIVE, Connection, readable

log = logging.getLogger("pgjobq.listener")

BACKOFF_MIN, BACKOFF_MAX = 0.1, 10.0  # seconds between attempts to reconnect


class Listener:
    """LISTEN on the schema's channel, and the session lock that says this worker lives.

    One thread waits; any thread may wake it. A lost connection is made anew with capped backoff and jitter;
    meanwhile wait() returns now and then, so that its caller polls. `worker_id` changes only when the jobs of
    the old one were given away.
    """

    def __init__(self, connect: Mapping[str, Any], *, schema: str, name: str, on_watch: Callable[[], None]) -> None:
        self._parameters = dict(connect)
        self._schema, self._name, self._on_watch = schema, name, on_watch
        self._conn: Connection | None = None
        self._heard: set[str] = set()
        self._was_called = self._was_woken = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._retry_at, self._backoff = 0.0, BACKOFF_MIN
        self._lock = threading.Lock()  # connecting, and closing
        self._reading = threading.Lock()  # libpq's own state
        self.queues: Sequence[str] | None = None
        self.worker_id: int | None = None
        self.channel = schema  # where this worker alone listens, once it is registered
        self.generation = 0  # counts connections: what was armed on an earlier one is void

    def connect(self) -> int:
        """Connect if not connected, register, and return the worker's id. Raises psycopg.Error."""
        with self._lock:
            if self._conn is not None and not self._conn.closed and self.worker_id is not None:
                return self.worker_id
            if self._conn is not None:
                self._conn.close()  # that of a worker that has left still stands
            conn: Connection = psycopg.connect(**self._parameters, autocommit=True)
            try:
                conn.execute(SERVER_KEEPALIVE)
                conn.add_notify_handler(lambda notification: self._hear(notification.channel, notification.payload))
                query = sql.SQL("select {}(%s, %s, false, %s)").format(sql.Identifier(self._schema, "register_worker"))
                queues = None if self.queues is None else list(self.queues)
                row = conn.execute(query, [self._name, queues, self.worker_id]).fetchone()
                assert row is not None  # a function always returns a row
                channels = (self._schema, own := own_channel(self._schema, row[0]), f"{own}!")
                conn.execute(sql.SQL("; ").join(sql.SQL("listen {}").format(sql.Identifier(c)) for c in channels))
            except BaseException:
                conn.close()
                raise
            before, self.worker_id, self.channel = self.worker_id, int(row[0]), own
            self._conn, self._backoff = conn, BACKOFF_MIN
            self.generation += 1
            if before is not None:
                log.warning(
                    "listener.reconnected", extra={"worker_id": self.worker_id, "kept": before == self.worker_id}
                )
            return self.worker_id

    @property
    def connected(self) -> bool:
        """Whether the connection was standing when last used."""
        return self._conn is not None and not self._conn.closed

    def wait(self, timeout: float) -> set[str]:
        """The queues notified of within timeout seconds; returns early, with none, when woken or disconnected."""
        if not self._reconnected():
            self._select([], min(timeout, max(0.0, self._retry_at - time.monotonic()) + 0.01))
            return set()
        if not self._heard:
            assert self._conn is not None  # _reconnected said so
            try:
                self._select([self._conn.fileno()], timeout)
                self._drain(self._conn)
            except psycopg.Error:
                self._lose()
        heard, self._heard = self._heard, set()
        return heard

    def called(self) -> bool:
        """Whether another worker called for help since this was asked last."""
        called, self._was_called = self._was_called, False
        return called

    def call(self) -> None:
        """Be called for help by this process's own upkeep: in another thread than the one that waits."""
        self._was_called = True
        self.wake()

    def woken(self) -> bool:
        """Whether wake() was called since this was asked last."""
        woken, self._was_woken = self._was_woken, False
        return woken

    def value(self, query: bytes, arguments: Sequence[Any]) -> Any:
        """The one value of a statement on this session, for the keys that it holds. Raises psycopg.Error."""
        self.connect()
        conn = self._conn
        assert conn is not None  # connect() made it
        with self._reading, conn.cursor() as cursor:
            row = cursor.execute(query, arguments).fetchone()
        return None if row is None else row[0]

    def keep(self) -> None:
        """Look whether the connection still stands, and make it anew if not: the lock must not stay down.

        For another thread than the one that waits, which may be long in coming back to wait.
        """
        if self.worker_id is None:
            return
        conn = self._conn
        if conn is not None and not conn.closed:
            with suppress(psycopg.Error):
                # The first read may bring the server's last words, the next one the end.
                while readable(conn.fileno()):
                    self._drain(conn)
                    self.wake()  # what was heard here is for the one who waits, whose socket is empty now
                return
            self._lose()
        self.connect()

    def wake(self) -> None:
        """Make a wait() in another thread return."""
        with suppress(BlockingIOError):  # the pipe is full: it will wake all the same
            os.write(self._wake_write, b"w")

    def leave(self) -> None:
        """Retire the worker: jobs it still holds go back in line, its lock is let go."""
        with self._lock:
            if self._conn is not None and not self._conn.closed and self.worker_id is not None:
                query = sql.SQL("select {}(%s)").format(sql.Identifier(self._schema, "retire_worker"))
                with suppress(psycopg.Error):  # the lock falls with the connection, and a rescue does the same
                    self._conn.execute(query, [self.worker_id])
            self.worker_id = None

    def close(self) -> None:
        """Close the connection and the pipe; the worker's lock falls with it."""
        with self._lock:
            if self._conn is not None:
                self._conn.close()
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _hear(self, channel: str, payload: str) -> None:
        if channel == f"{self.channel}!":
            self._was_called = True
            self._heard.add(payload)
        elif payload:
            self._heard.add(payload)
        else:
            self._on_watch()

    def _drain(self, conn: Connection) -> None:
        with self._reading:
            conn.pgconn.consume_input()
            while notification := conn.pgconn.notifies():
                self._hear(notification.relname.decode(), notification.extra.decode())

    def _select(self, sockets: list[int], timeout: float) -> None:
        poll = select.poll()
        for fd in (*sockets, self._wake_read):
            poll.register(fd, select.POLLIN)
        if any(fd == self._wake_read for fd, _ in poll.poll(max(0.0, timeout) * 1000)):
            with suppress(BlockingIOError):
                os.read(self._wake_read, 4096)
            self._was_woken = True

    def _reconnected(self) -> bool:
        if self.connected:
            return True
        if time.monotonic() < self._retry_at:
            return False
        try:
            self.connect()
        except psycopg.Error as error:
            self._backoff = min(self._backoff * 2, BACKOFF_MAX)
            # Jitter, not secrecy: a fleet must not come back in step.
            self._retry_at = time.monotonic() + self._backoff * random.uniform(0.5, 1.0)  # noqa: S311
            log.warning("listener.unreachable", extra={"error": str(error).strip(), "retry_in": self._backoff})
            return False
        return True

    def _lose(self) -> None:
        log.warning("listener.lost", extra={"worker_id": self.worker_id})
        if self._conn is not None:
            self._conn.close()


def own_channel(schema: str, worker_id: int) -> str:
    """The channel of one worker: a name of at most 62 bytes, so that ! can follow; long schemas may share one."""
    return f"{schema.encode()[:48].decode(errors='ignore')}:{worker_id}"
