"""A storage as a worker: it registers, sleeps until it is notified, and rescues the jobs of dead workers."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import psycopg

from pgjobq.events import EventLog
from pgjobq.models import Job, utc_now
from pgjobq.outcomes import Maintenance
from pgjobq.postgres.database import Database
from pgjobq.postgres.ear import Ear
from pgjobq.postgres.listener import LOCK_HELD, Heard, Listener
from pgjobq.postgres.sleep import Action, Ask, Call, Look, Pause, SleepPolicy, Tell
from pgjobq.postgres.statements import FunctionCall
from pgjobq.rescued import tell_rescued

log = EventLog("pgjobq.presence")

T = TypeVar("T")

GRACE = 2.0  # seconds for which a worker may be without its lock
IDLE_PAUSE, BUSY_PAUSE = 5.0, 1.0  # seconds between rounds of maintenance; busy: a worker holds jobs or polls
LONG_RUN = 0.25  # seconds; a worker whose job runs longer asks two sleeping workers to watch it
WATCH_PAUSE = 5.0  # seconds between two of these calls
POLL_MIN, POLL_MAX = 0.01, 1.0  # seconds between claims of a worker that cannot be notified


class Presence:
    """The worker side of a storage.

    With a listener, the worker holds a session lock and is notified of jobs. Otherwise it sends heartbeats and polls.
    """

    def __init__(
        self,
        database: Database,
        *,
        listen: Mapping[str, Any] | None,
        schema: str,
        poll_interval: float,
    ) -> None:
        self._run, self._calls, self._poll_interval = database.run, database.calls, poll_interval
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._on_watch: Callable[[], None] = lambda: None
        self._watched_at = 0.0
        self._active = False  # claimed something since the last round of maintenance
        self._to_watch: set[int] = set()  # workers that were notified a moment ago
        self._seen: dict[str, Any] | None = None  # what maintenance saw, for the waiting thread
        self._queues: Sequence[str] | None = None
        self._told: tuple[int, int] | None = None  # the connection and the worker id that the policy knows of
        self._woken, self._poll = threading.Event(), POLL_MIN
        self._beating_id: int | None = None
        self._policy = SleepPolicy(poll_interval)
        self._listener = None if listen is None else Listener(listen, schema=schema, name=self._name)
        self._ear = None if self._listener is None else Ear(self._listener.overhear)

    @property
    def worker_id(self) -> int | None:
        """The worker's id, or None when it is not registered."""
        return self._beating_id if self._listener is None else self._listener.worker_id

    def join(self, queues: Sequence[str] | None) -> int:
        """Register as a worker for these queues unless that is done, and return its id. Raises psycopg.Error."""
        if self._listener is not None:
            self._listener.queues = queues
            worker_id = self._listener.connect()
            self._meet(self._listener, queues)
            return worker_id
        if self._beating_id is None:
            self._beating_id = self._run(self._calls.register_worker(self._name, queues))
        return self._beating_id

    def forget(self, worker_id: int) -> None:
        """Forget this worker id, because the worker was given away. The next join() registers a new worker."""
        log.warning("worker.given_away", extra={"worker_id": worker_id})
        if self._listener is not None:
            self._listener.register_again(worker_id)
        elif self._beating_id == worker_id:
            self._beating_id = None

    def found(self, jobs: int, limit: int, skipped: str) -> None:
        """Note that a claim for up to limit jobs found this many. Never raises, because the caller has jobs to run."""
        if jobs:
            self._poll = POLL_MIN
            if not self._active:
                self._active = True
                self._on_watch()  # a worker with jobs also watches the others
        elif self._policy.notified:
            self._on_watch()  # another worker has the job
        if self._listener is not None:
            actions = self._policy.claimed(time.monotonic(), jobs, limit, skipped)
            try:
                self._do(actions)
            except psycopg.Error as error:  # the next claim reconnects and publishes the state again
                log.warning("presence.error", extra={"error": str(error).strip()})

    def wait(self, timeout: float, queues: Sequence[str] | None) -> bool:
        """Return True when there may be something to claim, or when woken; False after timeout seconds."""
        if self._listener is None:
            self._woken.wait(min(timeout, self._poll, self._poll_interval))
            self._woken.clear()
            self._poll = min(self._poll * 2, POLL_MAX)
            return True
        deadline = time.monotonic() + timeout
        while True:
            now = time.monotonic()
            self._note_seen(now)
            match self._policy.next(now):
                case Look():
                    self._policy.looked()
                    return True
                case Pause(seconds):
                    if now >= deadline:
                        return False
                    heard = self._listener.wait(min(seconds, deadline - now))
                    self._note_seen(time.monotonic())  # it may have moved the alarm that ended this pause
                    self._note(heard, paused=time.monotonic() - now >= seconds)
                    if heard.woken or not self._listener.connected:
                        return True
                case action:
                    self._do([action])

    def note_load(self, busy: bool, full: bool) -> None:
        """Tell the others that this worker runs jobs, or has no room for more."""
        # A disconnected worker holds no keys to update, and a stopping worker must not wait for an unreachable server.
        if self._listener is not None and self._listener.connected:
            self._do(self._policy.loaded(time.monotonic(), busy=busy, full=full))

    def wake(self) -> None:
        """Make a wait() in another thread return."""
        self._woken.set()
        if self._listener is not None:
            self._listener.wake()

    def on_watch(self, callback: Callable[[], None]) -> None:
        """Call back, in the thread that claims, when maintenance should run soon."""
        self._on_watch = callback

    def on_cancel(self, callback: Callable[[], None]) -> bool:
        """Call back, in any thread, when jobs of this worker were cancelled; False if nothing can be heard."""
        if self._listener is not None:
            self._listener.on_cancel = callback
        return self._listener is not None

    def hear_cancels(self, seconds: float) -> None:
        """Hear cancels for so long, also while no thread waits."""
        if self._ear is not None:
            self._ear.attend(seconds)

    def maintain(self, running: Sequence[Job], known: list[int]) -> tuple[Maintenance, bool]:
        """Do one round of maintenance. Also return whether the database has claims of this worker that are unknown.

        Send a heartbeat or check the listener, rescue the jobs of dead workers, and find the lost ones of running.
        """
        if self._beating_id is not None and not self._run(self._calls.heartbeat_worker(self._beating_id)):
            self.forget(self._beating_id)
        if self._listener is not None:
            self._listener.keep()
        unanswered, self._to_watch = self._to_watch, set()
        worker_id = self.worker_id
        began = time.monotonic()
        watch = self._calls.watch_workers(worker_id, self._queues, list(unanswered), GRACE, known)
        # Use the listener, because a missing answer shows that its connection must be replaced.
        registered = self._listener is not None and worker_id is not None
        row = self._value(watch) if registered else self._run(watch)
        rescued, dead, watched, pollers, waiting, unknown, due = row
        for worker in dead:
            tell_rescued(**worker)
        if worker_id is not None and unknown is None:
            self.forget(worker_id)
        if registered and self._listener is not None:
            self._seen = {"pollers": pollers, "waiting": waiting, "began": began, "due": due}
            if waiting or pollers:
                self._listener.wake()
        busy = bool(running or watched or self._active)
        self._active = False
        found = Maintenance(lost=self.lost(running), rescued=rescued, again_in=BUSY_PAUSE if busy else IDLE_PAUSE)
        return found, bool(unknown)

    def leave(self) -> None:
        """Retire the worker, and put the jobs that it still holds back in line."""
        if self._listener is not None:
            self._listener.leave()
        elif self._beating_id is not None:
            self._run(self._calls.retire_worker(self._beating_id))
            self._beating_id = None

    def close(self) -> None:
        """Close the listener. Without leave(), other workers will take this one for dead."""
        if self._listener is not None and self._ear is not None:
            self._ear.stop()
            self._listener.close()

    def _meet(self, listener: Listener, queues: Sequence[str] | None) -> None:
        """Reset the policy after a new connection, which holds no keys, and publish a change of the queues."""
        known = listener.generation, listener.worker_id or 0
        if known != self._told:
            self._policy.disconnected()
        elif queues != self._queues and self._policy.state != "awake":
            self._do([Tell("awake")])  # so that enqueues into the old queues do not rely on this worker
        self._told, self._queues = known, None if queues is None else list(queues)

    def _note_seen(self, now: float) -> None:
        if self._seen is not None:
            seen, self._seen = self._seen, None
            self._policy.watched(now, **seen)

    def _note(self, heard: Heard, *, paused: bool) -> None:
        now = time.monotonic()
        if heard.job:
            self._policy.heard(now)
        elif paused:
            self._policy.passed(now)
        if heard.call:
            self._policy.called()
        if heard.watch:
            self._to_watch |= heard.watch
            self._on_watch()

    def _do(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Tell():
                    self._tell(action)
                case Call("watch") if self._value(
                    self._calls.notifiers_waiting()
                ):  # call_workers notifies, so it would wait behind them
                    self._policy.left_out(time.monotonic())
                case Call(call):
                    self._value(self._calls.call_workers(self.worker_id, call))
                case Ask("open"):
                    opened = self._value(self._calls.still_open(list(self._policy.open)))
                    self._policy.still_open(time.monotonic(), opened)
                case Ask("line"):
                    self._do(self._policy.line(time.monotonic(), self._value(self._calls.notifiers_waiting())))
                case Ask():
                    self._policy.due(time.monotonic(), self._value(self._calls.next_due()))
                case Look() | Pause():
                    pass

    def _tell(self, tell: Tell) -> None:
        assert self._listener is not None  # the policy is used only with a listener
        arguments = self.worker_id, tell.state, tell.busy, self._queues, self._poll_interval, self._listener.channel
        try:
            told = self._value(self._calls.set_worker_state(*arguments))
        except psycopg.Error as error:
            if error.sqlstate != LOCK_HELD:
                raise
            log.error("worker.keys_held", extra={"worker_id": self.worker_id, "error": str(error).strip()})
            self._policy.refused(time.monotonic())
        else:
            self._policy.told(time.monotonic(), tell, *told)

    def _value(self, call: FunctionCall[T]) -> T:
        assert self._listener is not None  # the policy is used only with a listener
        return call.read([self._listener.value(call.statement, call.arguments)])

    def lost(self, running: Sequence[Job]) -> list[Job]:
        """Which of these starts are over. Has other workers watch this one while a job runs long."""
        if not running:
            return []
        gone = self._run(self._calls.lost_jobs([job.id for job in running], [job.claim_id for job in running]))
        now = time.monotonic()
        started = min(job.started_at or utc_now() for job in running)
        long = (utc_now() - started).total_seconds() >= LONG_RUN
        if long and self._listener is not None and now - self._watched_at >= WATCH_PAUSE:
            self._run(self._calls.call_workers(self.worker_id, "watch"))
            self._watched_at = now
        return [job for job in running if job.id in gone]
