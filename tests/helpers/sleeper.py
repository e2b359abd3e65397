"""A worker that sleeps and polls by hand."""

from __future__ import annotations

from typing import Any

import psycopg

Connection = psycopg.Connection[Any]


class Sleeper:
    """A worker's listener, by hand: it registers, listens on its own channel, and is in whatever state is asked."""

    def __init__(self, conn: Connection, queues: list[str] | None = None) -> None:
        self.conn, self.queues = conn, queues
        row = conn.execute("select register_worker('by hand', %s)", [queues]).fetchone()
        assert row is not None
        self.id = int(row[0])
        self.channel = f"pgjobq:{self.id}"
        self.state, self.busy, self.alarm = "awake", False, 60.0
        conn.execute(f'listen "{self.channel}"; listen "{self.channel}!"; listen "{self.channel}?"')

    def tell(self, state: str) -> Any:
        """Be in that state; what set_worker_state answers."""
        self.state = state
        query = "select open, pollers, on_watch from set_worker_state(%s, %s, %s, %s, %s, %s)"
        arguments = [self.id, state, self.busy, self.queues, self.alarm, self.channel]
        return self.conn.execute(query, arguments).fetchone()

    def arm(self, alarm: float = 60) -> None:
        """Fall asleep."""
        self.alarm = alarm
        self.tell("asleep")

    def poll(self) -> bool:
        """Poll; whether this is the one on watch."""
        return bool(self.tell("polling")[2])

    def disarm(self) -> None:
        """Neither."""
        self.tell("awake")

    def mark_busy(self, busy: bool) -> None:
        """Run something."""
        self.busy = busy
        self.tell(self.state)

    def heard(self) -> list[str]:
        """Payloads since it was asked last; a call for help is !."""
        found = self.conn.notifies(timeout=0.2)
        return [_said(notification.channel, notification.payload) for notification in found]


def _said(channel: str, payload: str) -> str:
    """The queue of a job; ! for a call for help; nothing for a worker to be watched."""
    return "!" if channel.endswith("!") else "" if channel.endswith("?") else payload
