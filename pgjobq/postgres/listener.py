"""The listener: a connection that receives notifications and holds the worker's keys."""

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

# Use poll where it exists, because it needs no file descriptor of its own.
Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.DefaultSelector)

BACKOFF_MIN, BACKOFF_MAX = 0.1, 10.0  # seconds between attempts to reconnect
ANSWER_TIME = 15.0  # seconds without an answer after which the listener connects again
KEEP_ID = 20.0  # seconds for which a worker tries to register under its old id
LOCK_HELD = "JQ007"  # SQLSTATE: another session holds a key of the worker


@dataclass
class Heard:
    """The notifications and wake-ups that have come since the last wait()."""

    job: bool = False  # notified of a job
    call: bool = False  # another worker asks this one to repeat all the steps of falling asleep
    woken: bool = False  # wake() was called
    watch: set[int] = field(default_factory=set)  # ids of the workers to watch


class Listener:
    """The session that listens for notifications and holds the lock that proves that this worker is alive.

    One thread waits, and any thread may wake it. The listener reconnects with capped backoff and jitter. While it is
    disconnected, wait() returns now and then so that the caller polls. `worker_id` changes only when the jobs of the
    old worker were given away, or when another session has held its lock for 20 seconds.
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
        self._lost: Connection | None = None  # the last connection that was found dead
        self._told = False  # the log says that the server is out of reach
        self._lock = threading.Lock()  # guards connecting and closing
        self._reading = threading.Lock()  # guards libpq's state and _heard
        self.on_cancel: Callable[[], None] = lambda: None  # called by the thread that reads the notification
        self.queues: Sequence[str] | None = None
        self.worker_id: int | None = None
        self.channel = schema  # after registration: the channel on which only this worker listens
        self._cancels = ""  # the channel that says that some of its jobs were cancelled
        self.generation = 0  # counts connections, because a state published on an earlier one is void

    def connect(self) -> int:
        """Connect and register unless that is done, and return the worker's id. Raises psycopg.Error."""
        with self._lock:
            if self.connected and self.worker_id is not None:
                return self.worker_id
            if self._conn is not None:
                self._conn.close()  # leave() keeps the connection open
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
        """Whether the connection worked when it was last used."""
        return self._conn is not None and not self._conn.closed

    def wait(self, timeout: float) -> Heard:
        """Wait at most timeout seconds and return what has come. Return early when woken or disconnected."""
        if not self._reconnected():
            self._select([], min(timeout, max(0.0, self._retry_at - time.monotonic()) + 0.01))
        elif self._heard == Heard():
            conn = self._conn
            assert conn is not None  # because _reconnected() returned True
            try:
                self._select([conn.fileno()], timeout)
                self._drain(conn)
            except psycopg.Error:
                self._lose(conn)
        with self._reading:
            heard, self._heard = self._heard, Heard()
        return heard

    def value(self, query: bytes, arguments: Sequence[Any]) -> Any:
        """Execute a statement in the session that holds the keys, and return its row. Raises psycopg.Error."""
        self.connect()
        conn = self._conn
        assert conn is not None  # connect() has set it
        try:
            with self._reading, conn.cursor(row_factory=psycopg.rows.tuple_row) as cursor:
                return cursor.execute(query, arguments).fetchone()
        except psycopg.Error as error:
            if error.sqlstate != LOCK_HELD:
                self._lose(conn)  # a rollback releases no key, so the keys that this session holds are unknown
            raise

    def keep(self) -> None:
        """Check the connection, and reconnect if it is dead, because the worker must hold its lock.

        Another thread than the waiting one calls this, because the waiting thread may be busy for a long time.
        """
        if self.worker_id is None:
            return
        conn = self._conn
        if conn is not None and not conn.closed:
            with suppress(psycopg.Error):
                # The first read may return the server's last message, and only the next one the end of the stream.
                while readable(conn.fileno()):
                    self._drain(conn)
                    self.wake()  # the waiting thread must see the notifications that were read here
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
        """Forget this worker id, because the worker was given away. The next connect() registers a new worker."""
        with self._lock:
            if self.worker_id == worker_id:
                self.worker_id = None

    def wake(self) -> None:
        """Make a wait() in another thread return."""
        with suppress(BlockingIOError):  # a full pipe wakes the thread, too
            os.write(self._wake_write, b"w")

    def leave(self) -> None:
        """Retire the worker: put the jobs that it still holds back in line, and release its lock."""
        with self._lock:
            if self.connected and self.worker_id is not None and self._conn is not None:
                query = sql.SQL("select {}(%s)").format(placeable(self._schema, "retire_worker"))
                # The server then releases the lock, and a rescue returns the jobs.
                with self._reading, suppress(psycopg.Error):
                    self._conn.execute(query, [self.worker_id])
            self.worker_id = None

    def close(self) -> None:
        """Close the connection and the pipe, which releases the worker's lock. A second call does nothing."""
        with self._lock:
            if self._conn is not None:
                self._conn.close()
            pipe, self._pipe = self._pipe, ()
            for end in pipe:  # close each end only once, because another file may get its number afterwards
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
            # The jitter keeps many workers from reconnecting at the same moment. It need not be secret.
            self._retry_at = time.monotonic() + self._backoff * random.uniform(0.5, 1.0)  # noqa: S311
            if not self._told:
                self._told = True
                log.warning("listener.unreachable", extra={"error": str(error).strip()})
            return False
        return True

    def _lose(self, conn: Connection) -> None:
        """Close a dead connection and log the loss once. A second thread may find the same connection dead later."""
        if conn is not self._lost:
            self._lost, self._lost_at = conn, time.monotonic()
            log.warning("listener.lost", extra={"worker_id": self.worker_id})
        conn.close()


def own_channel(schema: str, worker_id: int) -> str:
    """Return the channel of one worker. It has at most 62 bytes, so that ! or ? can be appended.

    Schemas whose names begin with the same 48 bytes share channels.
    """
    return f"{schema.encode()[:48].decode(errors='ignore')}:{worker_id}"
