"""A worker's listener that changes its state only when a test tells it to."""

from __future__ import annotations

from typing import Any

import psycopg

Connection = psycopg.Connection[Any]


class Sleeper:
    """Registers a worker and listens on its channels. It does not claim jobs."""

    def __init__(self, conn: Connection, queues: list[str] | None = None) -> None:
        self.conn, self.queues = conn, queues
        row = conn.execute("select register_worker('by hand', %s)", [queues]).fetchone()
        assert row is not None
        self.id = int(row[0])
        self.channel = f"pgjobq:{self.id}"
        self.state, self.busy, self.alarm = "awake", False, 60.0
        conn.execute(f'listen "{self.channel}"; listen "{self.channel}!"; listen "{self.channel}?"')

    def tell(self, state: str) -> Any:
        """Set the worker's state, and return the row of set_worker_state."""
        self.state = state
        query = "select open, pollers, on_watch from set_worker_state(%s, %s, %s, %s, %s, %s)"
        arguments = [self.id, state, self.busy, self.queues, self.alarm, self.channel]
        return self.conn.execute(query, arguments).fetchone()

    def arm(self, alarm: float = 60) -> None:
        """Set the state asleep, with an alarm after this many seconds."""
        self.alarm = alarm
        self.tell("asleep")

    def poll(self) -> bool:
        """Set the state polling. Return whether this worker is on watch."""
        return bool(self.tell("polling")[2])

    def disarm(self) -> None:
        """Set the state awake."""
        self.tell("awake")

    def mark_busy(self, busy: bool) -> None:
        """Set or release the key busy."""
        self.busy = busy
        self.tell(self.state)

    def heard(self) -> list[str]:
        """Return the payloads of the notifications since the last call; `!` stands for a call for help."""
        found = self.conn.notifies(timeout=0.2)
        return [_payload(notification.channel, notification.payload) for notification in found]


def _payload(channel: str, payload: str) -> str:
    """Return the queue of the job, `!` for a call for help, or an empty string for a call to watch."""
    return "!" if channel.endswith("!") else "" if channel.endswith("?") else payload
