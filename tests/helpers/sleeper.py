"""A worker whose states the test sets directly."""

from __future__ import annotations

from typing import Any

import psycopg

Connection = psycopg.Connection[Any]


class Sleeper:
    """The listener of a worker: it registers, listens on its own channel, and takes the state that a test sets."""

    def __init__(self, conn: Connection, queues: list[str] | None = None) -> None:
        self.conn, self.queues = conn, queues
        row = conn.execute("select register_worker('by hand', %s)", [queues]).fetchone()
        assert row is not None
        self.id = int(row[0])
        self.channel = f"pgjobq:{self.id}"
        self.state, self.busy, self.alarm = "awake", False, 60.0
        conn.execute(f'listen "{self.channel}"; listen "{self.channel}!"; listen "{self.channel}?"')

    def tell(self, state: str) -> Any:
        """Set this state, and return the answer of set_worker_state."""
        self.state = state
        query = "select open, pollers, on_watch from set_worker_state(%s, %s, %s, %s, %s, %s)"
        arguments = [self.id, state, self.busy, self.queues, self.alarm, self.channel]
        return self.conn.execute(query, arguments).fetchone()

    def arm(self, alarm: float = 60) -> None:
        """Fall asleep."""
        self.alarm = alarm
        self.tell("asleep")

    def poll(self) -> bool:
        """Start to poll. Return whether this worker is on watch."""
        return bool(self.tell("polling")[2])

    def disarm(self) -> None:
        """Wake up, or stop polling."""
        self.tell("awake")

    def mark_busy(self, busy: bool) -> None:
        """Set whether the worker is busy."""
        self.busy = busy
        self.tell(self.state)

    def heard(self) -> list[str]:
        """Return the payloads since the last call, with ! for a call for help."""
        found = self.conn.notifies(timeout=0.2)
        return [_said(notification.channel, notification.payload) for notification in found]


def _said(channel: str, payload: str) -> str:
    """Return the queue of a new job, ! for a call for help, or nothing for a call to watch a worker."""
    return "!" if channel.endswith("!") else "" if channel.endswith("?") else payload
