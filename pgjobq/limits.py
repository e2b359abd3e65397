"""Limit how long a call waits for the server, because a silent server or proxy must not block it forever.

Keepalives and tcp_user_timeout end a connection whose packets are lost. They do not detect a stopped server process, or
a proxy that acknowledges every packet and forwards none.
"""

from __future__ import annotations

from collections.abc import Generator
from time import monotonic
from typing import Any

ANSWER_TIME = 30.0  # seconds without anything received from the server


class Limited:
    """A mixin for a psycopg Connection, which closes the connection if a call waits longer than answer_time seconds.

    The call then raises OperationalError. The time starts again whenever a part of the answer arrives or more can be
    sent. None means no limit, as for a handler's own statements and for notifies(). Adds 1 µs to a call.
    """

    answer_time: float | None = ANSWER_TIME

    def wait(self, gen: Generator[Any, Any, Any], *arguments: Any, **options: Any) -> Any:
        """Wait as psycopg.Connection.wait does, with the limit."""
        if self.answer_time is not None:
            gen = self._watched(gen, self.answer_time)
        return super().wait(gen, *arguments, **options)  # type: ignore[misc]  # defined by the Connection

    def _watched(self, gen: Generator[Any, Any, Any], seconds: float) -> Generator[Any, Any, Any]:
        # psycopg sends 0 into the generator ten times a second while the socket is not ready.
        silent_since = 0.0
        try:
            state = next(gen)
            while True:
                if ready := (yield state):
                    silent_since = 0.0
                elif not silent_since:
                    silent_since = monotonic()
                elif monotonic() - silent_since >= seconds:
                    conn: Any = self
                    conn.pgconn.finish()  # otherwise the next call would read the late answer as its own
                    raise conn.OperationalError(f"there was no answer within {seconds:g} seconds")
                state = gen.send(ready)
        except StopIteration as end:
            return end.value
