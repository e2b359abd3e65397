"""Reserve connections of a pool for claims, settles and maintenance, so that handlers cannot use them all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pgjobq.errors import StorageUnavailable
from pgjobq.events import EventLog

log = EventLog("pgjobq.storage")

OWN_CALLS = 4  # connections for a worker's own calls: a claim, a settle, maintenance, pruning
LEFT = 2  # connections of a caller's pool that are reserved for these calls


class Room:
    """Limits the transactions of handlers. Enter taken() around each that borrows a connection. Thread-safe.

    grow: resizes a pool that pgjobq owns, to fit the most transactions that were open at once. A caller's pool, for
    which grow is None, keeps its size. There, transactions that would take the last two of its max_size connections
    wait for at most timeout seconds, and this is logged once. max_size: None for a pool without a limit.
    """

    def __init__(self, max_size: int | None, timeout: float, grow: Callable[[int], None] | None = None) -> None:
        self._max_size, self._timeout, self._grow = max_size, timeout, grow
        self._lock, self._open, self._told = threading.Lock(), 0, False
        limit = None if grow is not None or max_size is None else max(1, max_size - LEFT)
        self._places = None if limit is None else threading.Semaphore(limit)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Count a transaction until it ends. Raises StorageUnavailable if a caller's pool has no room in time."""
        if self._places is not None and not self._places.acquire(blocking=False):
            self._wait(self._places)
        try:
            with self._lock:
                self._open += 1
                if self._grow is not None and self._max_size is not None and self._open + OWN_CALLS > self._max_size:
                    self._max_size = self._open + OWN_CALLS
                    self._grow(self._max_size)
            try:
                yield
            finally:
                with self._lock:
                    self._open -= 1
        finally:
            if self._places is not None:
                self._places.release()

    def _wait(self, places: threading.Semaphore) -> None:
        with self._lock:
            tell, self._told = not self._told, True
        remedy = f"set its max_size to the worker's concurrency plus {OWN_CALLS}"
        if tell:
            problem = f"handlers wait for connections that are reserved for claims and settles; {remedy}"
            log.warning("pool.too_small", extra={"max_size": self._max_size, "error": problem})
        if not places.acquire(timeout=self._timeout):
            raise StorageUnavailable(
                f"the pool, of max_size {self._max_size}, had no room for another job.transaction() within"
                f" {self._timeout:g} s; {remedy}"
            )
