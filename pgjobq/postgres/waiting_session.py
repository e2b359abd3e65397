"""The session that waits for jobs: what it has registered, and when it must look again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from psycopg import sql

from pgjobq.models import Job
from pgjobq.postgres.fetching import fetch
from pgjobq.postgres.pool import connect
from pgjobq.postgres.wait_calls import WaitCalls

OPEN_MIN, OPEN_MAX = 0.0005, 0.5  # seconds between two checks whether open transactions have ended
LOOK_EVERY = 5.0  # seconds between two looks at all jobs
ANSWER_TIME = 15.0  # seconds without an answer after which the session is given up


class WaitingSession:
    """A connection that is notified of the ends of jobs. Used by one thread. Its methods raise psycopg.Error.

    A job may end without a notification if its transaction was open, and had looked for waiting sessions already, when
    the job was registered. So the session remembers the transactions that are open then, and looks again when they have
    ended. A look now and then finds jobs that were deleted or changed manually.
    """

    def __init__(self, parameters: Mapping[str, Any], calls: WaitCalls) -> None:
        self._calls = calls
        self._conn = connect(parameters, ANSWER_TIME)
        self._heard: set[str] = set()
        self._conn.add_notify_handler(lambda notification: self._heard.add(notification.payload))
        self._channel = ""
        self.registered: set[str] = set()
        self._ended: set[str] = set()  # still registered in the database
        self._open: list[str] = []
        self._unsure: set[str] = set()  # jobs that one of these open transactions may end
        self._open_pause, self._open_at = OPEN_MIN, 0.0
        self._look_at = time.monotonic() + LOOK_EVERY

    def turn(self, wanted: set[str]) -> dict[str, Job | None]:
        """Wait for exactly these jobs, and return those that have ended; None for one that does not exist."""
        new = wanted - self.registered
        gone = (self.registered - wanted) | self._ended
        if new or gone:
            self._register(new, gone, wanted)
        self._read()
        look = (new | self._heard) & wanted
        self._heard.clear()
        now = time.monotonic()
        if self._open and now >= self._open_at:
            look |= self._check_open(now) & wanted
        if now >= self._look_at:
            look, self._look_at = set(wanted), now + LOOK_EVERY
        ended = fetch(self._conn, self._calls.ended_jobs(sorted(look))) if look else {}
        self.registered -= ended.keys()
        self._ended |= ended.keys()
        return ended

    def pause(self) -> float:
        """Return the seconds until the next turn, unless there is a notification before."""
        until = min(self._look_at, self._open_at) if self._open else self._look_at
        return 0.0 if self._heard else max(0.0, until - time.monotonic())

    def fileno(self) -> int:
        """Return the file descriptor of its socket."""
        return self._conn.fileno()

    def end(self) -> None:
        """End all waits, and close the connection."""
        if self.registered or self._ended:
            fetch(self._conn, self._calls.stop_waiting())
        self._conn.close()

    def abandon(self) -> None:
        """Close the connection, which may be dead."""
        self._conn.close()

    def _register(self, new: set[str], gone: set[str], wanted: set[str]) -> None:
        if wanted:
            channel = fetch(self._conn, self._calls.wait_for_jobs(sorted(new), sorted(gone)))
            if channel != self._channel:
                self._conn.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
                self._channel = channel
        else:
            fetch(self._conn, self._calls.stop_waiting())
        self.registered, self._ended = set(wanted), set()
        if new and (found := fetch(self._conn, self._calls.may_end_jobs())):
            self._open = sorted({*self._open, *found})
            self._unsure |= new
            self._open_pause, self._open_at = OPEN_MIN, time.monotonic() + OPEN_MIN
        self._unsure &= wanted
        if not self._unsure:
            self._open = []

    def _check_open(self, now: float) -> set[str]:
        """Return the jobs at which to look because open transactions have ended."""
        still = fetch(self._conn, self._calls.may_end_jobs(self._open))
        look = set(self._unsure) if len(still) < len(self._open) else set()
        self._open = still
        if not still:
            self._unsure = set()
        self._open_pause = min(self._open_pause * 2, OPEN_MAX)
        self._open_at = now + self._open_pause
        return look

    def _read(self) -> None:
        """Read the notifications that have come, without waiting."""
        self._conn.pgconn.consume_input()
        while notification := self._conn.pgconn.notifies():
            self._heard.add(notification.extra.decode())
