"""LeasedStorage: the shared part of storages whose databases cannot detect that a worker died.

A worker is registered with a lease, and a thread of its process renews it. A renewal is one write, however many jobs
the worker holds. When the lease expires, the maintenance of any other worker puts its jobs back in line. Later settles
by the expired worker are refused, because each settle names the claim of its start.
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

POLL_MIN = 0.002  # seconds between two claims of a worker that has just had a job


class LeasedStorage(FencedStorage):
    """A storage whose workers hold their jobs by a lease.

    lease: seconds without a renewal after which a worker's jobs go to other workers. poll_interval: the longest pause,
    in seconds, between two polls of an idle worker. An enqueue through the same object wakes the worker at once.

    Thread-safe. The storage retries nothing itself; the caller may safely repeat a settle. Every settle is fenced by
    the start that was dequeued. If the answer of a claim is lost with the connection, the claim raises
    StorageUnavailable, and the next claim first releases the jobs of the lost one.

    A subclass implements the methods that begin with an underscore, here and in FencedStorage.
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
        self._may_hold_unknown = False  # a claim's answer was lost, so this worker may hold jobs that it does not know
        self._woken, self._pause, self._suspects = threading.Event(), POLL_MIN, Suspects()
        renew_in_child(self)

    def after_fork(self) -> None:
        """Reset the object in a forked child, because the registration, the thread and the locks are the parent's."""
        self._joining, self._claiming = threading.Lock(), threading.RLock()
        self._worker_id, self._keeper, self._holds, self._may_hold_unknown = None, None, Holds(), False
        self._woken, self._pause, self._suspects = threading.Event(), POLL_MIN, Suspects()
        self._left_types = []

    # -- for subclasses: each method is atomic, and raises StorageUnavailable when the database does not answer ----

    @abstractmethod
    def _claim(
        self, worker_id: Claimant, limit: int, queues: Sequence[str] | None, except_types: Sequence[str]
    ) -> list[Job]:
        """Claim up to limit due jobs for this worker, in the order in which they should run.

        Leave the jobs of except_types in line, and claim the jobs behind them. Store worker_id.claim beside the worker
        id of the jobs, and return jobs whose worker_id is this very object, so that a settle names the claim.
        """

    @abstractmethod
    def _enlist(self, worker_id: int, name: str) -> None:
        """Register a worker, with a lease that begins now."""

    @abstractmethod
    def _renew(self, worker_id: int) -> bool:
        """Renew the worker's lease from now. Return False if it is not registered any more and has lost its jobs."""

    @abstractmethod
    def _retire(self, worker_id: int) -> None:
        """Delete the registration of a worker that holds no jobs any more."""

    @abstractmethod
    def _held_by(self, worker_id: int) -> list[Job]:
        """Return the running jobs of this worker."""

    def _starts_of(self, worker_ids: set[int]) -> set[Start]:
        """Return the starts that these workers hold. A subclass may do this without reading whole jobs."""
        return {start(job) for worker_id in worker_ids for job in self._held_by(worker_id)}

    @abstractmethod
    def _rescue(self) -> int:
        """Make the running jobs pending and due now whose worker is not registered or whose lease has expired.

        Return how many. Add one to the crashes of each job, without using up a try, and fail a job that reaches
        MAX_CRASHES. Delete the registrations of the dead workers, and log each of them.
        """

    # -- the interface of BaseStorage -----------------------------------------------------------------

    def enqueue_many(self, jobs: Sequence[NewJob], connection: Any = None) -> list[str]:
        """Add jobs, all or none, and return their ids in order. A worker on the same object wakes at once."""
        ids = super().enqueue_many(jobs, connection)
        if ids:
            self.wake()
        return ids

    def _dequeue(self, limit: int, queues: Sequence[str] | None) -> list[Job]:
        worker_id = self._join()
        with self._claiming:  # claims take turns, so that the jobs of an earlier claim are known before the next
            if self.suspects_alone and self._suspects.must_wait(self._holds.all()):
                return []
            if self._may_hold_unknown:
                known = self._holds.starts()
                self._give_back([job for job in self._held_by(worker_id) if start(job) not in known])
                self._may_hold_unknown = False
            try:
                jobs = self._claim(Claimant.fresh(worker_id), limit, queues, self._left_types)
            except StorageError:
                self._may_hold_unknown = True
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
        """Settle jobs. Return the outcomes whose job this worker has lost; those jobs are unchanged. Safe to repeat."""
        lost = super().settle(outcomes)
        self._holds.drop(outcome.job for outcome in outcomes)
        return lost

    def retry(self, job_id: str, delay_seconds: float) -> None:
        """Make a job pending that this object dequeued, or that is failed, cancelled or pending."""
        super().retry(job_id, delay_seconds)
        self.wake()

    def _give_back(self, jobs: Sequence[Job]) -> None:
        """Release these starts. Leave a start that cannot be released to a later rescue, and release the others."""
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
        """Sleep until an enqueue or wake() on this object, or for a pause that doubles up to poll_interval."""
        self._woken.wait(min(timeout, self._pause))
        self._woken.clear()
        self._pause = min(self._pause * 2, self.poll_interval)

    def wake(self) -> None:
        """Make a wait() in another thread return."""
        self._pause = POLL_MIN
        self._woken.set()

    def rescue(self) -> int:
        """Put the jobs of dead workers back in line. Return how many. A running Worker calls this by itself."""
        return self._rescue()

    def maintain(self, running: Sequence[Job]) -> Maintenance:
        """Rescue, and report which of these running jobs were lost."""
        rescued = self._rescue()
        again_in = min(1.0 if running else 5.0, self.lease / RENEWALS)
        return Maintenance(lost=self.lost(running), rescued=rescued, again_in=again_in)

    def lost(self, running: Sequence[Job]) -> list[Job]:
        """Which of these running jobs this worker has lost."""
        workers = {int(job.worker_id) for job in running if job.worker_id is not None}
        held = self._starts_of(workers) if workers else set()
        return [job for job in running if start(job) not in held]

    def leave(self) -> None:
        """Stop being a worker, and put the jobs that are still held back in line."""
        self._stop_keeper()  # before taking the lock, because the keeper may be about to wait for it
        with self._joining:
            worker_id, self._worker_id = self._worker_id, None
            if worker_id is not None:
                self._give_back(self._held_by(worker_id))
                self._retire(worker_id)
            self._holds, self._left_types = Holds(), []

    def close(self) -> None:
        """Close every connection. Without leave(), the jobs that are held stay running until the lease expires."""
        self._stop_keeper()

    # -- being a worker -------------------------------------------------------------------------------

    def _join(self) -> int:
        """Register unless that is done, and return the worker's id.

        The id is new after a fork, and after other workers have taken the old worker for dead.
        """
        if self._worker_id is not None:
            if time.monotonic() - self._renewed_at < self.lease:
                return self._worker_id
            self.keep()  # the process was suspended for longer than the lease, so other workers may have its jobs
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
        """Renew the lease. The keeper's thread calls this."""
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
