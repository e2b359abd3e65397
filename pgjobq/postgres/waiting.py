"""Waits for jobs, all of a storage on one connection, which is open only while there are any."""

from __future__ import annotations

import os
import random
import selectors
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any

import psycopg

from pgjobq.awaited import no_such_job
from pgjobq.errors import PgjobqError, StorageUnavailable
from pgjobq.events import EventLog
from pgjobq.forks import renew_in_child
from pgjobq.models import Job
from pgjobq.postgres.errors import translate
from pgjobq.postgres.listener import BACKOFF_MAX, BACKOFF_MIN, Selector
from pgjobq.postgres.wait_calls import WaitCalls
from pgjobq.postgres.waiting_session import WaitingSession

log = EventLog("pgjobq.waiting")

LINGER = 5.0  # seconds for which the connection stays open after the last wait
CLOSE_TIME = 1.0  # seconds to wait for the thread, which may be connecting


class Waiting:
    """Delivers jobs that have ended to futures. Thread-safe.

    One thread does all of it, and ends with the connection. While the server is out of reach, it connects again with
    capped backoff, and the futures stay as they are.
    """

    def __init__(self, parameters: Mapping[str, Any], calls: WaitCalls) -> None:
        self._parameters, self._calls = parameters, calls
        self._pipe: tuple[int, ...] = ()
        self.after_fork()
        renew_in_child(self)

    def after_fork(self) -> None:
        """Begin again in a forked child, where the parent's thread does not run."""
        self._lock = threading.Lock()
        self._waits: dict[str, set[Future[Job]]] = {}
        self._thread: threading.Thread | None = None
        self.trouble = ""  # why there is no connection
        pipe, self._pipe = self._pipe, ()
        for end in pipe:
            os.close(end)

    def expect(self, ids: Sequence[str]) -> list[Future[Job]]:
        """Return a future for each job. It gets the job, or JobNotFound, or the error that prevents waiting."""
        futures: list[Future[Job]] = [Future() for _ in ids]
        with self._lock:
            for job_id, future in zip(ids, futures, strict=True):
                self._waits.setdefault(job_id, set()).add(future)
            if self._thread is None:
                self._pipe = os.pipe()
                for end in self._pipe:
                    os.set_blocking(end, False)
                self._thread = threading.Thread(target=self._main, args=self._pipe, name="pgjobq-waiting", daemon=True)
                self._thread.start()
            self._wake()
        return futures

    def forget(self, ids: Sequence[str], futures: Sequence[Future[Job]]) -> None:
        """Wait no longer for these."""
        with self._lock:
            for job_id, future in zip(ids, futures, strict=True):
                some = self._waits.get(job_id, set())
                some.discard(future)
                if not some:
                    self._waits.pop(job_id, None)
            self._wake()

    def close(self) -> None:
        """End all waits, with StorageUnavailable, and the connection."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._wake()
            self._pipe = ()
        self._fail(StorageUnavailable("the storage was closed while this waited"))
        if thread is not None and thread is not threading.current_thread():
            thread.join(CLOSE_TIME)

    def _wake(self) -> None:
        if self._pipe:
            with suppress(BlockingIOError):  # a full pipe wakes the thread, too
                os.write(self._pipe[1], b"w")

    # -- in the thread ----------------------------------------------------------------------------------

    def _main(self, wake_read: int, wake_write: int) -> None:
        session: WaitingSession | None = None
        backoff, idle_since = BACKOFF_MIN, time.monotonic()
        try:
            while (wanted := self._wanted(idle_since)) is not None:
                idle_since = time.monotonic() if wanted else idle_since
                try:
                    if session is None:
                        session = self._connect()
                        backoff = BACKOFF_MIN
                    self._deliver(session.turn(wanted))
                    if session.registered == self._waits.keys():
                        left = idle_since + LINGER - time.monotonic()
                        _sleep([session.fileno(), wake_read], session.pause() if wanted else left)
                except Exception as error:
                    session = self._failed(session, error)
                    if session is None:
                        backoff = min(backoff * 2, BACKOFF_MAX)
                        # The jitter keeps many clients from reconnecting at the same moment. It need not be secret.
                        _sleep([wake_read], backoff * random.uniform(0.5, 1.0))  # noqa: S311
                with suppress(BlockingIOError):
                    os.read(wake_read, 4096)
        finally:
            if session is not None:
                with suppress(psycopg.Error):
                    session.end()
            os.close(wake_read)
            os.close(wake_write)

    def _wanted(self, idle_since: float) -> set[str] | None:
        """Return the jobs for which calls wait, or None if the thread should end."""
        with self._lock:
            if self._thread is not threading.current_thread():
                return None  # closed
            if not self._waits and time.monotonic() - idle_since >= LINGER:
                self._thread, self._pipe = None, ()
                return None
            return set(self._waits)

    def _connect(self) -> WaitingSession:
        session = WaitingSession(self._parameters, self._calls)
        if self.trouble:
            log.warning("waiting.reconnected")
            self.trouble = ""
        return session

    def _deliver(self, ended: Mapping[str, Job | None]) -> None:
        for job_id, job in ended.items():
            with self._lock:
                futures = self._waits.pop(job_id, set())
            for future in futures:
                with suppress(InvalidStateError):  # its caller has cancelled it
                    if job is None:
                        future.set_exception(no_such_job(job_id))
                    else:
                        future.set_result(job)

    def _failed(self, session: WaitingSession | None, error: Exception) -> WaitingSession | None:
        """Give up a dead connection, or else fail the waits, because no other connection would help."""
        found = translate(error) if isinstance(error, psycopg.Error) else error
        if isinstance(found, StorageUnavailable | OSError):
            if not self.trouble:
                log.warning("waiting.lost", extra={"error": str(found)})
            self.trouble = str(found)
        else:
            self._fail(found if isinstance(found, PgjobqError) else PgjobqError(f"waiting failed: {found!r}"))
        if session is not None:
            session.abandon()
        return None

    def _fail(self, error: PgjobqError) -> None:
        with self._lock:
            waits, self._waits = self._waits, {}
        for future in (future for futures in waits.values() for future in futures):
            with suppress(InvalidStateError):
                future.set_exception(error)


def _sleep(sockets: list[int], seconds: float) -> None:
    """Sleep until one of these is readable, at most so long."""
    with Selector() as selector:
        for fd in sockets:
            selector.register(fd, selectors.EVENT_READ)
        selector.select(max(0.0, seconds))
