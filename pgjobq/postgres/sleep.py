"""When a worker claims, polls and sleeps: the decisions alone, without a connection, a clock or a thread.

Events and the time go in, actions come out; `Presence` performs them. The states and their keys are those of the SQL
function set_worker_state; docs/discussions/doorbell.md has the rules and the proof.

Falling asleep takes these steps, so that no job is missed: tell the state, which answers with the open transactions
that may have enqueued without seeing it; claim; look every 2 to 50 ms whether those have ended, and claim whenever one
has; then sleep, because whatever is enqueued later sees the state and notifies.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

State = Literal["awake", "asleep", "polling"]

LADDER_MIN, LADDER_MAX = 0.002, 0.050  # seconds between looks at open transactions
HELD_MIN, HELD_MAX = 0.050, 1.0  # seconds until the next look at jobs that another transaction held
RELY_ON_POLLER = 1.0  # seconds for which a sleeper relies on another worker that polls
BUSY_GAP = 0.003  # seconds; notifications closer than this, on average, turn the worker to polling
CROWDED_GAP = 0.100  # seconds; when they come closer than this, the worker looks whether notifiers stand in line
CROWDED_LOOK = 0.100  # seconds between two such looks
BUSY_POLL = 0.003  # seconds between claims while polling
QUIET_AFTER = 0.050  # seconds without a job after which a worker that polls falls asleep
TRY_BESIDE = 0.100  # seconds for which a worker polls beside the one on watch without finding plenty
CALL_GAP = 0.020  # seconds between two calls for help
WATCH_GAP = 1.0  # seconds between two calls to be watched
LINE_GAP = 0.5  # seconds until a call that was left out, because notifiers stood in line, is tried again
BUSY_FOR = 0.250  # seconds for which a worker counts as busy, at least
MANY = 10  # a claim this large shows that there is more work, without any notification


@dataclass(frozen=True, slots=True)
class Look:
    """Claim: there may be a job."""


@dataclass(frozen=True, slots=True)
class Tell:
    """Call set_worker_state; answer with told()."""

    state: State
    busy: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """Call call_workers. 'watch' only if no notifier stands in line."""

    call: Literal["help", "watch"]


@dataclass(frozen=True, slots=True)
class Ask:
    """Call open_transactions, notifiers_waiting or next_due; answer with still_open(), line() or due()."""

    what: Literal["open", "line", "due"]


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for so many seconds, or until notified; answer with heard() or passed()."""

    seconds: float


_LONG_AGO, _NEVER = -math.inf, math.inf

Action = Look | Tell | Call | Ask | Pause


class SleepPolicy:
    """The state of one worker's sleep. Not thread-safe; `now` is any clock that only goes forward, in seconds."""

    def __init__(self, poll_interval: float) -> None:
        self._poll_interval = poll_interval
        self.state: State = "awake"
        self.busy = False
        self.open: frozenset[str] = frozenset()  # transactions to wait for before sleep
        self._look = True  # a claim comes before anything else
        self._tell = True  # fall asleep by all the steps, if not polling
        self._tell_at = _LONG_AGO  # not before, because another session held the keys
        self.notified = False  # since the last claim
        self._pollers: frozenset[int] = frozenset()  # other workers that enqueues may count on
        self._on_watch = self._ask_open = False
        self._step, self._held_step = LADDER_MIN, 0.0
        self._gap, self._heard_at = 1.0, _LONG_AGO  # average seconds between notifications
        self._found_at = self._plenty_at = self._line_at = _LONG_AGO
        self._busy_at = self._help_at = self._watch_at = _LONG_AGO
        self._look_at = _NEVER  # when to claim without having been notified
        self._due_at: float | None = None  # when the next scheduled job falls due; None: not known

    def looked(self) -> None:
        """The worker was told to look: it claims now."""
        self._look = False

    def claimed(self, now: float, jobs: int, limit: int, skipped: str) -> list[Action]:
        """A claim brought jobs, and passed over others: what to do at once."""
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
        # A notification had another worker watch this one; to poll concerns those that fell asleep since, too.
        if turns or (not notified and now - self._watch_at >= WATCH_GAP):
            self._watch_at = now
            actions.append(Call("watch"))
        if plenty and now - self._help_at >= CALL_GAP:
            self._help_at = now
            actions.append(Call("help"))
        return actions

    def loaded(self, now: float, *, busy: bool, full: bool) -> list[Action]:
        """The worker runs jobs, or has no room for more: what to do at once."""
        if full:
            # To stop polling calls those that sleep; one that did not poll asks one for help.
            tell: list[Action] = [] if self.state == "awake" else [Tell("awake")]
            return tell if self.state == "polling" else [*tell, Call("help")]
        if busy != self.busy and self.state != "awake" and (busy or now - self._busy_at >= BUSY_FOR):
            self._busy_at = now
            return [Tell(self.state, busy)]
        return []

    def told(
        self, now: float, tell: Tell, opened: Collection[str] | None, pollers: Collection[int], on_watch: bool
    ) -> None:
        """set_worker_state has answered. opened is None when it must be told again."""
        before, self.state, self.busy = self.state, tell.state, tell.busy
        self._on_watch = on_watch
        vanished = self._see(now, pollers)
        if tell.state == "asleep" and (before != "asleep" or self._tell):
            self._tell, self._tell_at = opened is None, now + LADDER_MIN
            self._look, self._due_at = not self._tell, None
            self.open, self._step, self._ask_open = frozenset(opened or ()), LADDER_MIN, False
            if before == "polling":
                self._gap = 1.0
        elif tell.state != before:
            self.open, self._tell, self._look = frozenset(), True, True
            self._found_at = self._plenty_at = now
        else:
            self._tell = self._tell or vanished

    def refused(self, now: float) -> None:
        """Another session holds the keys: claim, and try to tell again in a second."""
        self.state, self._look, self._tell, self.open = "awake", True, True, frozenset()
        self._tell_at = now + RELY_ON_POLLER

    def heard(self, now: float) -> None:
        """The worker was notified of a job."""
        self._gap = 0.8 * self._gap + 0.2 * min(now - self._heard_at, 1.0)
        self._heard_at, self.notified, self._look, self._due_at = now, True, True, None

    def called(self) -> None:
        """Another worker has more than it can take, or stops to poll: fall asleep again by all the steps."""
        self._tell = True

    def passed(self, now: float) -> None:
        """A pause has passed without a notification."""
        self._ask_open = True
        if self._due_at is not None and now >= self._due_at:
            self._look, self._due_at = True, None
        if self.state == "polling" or now >= self._look_at:
            self._look = True

    def still_open(self, opened: Collection[str]) -> None:
        """Which of the open transactions have not ended: claim when one has."""
        left = self.open & frozenset(opened)
        self._look, self.open, self._ask_open = left != self.open, left, False
        self._step = min(self._step * 2, LADDER_MAX)

    def line(self, now: float, notifiers: int) -> list[Action]:
        """How many transactions wait in line to notify: if any does, the worker polls to spare them that."""
        self._line_at = now
        return [Tell("polling", self.busy), Call("watch")] if notifiers else []

    def left_out(self, now: float) -> None:
        """A call was left out, because it would have stood in line, too."""
        self._watch_at = now + LINE_GAP - WATCH_GAP

    def due(self, now: float, seconds: float | None) -> None:
        """The next scheduled job falls due in so many seconds; None: there is none."""
        # One that is due already was left by the last claim: another transaction holds it, or it is another queue's.
        wait = self._poll_interval if seconds is None else max(seconds, HELD_MAX if seconds <= 0 else BUSY_POLL)
        self._due_at = now + min(wait, self._poll_interval)

    def watched(self, now: float, pollers: Collection[int], *, waiting: bool) -> None:
        """A round of maintenance saw which other workers poll, and whether jobs are waiting."""
        self._tell = self._see(now, pollers) or self._tell
        self._look = self._look or waiting

    def disconnected(self) -> None:
        """The session is gone, and every key with it."""
        self.state, self.busy, self.open, self._look, self._tell = "awake", False, frozenset(), True, True

    def next(self, now: float) -> Action:
        """The next thing to do for a worker that has room."""
        if self._look:
            return Look()
        if self.state == "polling":
            needed = self._on_watch or self.busy or now - self._plenty_at < TRY_BESIDE
            return Pause(BUSY_POLL) if needed and now - self._found_at < QUIET_AFTER else Tell("asleep", self.busy)
        # Before the steps of falling asleep, which frequent notifications could keep from coming to their end.
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
        """Whether another worker that polled has gone: enqueues that are still open may count on it."""
        before, self._pollers = self._pollers, frozenset(pollers)
        if self._pollers:
            self._look_at = min(self._look_at, now + RELY_ON_POLLER)
        return bool(before - self._pollers)
