"""The bell of a worker: a subscription by which a script wakes it."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable

from pgjobq.events import EventLog
from pgjobq.storage.redis.connection import Server

log = EventLog("pgjobq.storage")

LISTEN = 1.0  # seconds between looks at whether to stop
RETRY_MIN, RETRY_MAX = 0.1, 5.0  # seconds between tries to subscribe


class Bell(threading.Thread):
    """Listens, and calls back when it rings, or may have: after each subscription, for it rang to nobody before.

    name_if_heard is its name while it is subscribed, else "": by the name a claim that finds nothing asks to be woken.
    """

    def __init__(self, server: Server, rung: Callable[[], None]) -> None:
        super().__init__(name="pgjobq-bell", daemon=True)
        self._server, self._rung = server, rung
        self._bell_name = secrets.token_hex(8)
        self._stopping = threading.Event()
        self.name_if_heard = ""

    def run(self) -> None:
        """Subscribe and listen, again and again."""
        pause = RETRY_MIN
        while not self._stopping.is_set():
            try:
                self._listen()
                pause = RETRY_MIN
            except Exception as error:  # redis-py raises ValueError, too, when the storage closes its connections
                if self.name_if_heard:
                    pause = RETRY_MIN
                log.debug("bell.error", extra={"error": error, "retry_in": pause})
            self.name_if_heard = ""
            self._rung()  # until it is back, the storage polls
            self._stopping.wait(pause)
            pause = min(pause * 2, RETRY_MAX)

    def _listen(self) -> None:
        pubsub = self._server.pubsub()
        try:
            pubsub.subscribe(f"{self._server.root}bell:{self._bell_name}")
            while not self._stopping.is_set():
                message = pubsub.get_message(timeout=LISTEN)
                if message is None:
                    continue
                if message["type"] == "subscribe":
                    self.name_if_heard = self._bell_name
                self._rung()
        finally:
            pubsub.close()

    def stop(self) -> None:
        """End it, soon."""
        self._stopping.set()
        self.name_if_heard = ""
