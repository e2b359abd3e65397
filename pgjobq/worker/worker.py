"""The Worker class, which starts the loops and stops them in order."""

from __future__ import annotations

import inspect
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from queue import SimpleQueue
from types import FrameType
from typing import Protocol
from weakref import WeakSet

from pgjobq.errors import ConfigurationError, Unsupported
from pgjobq.events import EventLog
from pgjobq.handlers import Registry, default_registry
from pgjobq.isolation import refuse_in_child
from pgjobq.plain import seconds_of
from pgjobq.signals import SIGNALS, StopSignals
from pgjobq.storage.base import BaseStorage
from pgjobq.worker.contact import Contact
from pgjobq.worker.declaring import Declarer
from pgjobq.worker.ending import END_TIME, LEAVE_TIME, Step, log_unsettled
from pgjobq.worker.fetcher import Fetcher
from pgjobq.worker.in_flight import InFlight
from pgjobq.worker.inline import run_jobs
from pgjobq.worker.maintenance import MaintenanceLoop
from pgjobq.worker.on_loop import RunsOnLoop
from pgjobq.worker.prune import Keep, PruneLoop, check_keep, completed_age
from pgjobq.worker.queue_limits import InFlightByQueue, LimitedFetcher, Limits, check_limits
from pgjobq.worker.settler import Settler
from pgjobq.worker.tasks import TaskRunner
from pgjobq.worker.threads import ThreadRunner

log = EventLog("pgjobq.worker")

_storages_in_use: WeakSet[BaseStorage] = WeakSet()  # a storage can serve only one Worker

FLUSH_TIME = 10.0  # seconds to keep trying to settle while the database does not answer, if the grace allows it
CLAIM_TIME = 1.0  # seconds to wait for the answer to the last claim


class HasStorage(Protocol):
    """Anything with a storage, such as a JobQueue."""

    @property
    def storage(self) -> BaseStorage: ...


class Worker(RunsOnLoop):
    """Claims jobs and runs their handlers: sync handlers in threads, async handlers on an event loop.

    concurrency: the most sync handlers, and the most async handlers, that run at once.
    queues: the queues to serve; None serves all. A dict gives each a limit, {"mail": 2, "default": None}, where None
    means the concurrency. The worker claims nothing from a queue while that many of its jobs are in flight here; they
    stay in line for other workers.
    registry: where the worker finds handlers.
    grace: how many seconds, or which timedelta, running jobs have to end when the worker stops. Jobs that still run
    after that are released, and their start does not count.
    fail_unknown: fail jobs that have no handler. By default the worker leaves them to other workers, and logs this
    once for each type.
    keep: how long completed and cancelled jobs are kept; None keeps them forever. The worker deletes older ones in the
    background. With timedelta(0) a completed job is deleted at once. Failed jobs are kept. A dict has an age for each
    status, {"completed": ..., "failed": ..., "cancelled": ...}; jobs of a status that it leaves out are kept.

    If a worker is killed, other workers run its jobs. If it loses the database, it continues when the database answers
    again. A job whose handler raises is retried after its backoff until its tries are used up.
    """

    def __init__(
        self,
        queue: HasStorage | BaseStorage,
        *,
        concurrency: int = 8,
        queues: Sequence[str] | Limits | None = None,
        registry: Registry = default_registry,
        grace: float | timedelta = 30.0,
        fail_unknown: bool = False,
        keep: Keep | None = None,
    ) -> None:
        if not isinstance(concurrency, int) or concurrency < 1:
            raise ConfigurationError(f"concurrency: {concurrency!r} is not allowed; use a whole number above 0")
        if isinstance(queues, str) or (queues is not None and not queues):
            raise ConfigurationError(f"queues: {queues!r} is not a list of names; use a list such as ['mail'], or None")
        limits = queues if isinstance(queues, Mapping) else {}
        check_limits(limits, concurrency)
        if not seconds_of(grace) >= 0:
            raise ConfigurationError(f"grace: {grace!r} is not allowed; use a number of seconds, 0 or more")
        self.storage = queue if isinstance(queue, BaseStorage) else queue.storage
        if keep is not None:
            check_keep(keep, self.storage)
            self.storage.keep_completed = completed_age(keep) != timedelta(0)
        self.storage.suspects_alone = True
        if limits and "queue" not in inspect.signature(self.storage.list_jobs).parameters:
            raise Unsupported(f"queues: {type(self.storage).__name__} has no queues; leave them out")
        self.concurrency, self.grace = concurrency, float(seconds_of(grace))
        self.queues = queues if queues is None else list(queues)
        self._limits = {} if all(limit is None for limit in limits.values()) else limits
        self._registry, self._fail_unknown, self._keep = registry, fail_unknown, keep
        self._running, self._paused, self._lock = False, False, threading.Lock()
        # Not an Event, because Event.set() takes a lock, and a signal handler must not wait for a lock.
        self._stop_requests: SimpleQueue[None] = SimpleQueue()
        self._hurry = False
        self._stop_signals = StopSignals()

    def start(self) -> None:
        """Start the worker's threads and return at once. Does nothing if the worker already runs."""
        refuse_in_child("Worker")
        self.storage.check_threads()
        with self._lock:
            if self._running:
                return
            if self.storage in _storages_in_use:
                raise ConfigurationError("storage: another Worker already uses it; create a storage for each Worker")
            declarer = Declarer(self.storage, self._registry.schedules())
            _storages_in_use.add(self.storage)
            in_flight, kind_of_fetcher = self._new_in_flight()
            self._in_flight = in_flight
            self._threads = ThreadRunner(in_flight, self.storage, self.concurrency)
            self._tasks = TaskRunner(in_flight, self.storage, self.concurrency, self._callers_loop)
            contact = Contact(lambda: in_flight.unfinished() + len(in_flight.outcomes))
            self._settler = Settler(self.storage, in_flight, contact=contact)
            self._maintenance = MaintenanceLoop(
                self.storage, self._threads, self._tasks, declarer=declarer, contact=contact
            )
            self._fetcher = kind_of_fetcher(
                self.storage,
                in_flight,
                self._registry,
                self._threads,
                self._tasks,
                queues=self.queues,
                fail_unknown=self._fail_unknown,
                contact=contact,
                on_full=self._maintenance.attend,
            )
            if self._paused:
                self._fetcher.pause()
            self._running = True
            self._pruner = (
                None if self._keep is None else PruneLoop(self.storage, self._keep, self.queues, contact=contact)
            )
            for loop in (self._settler, self._maintenance, self._pruner, self._fetcher):
                if loop is not None:
                    loop.start()
        log.info("worker.started", extra={"concurrency": self.concurrency, "queues": self._queues_in_words()})

    def _queues_in_words(self) -> str:
        limits = {name: f":{limit}" for name, limit in self._limits.items() if limit is not None}
        return "all" if self.queues is None else ",".join(queue + limits.get(queue, "") for queue in self.queues)

    def stop(self, grace: float | None = None) -> None:
        """Stop the worker: stop claiming, release jobs that have not started, and wait for running jobs.

        Returns when all jobs are settled, at the latest a few seconds after the grace. If the database does not answer,
        the log names the jobs that could not be settled. grace: seconds; overrides the worker's own grace.
        """
        with self._lock:
            if not self._running:
                return
            grace_ends = time.monotonic() + (self.grace if grace is None else grace)
            self._try_step("fetch", self._fetcher.stop)
            self._maintenance.attend()
            if self._pruner is not None:
                self._pruner.stop()
            fetch_ends = Step("note_load", self._tell_no_room)
            self._release_waiting()
            self._wait_for_running(grace_ends, fetch_ends)
            now = time.monotonic()
            ends = now + END_TIME if self._hurry else min(grace_ends + END_TIME, now + FLUSH_TIME)
            # Let a claim that is in progress end first, so that its jobs can be released.
            fetch_ends.join(now + CLAIM_TIME)
            self._release_waiting()
            self._maintenance.stop()
            if self._maintenance.release_running():
                self._wait_for_processes(now + END_TIME - LEAVE_TIME)
            self._threads.stop()
            self._settle_rest(ends - LEAVE_TIME)
            Step("leave", self.storage.leave).join(ends)
            _storages_in_use.discard(self.storage)
            self._running = self._hurry = False
        log.info("worker.stopped")

    def _new_in_flight(self) -> tuple[InFlight, Callable[..., Fetcher]]:
        if self._limits:
            return InFlightByQueue(self.concurrency, self._limits, self.storage.wake), LimitedFetcher
        return InFlight(self.concurrency), Fetcher

    def _tell_no_room(self) -> None:
        if self._fetcher.join():
            self.storage.note_load(busy=True, full=True)

    def _release_waiting(self) -> None:
        self._threads.release()
        self._tasks.release()

    def _settle_rest(self, until: float) -> None:
        """Settle the remaining outcomes, and end the loops that may call the database."""
        self._settler.stop()
        ended: list[bool] = []
        settling = Step("settle", lambda: ended.append(self._settler.flush(until - time.monotonic())))
        loops_end = Step("loop", self._tasks.stop)
        settling.join(until)
        if ended != [True] and (left := self._settler.unsettled()):
            log_unsettled(left)
        for loop in (self._maintenance, self._pruner):
            if loop is not None:
                loop.join(max(0.0, until - time.monotonic()))
        loops_end.join(until)

    @staticmethod
    def _try_step(name: str, step: Callable[[], None]) -> None:
        """Do a step of stopping. Log its errors, because the other steps must still run."""
        try:
            step()
        except Exception as error:
            log.warning(f"worker.{name}_failed", extra={"error": error})

    def pause(self) -> None:
        """Claim no more jobs until resume() is called. Jobs that are already claimed still run."""
        self._paused = True
        if self._running:
            self._fetcher.pause()

    def resume(self) -> None:
        """Claim jobs again."""
        self._paused = False
        if self._running:
            self._fetcher.resume()

    def is_running(self) -> bool:
        """Return whether the worker was started and not stopped."""
        return self._running

    def is_paused(self) -> bool:
        """Return whether the worker was paused and not resumed."""
        return self._paused

    def current_job(self) -> str | None:
        """Return the id of the job that runs; of several, one. None if no job runs."""
        runs = self._threads.running() + self._tasks.running() if self._running else []
        return runs[0].job.id if runs else None

    def run(self) -> None:
        """Run until SIGTERM or SIGINT, then stop within the grace. A second signal releases the running jobs at once.

        Signals within a second of the first count as one. Blocks. Call it in the main thread, because Python handles
        signals only there.
        """
        with self._signals():
            self.start()
            self._stop_requests.get()
            self._tell_signals()
            self.stop()
        self._stop_requests = SimpleQueue()

    def run_once(self, limit: int | None = None) -> int:
        """Run the due jobs one after another, at most limit of them, and return how many ran. For tests and scripts.

        Jobs that are left to other workers do not count.
        """
        refuse_in_child("Worker")
        return run_jobs(self.storage, self._registry, self.queues, fail_unknown=self._fail_unknown, limit=limit)

    def _wait_for_running(self, until: float, fetch_ends: Step) -> None:
        patience = time.monotonic() + FLUSH_TIME
        while self._in_flight.unfinished() > 0 or not (fetch_ends.join(0.0) or time.monotonic() >= patience):
            if time.monotonic() >= until or self._hurry:
                break
            time.sleep(0.01)
            self._tell_signals()

    def _wait_for_processes(self, until: float) -> None:
        while self._in_flight.unfinished() > 0 and time.monotonic() < until:
            time.sleep(0.01)

    def _tell_signals(self) -> None:
        for name in self._stop_signals.untold():
            log.info("worker.signal", extra={"signal": name})

    @contextmanager
    def _signals(self) -> Iterator[None]:
        self._stop_signals = StopSignals()  # reset here; the first signal after ask_to_stop() still counts as the first

        def ask(number: int, _: FrameType | None) -> None:
            self._stop_signals.hear(number)
            self.ask_to_stop(hurry=self._stop_signals.count > 1)

        before = {number: signal.signal(number, ask) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
