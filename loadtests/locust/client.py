"""A locust user with a PostgreSQL connection. Its calls are reported as locust's requests."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, LiteralString

import locust  # before psycopg, because it patches the functions that psycopg waits with
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
        "psycopg was imported before locust, so its calls would block each other; run this with the command locust"
    )


class NotCompleted(Exception):
    """The job that a caller waits for did not end in time, or was not completed."""


class Client(locust.User):
    """The base of all users. target and ledger are set before any user starts."""

    abstract = True
    target: ClassVar[Target]
    ledger: ClassVar[Ledger]

    def on_start(self) -> None:
        """Create a user without a connection. The first call connects."""
        self._conn: Connection | None = None

    def on_stop(self) -> None:
        """Close the connection."""
        if self._conn is not None:
            self._conn.close()

    def stop(self, force: bool = False) -> bool:
        """Stop after the current pause or call. locust would kill a user in its pause, and might hit its next call."""
        if force or self._state is None:
            return bool(super().stop(force))
        self._state = LOCUST_STATE_STOPPING
        return False

    def call(self, name: str, statement: LiteralString, arguments: Sequence[Any] = (), *, enqueues: str = "") -> None:
        """Execute a statement and report it as one request. enqueues: the type of the job that it enqueues."""
        with self.request("SQL", name) as conn:
            self.execute(conn, statement, arguments, enqueues=enqueues)

    def execute(
        self, conn: Connection, statement: LiteralString, arguments: Sequence[Any] = (), *, enqueues: str = ""
    ) -> psycopg.Cursor[Any]:
        """Execute a statement in which {} stands for pgjobq's schema."""
        query = self.target.sql(statement)
        if not enqueues:
            return conn.execute(query, arguments)
        with self.ledger.enqueueing(conn, enqueues):
            return conn.execute(query, arguments)

    @contextmanager
    def request(self, method: str, name: str) -> Iterator[Connection]:
        """Time the block and report it as one request, which has failed if the database raised an error."""
        conn = self._connected()
        began = time.perf_counter()
        try:
            yield conn
        except (psycopg.Error, NotCompleted) as error:
            self.report(method, name, time.perf_counter() - began, error)
        else:
            self.report(method, name, time.perf_counter() - began)

    def report(self, method: str, name: str, seconds: float, error: Exception | None = None) -> None:
        """Report a request of this duration to locust."""
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
                time.sleep(RECONNECT_PAUSE)  # do not flood a server that is down with connections
                raise RescheduleTask from error
            self.report(*CONNECT, time.perf_counter() - began)
        return self._conn
