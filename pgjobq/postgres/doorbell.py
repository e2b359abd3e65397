"""Falling asleep without missing a job, and not being woken for nothing: the worker's side of the doorbell.

An enqueue notifies only a worker that is registered as asleep. Between a worker's last empty claim and its
registration lies a race: an enqueue that looked before the registration and commits after the claim. It is
closed like this, one step a call of wait(), its caller claiming between the calls:

1. register; note V, the open transactions that may have enqueued; return, and the caller claims;
2. while any of V is open, poll (2 ms, doubling to 50 ms), and return whenever one ended;
3. then sleep: whoever enqueues later sees the registration, and rings.

The registration stays while the worker runs what it was woken for: the bell goes on ringing into its socket,
so it needs no new registration to sleep again.

A worker that hears the bell very often, or claims as much as it asked for, polls: it says so, nobody is
notified of what it wants, and it claims every few milliseconds until it finds nothing for a while. So does one
whose bells are slow to come because those who ring stand in line: a commit that notifies holds up all others.
Of those that poll for the same queues one is on watch; the others sleep again as soon as there is too little
for all.
One that has no room left, or stops, takes its registration back and calls others, for enqueues may have counted on
it. One that dies calls nobody: so a few who sleep look after it, those that it asked to and those that fell asleep
beside it, and fall asleep anew when it is gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

from pgjobq.postgres.listener import Listener

Call = Callable[..., Any]  # call("function", *args) -> the value that the SQL function returns

LADDER_MIN, LADDER_MAX = 0.002, 0.050  # seconds between looks at open enqueues
BUSY_GAP = 0.003  # seconds; bells closer than this, on average, turn the worker to polling
CROWDED_GAP = 0.100  # seconds; when bells come closer than this, the worker looks whether those who ring must wait
CROWDED_LOOK = 0.100  # seconds between two such looks
LINE_GONE = 0.5  # seconds until a worker that kept out of the line looks again whether there is one
BUSY_POLL = 0.003  # seconds between claims while polling
QUIET_AFTER = 0.050  # seconds without a job before the bell is armed again
TRY_BESIDE = 0.100  # seconds for which a worker polls beside the one on watch without finding plenty
CALL_GAP = 0.020  # seconds between two calls for help
BUSY_FOR = 0.250  # seconds for which a worker counts as busy, at least
WATCH_PAUSE = 5.0  # seconds between two calls to be looked after
MANY = 10  # jobs in one claim from which on a worker need not be told of more


class State(Enum):
    """What the worker has told the others."""

    AWAKE = "awake"  # nothing: it looks for jobs just now, or has no room
    ASLEEP = "asleep"
    POLLING = "polling"


class Doorbell:
    """The state of one worker's sleep. Used by one thread."""

    def __init__(self, listener: Listener, call: Call, poll_interval: float, look_after: Callable[[], None]) -> None:
        self._listener, self._call, self._look_after = listener, call, look_after
        self._poll_interval = poll_interval  # and so no enqueue rings for what is due later
        self._state, self._identity = State.AWAKE, (0, 0, "")
        self._open: set[str] = set()
        self._step = LADDER_MIN
        self._gap = 1.0  # running average of seconds between bells
        self._heard_at = self._found_at = self._called_at = self._watch_at = self._busy_since = 0.0
        self._looked_at = 0.0
        self._plenty_at = 0.0  # when a claim last brought as much as was asked for
        self._on_watch = self._busy = False
        self._due_at: float | None = None  # when to look at what is scheduled; None: it is not known
        self.rang = False  # since the last claim

    def wait(self, timeout: float, queues: Sequence[str] | None) -> bool:
        """Return when there may be something to claim, or after timeout seconds; False: there is surely nothing."""
        if self._state is not State.AWAKE and self._identity != self._identity_now(queues):
            if self._identity[:2] == self._identity_now(queues)[:2]:
                self._disarm()  # other queues: enqueues into the old ones count on it no longer
            # A new connection holds no keys, and hears nothing of what rang for the old one.
            self._state, self._busy = State.AWAKE, False
        now = time.monotonic()
        if self._state is State.POLLING:
            needed = self._on_watch or self._busy or now - self._plenty_at < TRY_BESIDE
            if now - self._found_at < QUIET_AFTER and needed:
                self._listener.wait(min(timeout, BUSY_POLL))
                return True
        # First of all, for with many bells the steps below may never come to their end.
        if self._state is State.ASLEEP and self._crowded(now):
            self._found_at = now
            self._poll(queues)
            return True
        called = self._listener.called()
        if self._state is not State.ASLEEP or called:
            self._arm(queues)
            return True
        if self._open:
            return self._wait_for_open(now + timeout)
        found = self._sleep(now + timeout)
        if self._listener.called():
            self._arm(queues)
            return True
        return found

    def found_jobs(self, jobs: int, limit: int, queues: Sequence[str] | None) -> None:
        """The caller claimed jobs, at most limit: turn to polling, call for help, or neither."""
        now = self._found_at = time.monotonic()
        plenty = jobs >= max(limit, MANY)
        if not self.rang and now - self._watch_at >= WATCH_PAUSE:
            self._call_watch()  # with the bell, somebody was told to look after it
        if plenty:
            self._plenty_at = now
        if self._state is not State.POLLING and (plenty or self._gap < BUSY_GAP):
            self._poll(queues)
        if plenty and now - self._called_at >= CALL_GAP:
            self._called_at = now
            self._call("call_worker", self._listener.worker_id)

    def note_load(self, busy: bool, full: bool) -> None:
        """Tell the others that this worker is busy, or has no room at all: they should look."""
        if full:
            if not self._listener.connected:
                return  # its keys have fallen, and a worker that stops must not wait for a server that is away
            polled = self._state is State.POLLING
            self._disarm()
            if not polled:
                self._call("call_worker", self._listener.worker_id)
        elif busy != self._busy and self._state is not State.AWAKE:
            now = time.monotonic()
            if busy or now - self._busy_since >= BUSY_FOR:
                self._busy, self._busy_since = busy, now
                self._on_watch = self._on_watch and not busy
                self._call("mark_busy", self._listener.worker_id, busy)

    def _disarm(self) -> None:
        """Take the registration back; if it polled, that calls all who sleep."""
        if self._state is not State.AWAKE:
            self._state, self._busy = State.AWAKE, False
            self._call("disarm_doorbell", self._listener.worker_id)

    def _identity_now(self, queues: Sequence[str] | None) -> tuple[int, int, str]:
        return self._listener.generation, self._listener.worker_id or 0, "" if queues is None else repr(list(queues))

    def _register(self, function: str, queues: Sequence[str] | None) -> Any:
        wanted = None if queues is None else list(queues)
        answer = self._call(function, self._listener.worker_id, wanted, self._poll_interval, self._listener.channel)
        self._identity = self._identity_now(queues)
        return answer

    def _crowded(self, now: float) -> bool:
        """Whether bells come often, and those who ring stand in line."""
        if self._gap >= CROWDED_GAP or now - self._looked_at < CROWDED_LOOK:
            return False
        self._looked_at = now
        return bool(self._call("rings_waiting"))

    def _arm(self, queues: Sequence[str] | None) -> None:
        self._register("arm_doorbell", queues)
        if self._state is State.POLLING:
            self._gap = 1.0
        self._state, self._due_at = State.ASLEEP, None
        self._open, self._step = set(self._call("open_enqueues")), LADDER_MIN
        if self._call("is_polled", self._listener.worker_id):
            self._look_after()  # enqueues may count on that one

    def _poll(self, queues: Sequence[str] | None) -> None:
        self._on_watch = bool(self._register("quiet_doorbell", queues)) and not self._busy
        self._state, self._plenty_at = State.POLLING, time.monotonic()
        self._call_watch()

    def _call_watch(self) -> None:
        self._watch_at = time.monotonic()
        if self._call("rings_waiting"):  # the call notifies, too: claimed jobs would wait until the line is through
            self._watch_at += LINE_GONE - WATCH_PAUSE
        else:
            self._call("call_watch", self._listener.worker_id)

    def _wait_for_open(self, deadline: float) -> bool:
        before = len(self._open)
        while len(self._open) == before and (left := deadline - time.monotonic()) > 0:
            if self._listener.wait(min(self._step, left)):
                self._heard()
                return True
            self._step = min(self._step * 2, LADDER_MAX)
            self._open &= set(self._call("open_enqueues"))
        return True

    def _sleep(self, deadline: float) -> bool:
        if self._due_at is None:
            due = self._call("next_due")
            now = time.monotonic()
            self._due_at = now + self._poll_interval if due is None else now + min(due, self._poll_interval)
        pause = min(deadline, self._due_at) - time.monotonic()
        if pause > 0 and self._listener.wait(pause):
            self._heard()
            return True
        if time.monotonic() >= self._due_at:
            self._due_at = None
            return True
        return self._listener.woken() or not self._listener.connected

    def _heard(self) -> None:
        self.rang, self._due_at = True, None
        now = time.monotonic()
        self._gap = 0.8 * self._gap + 0.2 * min(now - self._heard_at, 1.0)
        self._heard_at = now
