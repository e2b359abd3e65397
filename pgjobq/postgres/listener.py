"""The listener: one connection that hears notifications and holds the worker's keys."""

from __future__ import annotations

import os
import random
import selectors
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from pgjobq.events import EventLog
from pgjobq.postgres.pool import Connection, connect, readable
from pgjobq.postgres.statements import placeable

log = EventLog("pgjobq.listener")

# By poll where there is one, because it takes no descriptor of its own.
Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.DefaultSelector)

BACKOFF_MIN, BACKOFF_MAX = 0.1, 10.0  # seconds between attempts to reconnect
ANSWER_TIME = 15.0  # seconds; a listener that gets no answer for so long is replaced
KEEP_ID = 20.0  # seconds for which a worker tries to register under its old id again
LOCK_HELD = "JQ007"  # another session holds a key of the worker


@dataclass
class Heard:
    """What has come since it was asked last."""

    job: bool = False  # notified of a job
    call: bool = False  # another worker asks this one to fall asleep again by all the steps
    woken: bool = False  # wake() was called
    watch: set[int] = field(default_factory=set)  # workers to look after


class Listener:
    """LISTEN, and the session lock that says this worker lives.

    One thread waits; any thread may wake it. A lost connection is made again with capped backoff and jitter;
    meanwhile wait() returns now and then, so that its caller polls. `worker_id` changes only when the jobs of
    the old one were given away, or when another session has held its lock for 20 seconds.
    """

    def __init__(self, parameters: Mapping[str, Any], *, schema: str, name: str) -> None:
        self._parameters = dict(parameters)
        self._schema, self._name = schema, name
        self._conn: Connection | None = None
        self._heard = Heard()
        self._pipe: tuple[int, ...] = os.pipe()
        self._wake_read, self._wake_write = self._pipe
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._retry_at, self._backoff, self._lost_at = 0.0, BACKOFF_MIN, 0.0
        self._lost: Connection | None = None  # the last one that was found dead
        self._told = False  # that the server is out of reach
        self._lock = threading.Lock()  # connecting, and closing
        self._reading = threading.Lock()  # libpq's own state, and what was heard
        self.on_cancel: Callable[[], None] = lambda: None  # called by any thread that reads
        self.queues: Sequence[str] | None = None
        self.worker_id: int | None = None
        self.channel = schema  # where this worker alone listens, once it is registered
        self._cancels = ""  # where it hears that jobs of its were cancelled
        self.generation = 0  # counts connections: what was told on an earlier one is void

    def connect(self) -> int:
        """Connect if not connected, register, and return the worker's id. Raises psycopg.Error."""
        with self._lock:
            if self.connected and self.worker_id is not None:
                return self.worker_id
            if self._conn is not None:
                self._conn.close()  # that of a worker that has left still stands
            conn = connect(self._parameters, ANSWER_TIME)
            try:
                worker_id, self._cancels = self._register(conn)
                own = own_channel(self._schema, worker_id)
                channels = (self._schema, own, f"{own}!", f"{own}?", self._cancels)
                conn.execute(sql.SQL("; ").join(sql.SQL("listen {}").format(sql.Identifier(c)) for c in channels))
            except BaseException:
                conn.close()
                raise
            if self.worker_id is not None:
                log.warning("listener.reconnected", extra={"worker_id": worker_id, "kept": worker_id == self.worker_id})
            self._conn, self.worker_id, self.channel, self._backoff = conn, worker_id, own, BACKOFF_MIN
            self.generation += 1
            self._told = False
            self.on_cancel()  # what was sent meanwhile was not heard
            return worker_id

    def _register(self, conn: Connection) -> tuple[int, str]:
        conn.add_notify_handler(lambda notification: self._note(notification.channel, notification.payload))
        query = sql.SQL("select id, {}(id) from {}(%s, %s, false, %s) as id").format(
            placeable(self._schema, "cancel_channel"), placeable(self._schema, "register_worker")
        )
        queues = None if self.queues is None else list(self.queues)
        try:
            row = conn.execute(query, [self._name, queues, self.worker_id]).fetchone()
        except psycopg.Error as error:
            if error.sqlstate != LOCK_HELD or time.monotonic() - self._lost_at < KEEP_ID:
                raise
            row = conn.execute(query, [self._name, queues, None]).fetchone()
        assert row is not None  # a function always returns a row
        return int(row[0]), row[1]

    @property
    def connected(self) -> bool:
        """Whether the connection was standing when last used."""
        return self._conn is not None and not self._conn.closed

    def wait(self, timeout: float) -> Heard:
        """What has come within timeout seconds; returns early, with nothing, when woken or disconnected."""
        if not self._reconnected():
            self._select([], min(timeout, max(0.0, self._retry_at - time.monotonic()) + 0.01))
        elif self._heard == Heard():
            conn = self._conn
            assert conn is not None  # _reconnected said so
            try:
                self._select([conn.fileno()], timeout)
                self._drain(conn)
            except psycopg.Error:
                self._lose(conn)
        with self._reading:
            heard, self._heard = self._heard, Heard()
        return heard

    def value(self, query: bytes, arguments: Sequence[Any]) -> Any:
        """The row of a statement on this session, for the keys that it holds. Raises psycopg.Error."""
        self.connect()
        conn = self._conn
        assert conn is not None  # connect() made it
        try:
            with self._reading, conn.cursor(row_factory=psycopg.rows.tuple_row) as cursor:
                return cursor.execute(query, arguments).fetchone()
        except psycopg.Error as error:
            if error.sqlstate != LOCK_HELD:
                self._lose(conn)  # a rollback lets go of no key, so that it is not known which this session holds
            raise

    def keep(self) -> None:
        """See whether the connection still stands, and make it again if not: the lock must not stay down.

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
                    self.wake()  # what was heard here is for the one that waits, whose socket is empty now
                return
            self._lose(conn)
        self.connect()

    def overhear(self, timeout: float) -> bool:
        """Read what comes within timeout seconds, beside a thread that may wait; False without a connection."""
        conn = self._conn
        if conn is None or conn.closed:
            return False
        with suppress(psycopg.Error, OSError, ValueError):  # closed meanwhile
            with Selector() as selector:
                selector.register(conn.fileno(), selectors.EVENT_READ)
                if not selector.select(timeout):
                    return True
            self._drain(conn)
            if self._heard != Heard():
                self.wake()  # what was heard here is for the thread that waits, whose socket is empty now
            return True
        if not conn.closed:
            self._lose(conn)
        return False

    def register_again(self, worker_id: int) -> None:
        """That worker was given away: the next connect() registers as another."""
        with self._lock:
            if self.worker_id == worker_id:
                self.worker_id = None

    def wake(self) -> None:
        """Make a wait() in another thread return."""
        with suppress(BlockingIOError):  # the pipe is full: it will wake all the same
            os.write(self._wake_write, b"w")

    def leave(self) -> None:
        """Retire the worker: jobs it still holds go back in line, its lock is let go."""
        with self._lock:
            if self.connected and self.worker_id is not None and self._conn is not None:
                query = sql.SQL("select {}(%s)").format(placeable(self._schema, "retire_worker"))
                # The lock falls with the connection, and a rescue does the same.
                with self._reading, suppress(psycopg.Error):
                    self._conn.execute(query, [self.worker_id])
            self.worker_id = None

    def close(self) -> None:
        """Close the connection and the pipe; the worker's lock falls with it. A second call does nothing."""
        with self._lock:
            if self._conn is not None:
                self._conn.close()
            pipe, self._pipe = self._pipe, ()
            for end in pipe:  # once: by then another file may have the number
                os.close(end)

    def _note(self, channel: str, payload: str) -> None:
        if channel == f"{self.channel}!":
            self._heard.call = True
        elif channel == f"{self.channel}?":
            self._heard.watch.add(int(payload))
        elif channel == self._cancels:
            self.on_cancel()
        else:
            self._heard.job = True

    def _drain(self, conn: Connection) -> None:
        with self._reading:
            conn.pgconn.consume_input()
            while notification := conn.pgconn.notifies():
                self._note(notification.relname.decode(), notification.extra.decode())

    def _select(self, sockets: list[int], timeout: float) -> None:
        with Selector() as selector:
            for fd in (*sockets, self._wake_read):
                selector.register(fd, selectors.EVENT_READ)
            ready = {key.fd for key, _ in selector.select(max(0.0, timeout))}
        if self._wake_read in ready:
            with suppress(BlockingIOError):
                os.read(self._wake_read, 4096)
            self._heard.woken = True

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
            if not self._told:
                self._told = True
                log.warning("listener.unreachable", extra={"error": str(error).strip()})
            return False
        return True

    def _lose(self, conn: Connection) -> None:
        """Do without a connection. Two threads may find it dead, and by then there may be another."""
        if conn is not self._lost:
            self._lost, self._lost_at = conn, time.monotonic()
            log.warning("listener.lost", extra={"worker_id": self.worker_id})
        conn.close()


def own_channel(schema: str, worker_id: int) -> str:
    """The channel of one worker: a name of at most 62 bytes, so that ! or ? can follow; long schemas may share one."""
    return f"{schema.encode()[:48].decode(errors='ignore')}:{worker_id}"
