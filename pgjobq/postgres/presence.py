"""A storage's life as a worker: its registration, its sleep, and its part in rescuing others."""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psycopg

from pgjobq.models import Job, utc_now
from pgjobq.postgres.doorbell import Doorbell
from pgjobq.postgres.listener import Listener
from pgjobq.storage.base import Upkeep

log = logging.getLogger("pgjobq.presence")

Rows = Callable[[str, Sequence[Any]], list[Any]]  # rows("function", arguments) -> the rows of its statement

GRACE = 2.0  # seconds that a worker may be without its lock
IDLE_UPKEEP, BUSY_UPKEEP = 10.0, 1.0  # seconds between rounds of upkeep; busy: somebody holds jobs
LONG_RUN = 0.25  # seconds; a job that runs longer has the sleeping workers called to watch
WATCH_PAUSE = 5.0  # seconds between two such calls
POLL_MIN, POLL_MAX = 0.01, 1.0  # seconds between claims of a worker that cannot be notified


class Presence:
    """With the means to connect a listener: session lock and notifications. Without: heartbeats and polling."""

    def __init__(
        self,
        rows: Rows,
        statements: Mapping[str, bytes],
        *,
        listen: Mapping[str, Any] | None,
        schema: str,
        poll_interval: float,
    ) -> None:
        self._rows, self._statements = rows, statements
        self._schema, self._poll_interval = schema, poll_interval
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._watch: Callable[[], None] = lambda: None
        self._watched_at = -math.inf
        self._active = False  # claimed something since the last round of upkeep
        self._to_look = False  # asked to look after another worker
        self._poked, self._poll = threading.Event(), POLL_MIN
        self._beating_id: int | None = None
        self._listener: Listener | None = None
        self._doorbell: Doorbell | None = None
        if listen is not None:
            self._listener = Listener(listen, schema=schema, name=self._name, on_watch=self._called_to_watch)
            self._doorbell = Doorbell(self._listener, self._on_listener, poll_interval, self._called_to_watch)

    @property
    def worker_id(self) -> int | None:
        """The worker's id, None when it is not registered."""
        return self._beating_id if self._listener is None else self._listener.worker_id

    def join(self, queues: Sequence[str] | None) -> int:
        """Be registered as a worker for these queues; its id. Raises psycopg.Error."""
        if self._listener is not None:
            self._listener.queues = queues
            return self._listener.connect()
        if self._beating_id is None:
            wanted = None if queues is None else list(queues)
            self._beating_id = int(self._value("register_worker", self._name, wanted))
        return self._beating_id

    def found(self, jobs: int, limit: int, queues: Sequence[str] | None) -> None:
        """A claim for up to limit jobs found so many. Never raises: the caller has jobs to run."""
        if jobs:
            self._poll = POLL_MIN
            if not self._active:
                self._active = True
                self._watch()  # whoever works looks after the others, too
        if self._doorbell is None:
            return
        if jobs:
            try:
                self._doorbell.found_jobs(jobs, limit, queues)
            except psycopg.Error as error:  # the listener connects anew at the next claim, and all is told anew
                log.warning("doorbell.error", extra={"error": str(error).strip()})
        elif self._doorbell.rang:
            self._watch()  # somebody else has the job that it rang for
        self._doorbell.rang = False

    def wait(self, timeout: float, queues: Sequence[str] | None) -> bool:
        """See Doorbell.wait; polling, with pauses that grow to a second, where there is no listener."""
        if self._doorbell is not None:
            return self._doorbell.wait(timeout, queues)
        self._poked.wait(min(timeout, self._poll, self._poll_interval))
        self._poked.clear()
        self._poll = min(self._poll * 2, POLL_MAX)
        return True

    def note_load(self, busy: bool, full: bool) -> None:
        """See Doorbell.note_load."""
        if self._doorbell is not None:
            self._doorbell.note_load(busy, full)

    def wake(self) -> None:
        """Make a wait() in another thread return."""
        self._poked.set()
        if self._listener is not None:
            self._listener.wake()

    def on_watch(self, callback: Callable[[], None]) -> None:
        """Call back, in the waiting thread, when another worker has a job or asks to be looked after."""
        self._watch = callback

    def _called_to_watch(self) -> None:
        self._to_look = True
        self._watch()

    def maintain(self, running: Sequence[Job]) -> Upkeep:
        """Say that we live or see that the lock is held; rescue the jobs of the dead; find which of ours we lost."""
        if self._beating_id is not None and not self._value("heartbeat_worker", self._beating_id):
            log.warning("worker.given_away", extra={"worker_id": self._beating_id})
            self._beating_id = None
        if self._listener is not None:
            self._listener.keep()
        rescued, failed, watched = self._rows("rescue_jobs", [GRACE, self.worker_id])[0]
        if rescued or failed:
            log.warning("jobs.rescued", extra={"rescued": rescued, "failed": failed})
        if self._to_look and self._listener is not None and not self._value("is_polled", self.worker_id):
            # Whoever was rung, or polled, has come and gone, or died: the one who waits falls asleep anew.
            self._to_look = False
            self._listener.call()
        busy = bool(running or watched or self._active)
        self._active = False
        return Upkeep(lost=self._lost(running), rescued=rescued, again_in=BUSY_UPKEEP if busy else IDLE_UPKEEP)

    def _lost(self, running: Sequence[Job]) -> list[Job]:
        lost: list[Job] = []
        for worker_id in {job.worker_id for job in running}:
            mine = [job for job in running if job.worker_id == worker_id]
            arguments = [worker_id, [job.id for job in mine], [job.attempts for job in mine]]
            gone = {row[0] for row in self._rows("lost_jobs", arguments)}
            lost += [job for job in mine if job.id in gone]
        now = time.monotonic()
        if running and self._listener is not None and now - self._watched_at >= WATCH_PAUSE:
            started = min(job.started_at or utc_now() for job in running)
            if (utc_now() - started).total_seconds() >= LONG_RUN:
                self._rows("call_watch", [self.worker_id])
                self._watched_at = now
        return lost

    def leave(self) -> None:
        """Retire: jobs still held go back in line."""
        if self._listener is not None:
            self._listener.leave()
        elif self._beating_id is not None:
            self._rows("retire_worker", [self._beating_id])
            self._beating_id = None

    def close(self) -> None:
        """Close the listener; without leave(), others will find the worker dead."""
        if self._listener is not None:
            self._listener.close()

    def _on_listener(self, name: str, *arguments: Any) -> Any:
        assert self._listener is not None  # the doorbell is there with it
        return self._listener.value(self._statements[name], arguments)

    def _value(self, name: str, *arguments: Any) -> Any:
        return self._rows(name, arguments)[0][0]
