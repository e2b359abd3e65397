"""A locust user with a PostgreSQL connection, whose calls are locust's requests."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, LiteralString

import locust  # before psycopg: it patches what psycopg waits with
import psycopg
import psycopg.waiting
from ledger import Ledger
from locust.exception import RescheduleTask
from locust.user.task import LOCUST_STATE_STOPPING
from target import Connection, Target

CONNECT = ("CONNECT", "connect")
RECONNECT_PAUSE = 1.0  # seconds

if psycopg.waiting.wait is getattr(psycopg.waiting, "wait_c", None):
    raise RuntimeError(
        "psycopg was imported before locust, so its calls would not run side by side; run this by the command locust"
    )


class NotCompleted(Exception):
    """A job that somebody waits for did not come to its end, or to a bad one."""


class Client(locust.User):
    """The base of all users. target and ledger are set before any user starts."""

    abstract = True
    target: ClassVar[Target]
    ledger: ClassVar[Ledger]

    def on_start(self) -> None:
        """The connection is made by the first call that needs it."""
        self._conn: Connection | None = None

    def on_stop(self) -> None:
        """Close the connection."""
        if self._conn is not None:
            self._conn.close()

    def stop(self, force: bool = False) -> bool:
        """Let the pause or the call under way end. locust kills users that pause, and may hit the next call instead."""
        if force or self._state is None:
            return bool(super().stop(force))
        self._state = LOCUST_STATE_STOPPING
        return False

    def call(self, name: str, statement: LiteralString, arguments: Sequence[Any] = (), *, enqueues: str = "") -> None:
        """Execute a statement as a request of its own. enqueues: the type of the job that it enqueues."""
        with self.request("SQL", name) as conn:
            self.execute(conn, statement, arguments, enqueues=enqueues)

    def execute(
        self, conn: Connection, statement: LiteralString, arguments: Sequence[Any] = (), *, enqueues: str = ""
    ) -> psycopg.Cursor[Any]:
        """Execute a statement, {} in it being pgjobq's schema."""
        query = self.target.sql(statement)
        if not enqueues:
            return conn.execute(query, arguments)
        with self.ledger.enqueueing(conn, enqueues):
            return conn.execute(query, arguments)

    @contextmanager
    def request(self, method: str, name: str) -> Iterator[Connection]:
        """Time the block as one request. An error of the database's makes it a failed one."""
        conn = self._connected()
        began = time.perf_counter()
        try:
            yield conn
        except (psycopg.Error, NotCompleted) as error:
            self.report(method, name, time.perf_counter() - began, error)
        else:
            self.report(method, name, time.perf_counter() - began)

    def report(self, method: str, name: str, seconds: float, error: Exception | None = None) -> None:
        """Tell locust of a request that took so long."""
        self.environment.events.request.fire(
            request_type=method, name=name, response_time=seconds * 1000, response_length=0, exception=error, context={}
        )

    def _connected(self) -> Connection:
        if self._conn is None or self._conn.closed:
            began = time.perf_counter()
            try:
                self._conn = self.target.connect()
            except psycopg.OperationalError as error:
                self.report(*CONNECT, time.perf_counter() - began, error)
                time.sleep(RECONNECT_PAUSE)  # a server that is away is not to be hammered
                raise RescheduleTask from error
            self.report(*CONNECT, time.perf_counter() - began)
        return self._conn
