"""The bell of a worker: a subscription through which a script wakes the worker."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable

from pgjobq.events import EventLog
from pgjobq.storage.redis.connection import Server

log = EventLog("pgjobq.storage")

LISTEN = 1.0  # seconds between checks whether to stop
RETRY_MIN, RETRY_MAX = 0.1, 5.0  # seconds between attempts to subscribe


class Bell(threading.Thread):
    """A thread that listens, and calls back when the bell rings.

    It also calls back after each subscription, because the bell may have rung before. name_if_heard is the bell's name
    while it is subscribed, and "" at other times. A claim that finds no job registers this name to be woken.
    """

    def __init__(self, server: Server, rung: Callable[[], None]) -> None:
        super().__init__(name="pgjobq-bell", daemon=True)
        self._server, self._rung = server, rung
        self._bell_name = secrets.token_hex(8)
        self._stopping = threading.Event()
        self.name_if_heard = ""

    def run(self) -> None:
        """Subscribe and listen until stop() is called. Subscribe again after an error."""
        pause = RETRY_MIN
        while not self._stopping.is_set():
            try:
                self._listen()
                pause = RETRY_MIN
            except Exception as error:  # redis-py also raises ValueError when the storage closes its connections
                if self.name_if_heard:
                    pause = RETRY_MIN
                log.debug("bell.error", extra={"error": error, "retry_in": pause})
            self.name_if_heard = ""
            self._rung()  # the storage polls until the subscription is restored
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
        """Make the thread end soon."""
        self._stopping.set()
        self.name_if_heard = ""
