"""Falling asleep without missing a job: the worker's side of the doorbell.

An enqueue notifies only a worker that is registered as asleep. Between a worker's last empty claim and its
registration lies a race: an enqueue that looked before the registration and commits after the claim. It is
closed like this, one step a call of wait(), its caller claiming between the calls:

1. register, commit; note V, the open transactions that may have enqueued; return, and the caller claims;
2. while any of V is open, poll (2 ms, doubling to 50 ms), and return whenever one ended;
3. then sleep: whoever enqueues later sees the registration, and rings.

The registration stays while the worker runs what it was woken for: the bell goes on ringing into its socket,
so it needs no new registration to sleep again. A worker that hears the bell very often takes it back and
polls on its own rhythm, which spares the enqueuers the notification, until it finds nothing for a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from pgjobq.postgres.listener import Listener

Call = Callable[..., Any]  # call("function", *args) -> the value that the SQL function returns

LADDER_MIN, LADDER_MAX = 0.002, 0.050  # seconds between looks at open enqueues
ALARM = 600.0  # seconds for which a registration promises nothing but to be renewed
BUSY_GAP = 0.002  # bells closer than this, on average, turn the worker to polling
BUSY_POLL = 0.002  # seconds between claims while polling
QUIET_AFTER = 0.050  # seconds without a job before the bell is armed again


class Doorbell:
    """The state of one worker's sleep. Used by one thread."""

    def __init__(self, listener: Listener, call: Call, poll_interval: float) -> None:
        self._listener, self._call, self._poll_interval = listener, call, poll_interval
        self._armed: tuple[int, int | None, tuple[str, ...] | None] | None = None
        self._armed_until = 0.0
        self._open: set[str] = set()
        self._step = LADDER_MIN
        self._gap = 1.0  # running average of seconds between bells
        self._heard_at = 0.0
        self._polling_since: float | None = None
        self.rang = False  # since the last claim

    def wait(self, timeout: float, queues: Sequence[str] | None) -> None:
        """Return when there may be something to claim, or after timeout seconds."""
        deadline = time.monotonic() + timeout
        if self._polling_since is not None and time.monotonic() - self._polling_since < QUIET_AFTER:
            self._listener.wait(min(timeout, BUSY_POLL))
            return
        self._polling_since = None
        if not self._is_armed(queues):
            self._arm(queues)
            return
        if self._open:
            self._wait_for_open(deadline)
            return
        due = self._call("next_due")
        pause = min(timeout, self._poll_interval, self._armed_until - time.monotonic())
        if due is not None:
            pause = min(pause, due)
        if pause > 0 and self._listener.wait(pause):
            self._heard()

    def found_jobs(self, many: bool) -> None:
        """The caller claimed something. many: as much as it asked for, so it need not be told of more."""
        if self._polling_since is not None:
            self._polling_since = time.monotonic()
        elif many or self._gap < BUSY_GAP:
            self.disarm()
            self._polling_since = time.monotonic()

    def disarm(self) -> None:
        """Take the registration back."""
        if self._armed is not None:
            self._armed = None
            self._call("disarm_doorbell", self._listener.worker_id)

    def _is_armed(self, queues: Sequence[str] | None) -> bool:
        return self._armed == self._identity(queues) and time.monotonic() < self._armed_until

    def _identity(self, queues: Sequence[str] | None) -> tuple[int, int | None, tuple[str, ...] | None]:
        # A new connection hears nothing of what rang for the old one.
        return self._listener.generation, self._listener.worker_id, None if queues is None else tuple(queues)

    def _arm(self, queues: Sequence[str] | None) -> None:
        identity = self._identity(queues)
        wanted = None if queues is None else list(queues)
        self._call("arm_doorbell", self._listener.worker_id, wanted, ALARM)
        self._armed, self._armed_until = identity, time.monotonic() + ALARM / 2
        self._open, self._step = set(self._call("open_enqueues")), LADDER_MIN
        self._gap = 1.0

    def _wait_for_open(self, deadline: float) -> None:
        before = len(self._open)
        while len(self._open) == before and (left := deadline - time.monotonic()) > 0:
            if self._listener.wait(min(self._step, left)):
                self._heard()
                return
            self._step = min(self._step * 2, LADDER_MAX)
            self._open &= set(self._call("open_enqueues"))

    def _heard(self) -> None:
        self.rang = True
        now = time.monotonic()
        self._gap = 0.8 * self._gap + 0.2 * min(now - self._heard_at, 1.0)
        self._heard_at = now
