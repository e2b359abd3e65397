"""A limit of the client's own: a server or a middlebox that says nothing must not hold a call for ever.

Keepalives and tcp_user_timeout end a connection whose packets are lost. They do not notice a proxy that acknowledges
every packet and passes none on, or a server process that is stopped.
"""

from __future__ import annotations

from collections.abc import Generator
from time import monotonic
from typing import Any

ANSWER_TIME = 30.0  # seconds without a sign of the server


class Limited:
    """Mixed into a psycopg Connection: a call that waits for the server longer than answer_time loses the connection.

    What comes in between, a part of the answer or room to send more, begins the time again. The call raises
    OperationalError. None: no limit, as for a handler's own statements and for notifies(). Costs a call 1 µs.
    """

    answer_time: float | None = ANSWER_TIME

    def wait(self, gen: Generator[Any, Any, Any], *arguments: Any, **options: Any) -> Any:
        """See psycopg.Connection.wait."""
        if self.answer_time is not None:
            gen = self._watched(gen, self.answer_time)
        return super().wait(gen, *arguments, **options)  # type: ignore[misc]  # it is the Connection's

    def _watched(self, gen: Generator[Any, Any, Any], seconds: float) -> Generator[Any, Any, Any]:
        # psycopg sends 0 ten times a second while the socket is silent.
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
                    conn.pgconn.finish()  # a later answer would be taken for that of another call
                    raise conn.OperationalError(f"there was no answer within {seconds:g} seconds")
                state = gen.send(ready)
        except StopIteration as end:
            return end.value
