"""Decide when a worker claims, polls and sleeps. This module uses no connection, clock or thread.

The policy takes events and times, and returns actions, which `Presence` performs. The states and their keys are those
of the SQL function set_worker_state. docs/discussions/doorbell.md has the rules and their proof.

A worker falls asleep in these steps, so that it misses no job:

1. It publishes its state. The answer names the open transactions, which may have enqueued without seeing the state.
2. It claims.
3. It checks every 2 to 50 ms whether those transactions have ended, and claims whenever one has ended.
4. It sleeps. Every later enqueue sees the state and notifies.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

State = Literal["awake", "asleep", "polling"]

LADDER_MIN, LADDER_MAX = 0.002, 0.050  # seconds between checks of the open transactions
HELD_MIN, HELD_MAX = 0.050, 1.0  # seconds until the next claim when another transaction had locked jobs
RELY_ON_POLLER = 1.0  # seconds for which a sleeping worker relies on a polling worker
BUSY_GAP = 0.003  # seconds; the worker polls when notifications come closer than this on average
CROWDED_GAP = 0.100  # seconds; when they come closer than this, the worker checks for waiting notifiers
CROWDED_LOOK = 0.100  # seconds between two of these checks
BUSY_POLL = 0.003  # seconds between claims while polling
QUIET_AFTER = 0.050  # seconds without a job after which a polling worker falls asleep
TRY_BESIDE = 0.100  # seconds for which a worker polls beside the worker on watch without finding many jobs
CALL_GAP = 0.020  # seconds between two calls for help
WATCH_GAP = 1.0  # seconds between two calls to be watched
LINE_GAP = 0.5  # seconds until the worker retries a call that it skipped because notifiers were waiting
BUSY_FOR = 0.250  # shortest time in seconds for which a worker counts as busy
MANY = 10  # jobs; a claim this large shows that there is more work, even without a notification


@dataclass(frozen=True, slots=True)
class Look:
    """Claim, because there may be a job."""


@dataclass(frozen=True, slots=True)
class Tell:
    """Call set_worker_state, and report the answer with told()."""

    state: State
    busy: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """Call call_workers. Skip 'watch' if notifiers are waiting."""

    call: Literal["help", "watch"]


@dataclass(frozen=True, slots=True)
class Ask:
    """Call open_transactions, notifiers_waiting or next_due, and report with still_open(), line() or due()."""

    what: Literal["open", "line", "due"]


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for this many seconds or until notified, and report with heard() or passed()."""

    seconds: float


_LONG_AGO, _NEVER = -math.inf, math.inf

Action = Look | Tell | Call | Ask | Pause


class SleepPolicy:
    """The sleep policy of one worker. Not thread-safe. `now` is the time of a monotonic clock, in seconds."""

    def __init__(self, poll_interval: float) -> None:
        self._poll_interval = poll_interval
        self.state: State = "awake"
        self.busy = False
        self.open: frozenset[str] = frozenset()  # transactions to wait for before sleep
        self._look = True  # claim before anything else
        self._tell = True  # take all the steps of falling asleep, unless polling
        self._tell_at = _LONG_AGO  # earliest time to publish the state, because another session held the keys
        self.notified = False  # since the last claim
        self._pollers: frozenset[int] = frozenset()  # other workers that enqueues may rely on
        self._on_watch = self._ask_open = False
        self._step, self._held_step = LADDER_MIN, 0.0
        self._gap, self._heard_at = 1.0, _LONG_AGO  # average seconds between notifications
        self._found_at = self._plenty_at = self._line_at = _LONG_AGO
        self._busy_at = self._help_at = self._watch_at = _LONG_AGO
        self._look_at = _NEVER  # when to claim without a notification
        self._due_at: float | None = None  # when the next scheduled job is due; None: unknown
        self._due_read_at = _LONG_AGO  # when the schedule was last read, or was last known to have changed

    def looked(self) -> None:
        """Note that the worker claims now, as next() asked."""
        self._look = False

    def claimed(self, now: float, jobs: int, limit: int, skipped: str) -> list[Action]:
        """Note the result of a claim. Return the actions to perform at once.

        skipped: what the claim passed over, as claim_jobs reports it.
        """
        notified, self.notified, self._look = self.notified, False, skipped == "more"
        held = skipped in ("held", "suspect")
        self._held_step = min(max(2 * self._held_step, HELD_MIN), HELD_MAX) if held else 0.0
        self._look_at = now + self._held_step if held else now + RELY_ON_POLLER if self._pollers else _NEVER
        if not jobs:
            return []
        self._found_at = now
        actions: list[Action] = []
        plenty = jobs >= max(limit, MANY)
        if plenty:
            self._plenty_at = now
        turns = self.state != "polling" and now >= self._tell_at and (plenty or self._gap < BUSY_GAP)
        if turns:
            actions.append(Tell("polling", self.busy))
        # After a notification another worker already watches this one. A worker that begins to poll calls in any case,
        # because more workers may have fallen asleep since.
        if turns or (not notified and now - self._watch_at >= WATCH_GAP):
            self._watch_at = now
            actions.append(Call("watch"))
        if plenty and now - self._help_at >= CALL_GAP:
            self._help_at = now
            actions.append(Call("help"))
        return actions

    def loaded(self, now: float, *, busy: bool, full: bool) -> list[Action]:
        """Note that the worker runs jobs, or has no room for more. Return the actions to perform at once."""
        if full:
            # When a worker stops polling, set_worker_state calls the sleeping workers. Any other worker calls for help.
            tell: list[Action] = [] if self.state == "awake" else [Tell("awake")]
            return tell if self.state == "polling" else [*tell, Call("help")]
        if busy != self.busy and self.state != "awake" and (busy or now - self._busy_at >= BUSY_FOR):
            self._busy_at = now
            return [Tell(self.state, busy)]
        return []

    def told(
        self, now: float, tell: Tell, opened: Collection[str] | None, pollers: Collection[int], on_watch: bool
    ) -> None:
        """Note the answer of set_worker_state. opened is None when the state must be published again."""
        before, self.state, self.busy = self.state, tell.state, tell.busy
        self._on_watch = on_watch
        vanished = self._see(now, pollers)
        if tell.state == "asleep" and (before != "asleep" or self._tell):
            self._tell, self._tell_at = opened is None, now + LADDER_MIN
            self._look = self._look or not self._tell
            self._due_at, self._due_read_at = None, now
            self.open, self._step, self._ask_open = frozenset(opened or ()), LADDER_MIN, False
            if before == "polling":
                self._gap = 1.0
        elif tell.state != before:
            self.open, self._tell, self._look = frozenset(), True, True
            self._found_at = self._plenty_at = now
        else:
            self._tell = self._tell or vanished

    def refused(self, now: float) -> None:
        """Note that another session holds the keys: claim, and publish the state again in a second."""
        self.state, self._look, self._tell, self.open = "awake", True, True, frozenset()
        self._tell_at = now + RELY_ON_POLLER

    def heard(self, now: float) -> None:
        """Note that the worker was notified of a job."""
        self._gap = 0.8 * self._gap + 0.2 * min(now - self._heard_at, 1.0)
        self._heard_at, self.notified, self._look = now, True, True
        self._due_at, self._due_read_at = None, now

    def called(self) -> None:
        """Repeat all the steps of falling asleep, because another worker has too much work or has stopped polling."""
        self._tell = True

    def passed(self, now: float) -> None:
        """Note that a pause has ended without a notification."""
        self._ask_open = True
        if self._due_at is not None and now >= self._due_at:
            self._look, self._due_at = True, None
        if self.state == "polling" or now >= self._look_at:
            self._look = True

    def still_open(self, now: float, opened: Collection[str]) -> None:
        """Note which of the open transactions have not ended. If one has, claim, because it may have added jobs."""
        left = self.open & frozenset(opened)
        if left != self.open:
            self._look, self.open = True, left
            self._due_at, self._due_read_at = None, now
        self._ask_open = False
        self._step = min(self._step * 2, LADDER_MAX)

    def line(self, now: float, notifiers: int) -> list[Action]:
        """Note how many transactions wait to notify. If any does, poll, so that enqueues need not notify."""
        self._line_at = now
        return [Tell("polling", self.busy), Call("watch")] if notifiers else []

    def left_out(self, now: float) -> None:
        """Note that a call was skipped, because it would have waited behind the notifiers."""
        self._watch_at = now + LINE_GAP - WATCH_GAP

    def due(self, now: float, seconds: float | None) -> None:
        """Note in how many seconds the next scheduled job is due, or None if no job is scheduled."""
        # The last claim left a job that is due: another transaction has locked it, or it belongs to another queue.
        wait = self._poll_interval if seconds is None else max(seconds, HELD_MAX if seconds <= 0 else BUSY_POLL)
        self._due_at, self._due_read_at = now + min(wait, self._poll_interval), now

    def watched(self, now: float, pollers: Collection[int], *, waiting: bool, began: float, due: float | None) -> None:
        """Note what a round of maintenance saw that began at `began`.

        It saw which other workers poll, whether jobs are waiting, and in how many seconds the next one is due. While
        the rounds read the schedule, the worker need not read it, and need not claim once per poll_interval.
        """
        self._tell = self._see(now, pollers) or self._tell
        self._look = self._look or waiting
        if began > self._due_read_at:  # otherwise the round may not have seen the job of the last notification
            self.due(began, due)

    def disconnected(self) -> None:
        """Note that the session has ended and holds no keys any more."""
        self.state, self.busy, self.open, self._look, self._tell = "awake", False, frozenset(), True, True

    def next(self, now: float) -> Action:
        """Return the next action of a worker that has room for jobs."""
        if self._look:
            return Look()
        if self.state == "polling":
            needed = self._on_watch or self.busy or now - self._plenty_at < TRY_BESIDE
            return Pause(BUSY_POLL) if needed and now - self._found_at < QUIET_AFTER else Tell("asleep", self.busy)
        # Check this first, because frequent notifications could keep the steps of falling asleep from ending.
        if self.state == "asleep" and self._gap < CROWDED_GAP and now - self._line_at >= CROWDED_LOOK:
            return Ask("line")
        if self._tell:
            return Tell("asleep", self.busy) if now >= self._tell_at else Pause(self._tell_at - now)
        if self._due_at is None:
            return Ask("due")
        if self.open and self._ask_open:
            return Ask("open")
        return Pause(max(0.0, min(self._due_at - now, self._look_at - now, self._step if self.open else _NEVER)))

    def _see(self, now: float, pollers: Collection[int]) -> bool:
        """Return whether a polling worker has stopped or died. Open enqueues may still rely on it."""
        before, self._pollers = self._pollers, frozenset(pollers)
        if self._pollers:
            self._look_at = min(self._look_at, now + RELY_ON_POLLER)
        return bool(before - self._pollers)
