"""LeasedStorage: what storages share whose database cannot tell by itself that a worker died.

A worker is registered with a lease, which a thread of its process renews: one write a process and interval,
however many jobs it holds. When the lease runs out, any other worker's maintenance puts its jobs back in line, and
every settle of the late worker is refused, because it names the claim that made the start.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from pgjobq.checks import check_seconds
from pgjobq.errors import StorageError, StorageUnavailable
from pgjobq.events import EventLog
from pgjobq.forks import renew_in_child
from pgjobq.models import Job, NewJob
from pgjobq.outcomes import Maintenance, Outcome, Released
from pgjobq.rescued import Suspects
from pgjobq.storage.fenced import FencedStorage
from pgjobq.storage.holds import Claimant, Holds, Start, start
from pgjobq.storage.lease import RENEWALS, Keeper

log = EventLog("pgjobq.storage")

POLL_MIN = 0.002  # seconds between two claims of a worker that just had work


class LeasedStorage(FencedStorage):
    """A storage whose workers hold their jobs by a lease.

    lease: seconds after which the jobs of a worker that gave no sign of life go to others. poll_interval: the
    longest pause, in seconds, between two looks of an idle worker; an enqueue through the same object wakes it
    at once.

    Thread-safe. What is retried: nothing but a settle, by its caller, which is safe to repeat. What is fenced:
    every settle, by the start dequeued. A claim whose answer was lost with the connection raises
    StorageUnavailable, and the next one first gives back what the lost one may have claimed.

    A subclass has the methods that begin with an underscore, below and in FencedStorage.
    """

    def __init__(self, *, lease: float = 30.0, poll_interval: float = 1.0) -> None:
        check_seconds("lease", lease)
        check_seconds("poll_interval", poll_interval)
        self.lease, self.poll_interval = float(lease), float(poll_interval)
        super().__init__()
        self._holds = Holds()
        self._joining, self._claiming = threading.Lock(), threading.RLock()
        self._worker_id: int | None = None
        self._renewed_at = 0.0  # seconds of time.monotonic
        self._keeper: Keeper | None = None
        self._unsure = False  # a claim's answer was lost: some of our jobs are unknown to us
        self._poked, self._pause, self._suspects = threading.Event(), POLL_MIN, Suspects()
        renew_in_child(self)

    def after_fork(self) -> None:
        """Be no worker in a child that was just forked: the registration, its thread and the locks are the parent's."""
        self._joining, self._claiming = threading.Lock(), threading.RLock()
        self._worker_id, self._keeper, self._holds, self._unsure = None, None, Holds(), False
        self._poked, self._pause, self._suspects = threading.Event(), POLL_MIN, Suspects()
        self._left_types = []

    # -- what a subclass does, each atomically; it raises StorageUnavailable when its database does not answer ----

    @abstractmethod
    def _claim(
        self, worker_id: Claimant, limit: int, queues: Sequence[str] | None, except_types: Sequence[str]
    ) -> list[Job]:
        """Claim up to limit due jobs for this worker, in the order in which they should run.

        Jobs of except_types stay in line, and hide none that stand behind them.
        worker_id.claim is kept beside the jobs' worker_id, and the jobs that are returned have this very worker_id: a
        settle is for the start of that claim.
        """

    @abstractmethod
    def _enlist(self, worker_id: int, name: str) -> None:
        """Register a worker, with a lease from now."""

    @abstractmethod
    def _renew(self, worker_id: int) -> bool:
        """Extend its lease from now; False when the worker is not registered any more: its jobs went to others."""

    @abstractmethod
    def _retire(self, worker_id: int) -> None:
        """Forget the worker, which holds no jobs any more."""

    @abstractmethod
    def _held_by(self, worker_id: int) -> list[Job]:
        """The running jobs of this worker."""

    def _starts_of(self, worker_ids: set[int]) -> set[Start]:
        """What tells the starts that these workers hold. A subclass may know without reading whole jobs."""
        return {start(job) for worker_id in worker_ids for job in self._held_by(worker_id)}

    @abstractmethod
    def _rescue(self) -> int:
        """Running jobs whose worker is not registered, or its lease ran out -> pending, due now; how many.

        A start that ended so counts in crashes, and uses up no try; at MAX_CRASHES the job -> failed. Forgets the dead
        workers, and tells the log of each.
        """

    # -- the seam -------------------------------------------------------------------------------------

    def enqueue_many(self, jobs: Sequence[NewJob], connection: Any = None) -> list[str]:
        """Add jobs, all or none; their ids, in order. A worker on the same object wakes at once."""
        ids = super().enqueue_many(jobs, connection)
        if ids:
            self.wake()
        return ids

    def _dequeue(self, limit: int, queues: Sequence[str] | None) -> list[Job]:
        worker_id = self._join()
        with self._claiming:  # in turn: what another thread has claimed a moment ago must be known to be ours
            if self.suspects_alone and self._suspects.must_wait(self._holds.all()):
                return []
            if self._unsure:
                known = self._holds.starts()
                self._give_back([job for job in self._held_by(worker_id) if start(job) not in known])
                self._unsure = False
            try:
                jobs = self._claim(Claimant.fresh(worker_id), limit, queues, self._left_types)
            except StorageError:
                self._unsure = True
                raise
            if self.suspects_alone and any(job.crashes for job in jobs):
                jobs, left = self._suspects.apart(jobs, self._holds.all())
                if left:
                    self._settle(left)
            self._holds.add(jobs)
        if jobs:
            self._pause = POLL_MIN
        return jobs

    def _held(self, job_id: str) -> Job | None:
        return self._holds.get(job_id)

    def settle(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Settle jobs; returns the outcomes whose job this worker has lost (unchanged). Safe to repeat."""
        lost = super().settle(outcomes)
        self._holds.drop(outcome.job for outcome in outcomes)
        return lost

    def retry(self, job_id: str, delay_seconds: float) -> None:
        """Make a job pending again: one that this object dequeued, or one that is failed, cancelled or pending."""
        super().retry(job_id, delay_seconds)
        self.wake()

    def _give_back(self, jobs: Sequence[Job]) -> None:
        """Release these starts. One that cannot be is left to rescue, and holds up no other."""
        outcomes = [Released(job) for job in jobs]
        try:
            if outcomes:
                self._settle(outcomes)
        except (StorageUnavailable, OSError):
            raise
        except Exception as error:
            if len(outcomes) == 1:
                log.error("job.left_to_rescue", extra={"job_id": jobs[0].id, "error": str(error)})
                return
            for job in jobs:
                self._give_back([job])

    def wait(self, timeout: float, queues: Sequence[str] | None = None) -> None:
        """Sleep until an enqueue or wake() on this object; else a pause that doubles up to poll_interval."""
        self._poked.wait(min(timeout, self._pause))
        self._poked.clear()
        self._pause = min(self._pause * 2, self.poll_interval)

    def wake(self) -> None:
        """Make a wait() in another thread return."""
        self._pause = POLL_MIN
        self._poked.set()

    def rescue(self) -> int:
        """Put the jobs of dead workers back in line; returns how many. A worker does this by itself."""
        return self._rescue()

    def maintain(self, running: Sequence[Job]) -> Maintenance:
        """Rescue, and find out which of these running jobs were lost."""
        rescued = self._rescue()
        again_in = min(1.0 if running else 5.0, self.lease / RENEWALS)
        return Maintenance(lost=self.lost(running), rescued=rescued, again_in=again_in)

    def lost(self, running: Sequence[Job]) -> list[Job]:
        """Which of these running jobs this worker has lost."""
        workers = {int(job.worker_id) for job in running if job.worker_id is not None}
        held = self._starts_of(workers) if workers else set()
        return [job for job in running if start(job) not in held]

    def leave(self) -> None:
        """Stop being a worker: jobs still held go back in line."""
        self._stop_keeper()  # first: it may be about to wait for this lock
        with self._joining:
            worker_id, self._worker_id = self._worker_id, None
            if worker_id is not None:
                self._give_back(self._held_by(worker_id))
                self._retire(worker_id)
            self._holds, self._left_types = Holds(), []

    def close(self) -> None:
        """Let go of every connection. Without leave(), the jobs still held stay so until the lease runs out."""
        self._stop_keeper()

    # -- being a worker -------------------------------------------------------------------------------

    def _join(self) -> int:
        """Be registered; the worker's id, a fresh one after a fork and when the last was given up for dead."""
        if self._worker_id is not None:
            if time.monotonic() - self._renewed_at < self.lease:
                return self._worker_id
            self.keep()  # this process was stopped for longer than the lease: others may have its jobs
        with self._joining:
            if self._worker_id is None:
                worker_id = secrets.randbits(62) | 1
                self._renewed_at = time.monotonic()
                self._enlist(worker_id, f"{socket.gethostname()}:{os.getpid()}")
                self._worker_id = worker_id
                if self._keeper is None:
                    self._keeper = Keeper(self)
                    self._keeper.start()
            return self._worker_id

    def keep(self) -> None:
        """Renew the lease. Called by the keeper's thread."""
        worker_id, now = self._worker_id, time.monotonic()
        if worker_id is None:
            return
        if self._renew(worker_id):
            self._renewed_at = now
        else:
            log.warning("worker.given_away", extra={"worker_id": worker_id})
            with self._joining:
                if self._worker_id == worker_id:
                    self._worker_id = None

    def _stop_keeper(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.stop()
