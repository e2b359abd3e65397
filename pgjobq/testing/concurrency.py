"""Tests with several threads on one storage, several processes on one database, and processes that die."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.context import SpawnProcess
from typing import Any

import pytest

from pgjobq.errors import DuplicateJob
from pgjobq.models import JobStatus, NewJob
from pgjobq.storage.base import BaseStorage
from pgjobq.testing import children
from pgjobq.testing.features import MakeStorage, StorageTests, needs
from pgjobq.testing.promises import broken, eventually, promise, same, stored, taken, unchanged

THREADS, PROCESSES = 8, 4

StartChild = Callable[..., tuple[SpawnProcess, Any]]


class ConcurrencyTests(StorageTests):
    """Part of StorageContract."""

    def test_threads_on_one_storage(self, storage: BaseStorage) -> None:
        """Each job is started once, and no job is lost."""
        names = self._fill(storage)
        barrier = threading.Barrier(THREADS)

        def work() -> list[tuple[str, int]]:
            barrier.wait(self.patience)
            return children.drained(storage)

        with ThreadPoolExecutor(THREADS) as pool:
            futures = [pool.submit(work) for _ in range(THREADS)]
            names += self._fill(storage, "late")
            parts = [future.result() for future in futures]
        self._check(storage, names, parts, f"{THREADS} threads on one storage")

    def test_threads_enqueue_on_one_storage(self, storage: BaseStorage) -> None:
        """If several threads enqueue the same id, exactly one of them succeeds."""

        def work(thread: int) -> int:
            refused = 0
            for n in range(20):
                storage.enqueue(f"{thread}-{n}", "t", {"n": n})
                try:
                    storage.enqueue(f"all-{n}", "t", {"by": thread})
                except DuplicateJob:
                    refused += 1
            return refused

        with ThreadPoolExecutor(THREADS) as pool:
            refused = sum(pool.map(work, range(THREADS)))
        found, expected = len(storage.list_jobs()), 20 * THREADS + 20
        same(found, expected, "threads: the storage contains every job that was enqueued, and each id once")
        same(refused, 20 * (THREADS - 1), "threads: if several threads enqueue the same id, exactly one succeeds")

    def test_one_of_many_claims_a_lone_job(self, open_storage: MakeStorage) -> None:
        """Several storages compete for a single job, ten times."""
        storages = [open_storage() for _ in range(THREADS)]
        barrier = threading.Barrier(THREADS)

        def work(storage: BaseStorage) -> bool:
            barrier.wait(self.patience)
            job = storage.dequeue()
            if job is not None:
                storage.complete(job.id)
            return job is not None

        with ThreadPoolExecutor(THREADS) as pool:
            for n in range(10):
                storages[0].enqueue(f"lone-{n}", "t", {})
                starts = sum(pool.map(work, storages))
                promise(starts <= 1, "dequeue: no two callers get the same start", starts=starts)
                if not starts:
                    taken(storages[0], f"lone-{n}", "dequeue: a job for which several callers compete is not lost")
                    storages[0].complete(f"lone-{n}")

    @needs("processes")
    def test_processes_on_one_database(
        self, storage: BaseStorage, make_storage: MakeStorage, start_child: StartChild
    ) -> None:
        """Each job is started once, and no job is lost."""
        names = self._fill(storage)
        pipes = [start_child(children.drain, make_storage)[1] for _ in range(PROCESSES)]
        for pipe in pipes:
            self._answer(pipe)
        for pipe in pipes:
            pipe.send("go")
        names += self._fill(storage, "late")
        parts = [self._answer(pipe) for pipe in pipes]
        promise(any(parts), "processes: a storage in another process sees the same jobs", parts=parts)
        self._check(storage, names, parts, f"{PROCESSES} processes on one database")

    @needs("rescues")
    def test_rescue_of_a_storage_that_closed(
        self, storage: BaseStorage, other: BaseStorage, make_storage: MakeStorage
    ) -> None:
        """A storage that is closed without leave() counts as dead, because a killed process leaves the same traces."""
        storage.enqueue("a", "t", {})
        storage.enqueue("live", "t", {})
        dead = make_storage()
        taken(dead, "a")
        taken(other, "live")
        dead.close()
        self._rescued(storage, "a", "pending")
        same(stored(storage, "live").status, JobStatus.RUNNING, "rescue: does not take a job from a live worker")
        started = taken(storage, "a")
        same(started.attempts, 2, "rescue: a start whose worker died counts as an attempt")
        other.complete("live")
        if started.crashes:  # a storage without a count of crashes counts each crash as a try
            same((started.crashes, started.tries), (1, 1), "rescue: a crash does not count as a try")
            self._crash_again(storage, make_storage)

    def _crash_again(self, storage: BaseStorage, make_storage: MakeStorage) -> None:
        """Go on with job a, which the storage holds and which has crashed once."""
        __tracebackhide__ = True
        storage.retry("a", 0)
        found = stored(storage, "a")
        same((found.attempts, found.crashes), (1, 0), "retry: subtracts the crashes from attempts")
        storage.enqueue("killer", "t", {}, max_retries=9)
        for crashes in (1, 2, 3):
            dead = make_storage()
            dead.dequeue_many(2 if crashes == 1 else 1)
            dead.close()
            self._rescued(storage, "killer", "failed" if crashes == 3 else "pending")
            if crashes == 1:
                self._rescued(storage, "a", "pending")
                taken(storage, "a")
                storage.complete("a")
                same(stored(storage, "a").crashes, 0, "complete: sets the count of crashes to 0")
        promise("crash 3" in str(stored(storage, "killer").error), "rescue: the error names the number of crashes")
        storage.retry("killer", 0)
        found = stored(storage, "killer")
        same((found.attempts, found.crashes), (0, 0), "retry: of a failed job sets the count of crashes to 0")

    @needs("rescues", "processes")
    def test_rescue_of_a_killed_process(
        self, storage: BaseStorage, make_storage: MakeStorage, start_child: StartChild
    ) -> None:
        """SIGKILL ends the process before it can release its jobs."""
        storage.enqueue_many([NewJob(id="tries", type="t"), NewJob(id="last", type="t", max_retries=0)])
        process, pipe = start_child(children.hold, make_storage, 2)
        same(sorted(self._answer(pipe)), [("last", 1), ("tries", 1)], "dequeue_many: returns the jobs that are due")
        same(storage.dequeue(), None, "dequeue: does not return a job that a live worker holds")
        process.kill()
        process.join(self.patience)
        self._rescued(storage, "tries", "pending")
        # A storage without a count of crashes must count a crash as a try, because a job that kills its workers would
        # otherwise be started for ever.
        self._rescued(storage, "last", "pending" if stored(storage, "tries").crashes else "failed")
        promise(stored(storage, "last").error, "rescue: sets the error of a job whose worker died")
        same(taken(storage, "tries").attempts, 2, "rescue: a start whose worker died counts as an attempt")
        storage.complete("tries")
        same(storage.rescue(), 0, "rescue: does not rescue a job twice")

    @needs("rescues", "leases", "processes")
    def test_lease_of_a_suspended_process(
        self, storage: BaseStorage, make_storage: MakeStorage, start_child: StartChild
    ) -> None:
        """SIGSTOP suspends the process. When it continues, it does not know that its lease has expired."""
        storage.enqueue("a", "t", {})
        process, pipe = start_child(children.be_suspended, make_storage)
        same(self._answer(pipe), [("a", 1)], "dequeue_many: returns the jobs that are due")
        assert process.pid is not None  # it was started
        os.kill(process.pid, signal.SIGSTOP)
        try:
            self._rescued(storage, "a", "pending")
            same(taken(storage, "a").attempts, 2, "rescue: a start whose lease expired counts as an attempt")
        finally:
            os.kill(process.pid, signal.SIGCONT)
        with unchanged(storage, "a", "fencing: a worker whose lease expired changes nothing"):
            pipe.send("go on")
            same(self._answer(pipe), "LostJob", "fencing: complete by a worker whose lease expired raises LostJob")
        storage.complete("a")

    def _fill(self, storage: BaseStorage, which: str = "early") -> list[str]:
        names = [f"{which}-{n}" for n in range(self.jobs // 2)]
        for some in (names[at : at + 10] for at in range(0, len(names), 10)):
            storage.enqueue_many([NewJob(id=name, type="t", priority=n % 3) for n, name in enumerate(some)])
        return names

    def _check(
        self, storage: BaseStorage, names: Sequence[str], parts: Sequence[Sequence[tuple[str, int]]], who: str
    ) -> None:
        __tracebackhide__ = True
        # The threads or processes may have stopped before the last jobs were enqueued.
        starts = Counter(start for part in (*parts, children.drained(storage)) for start in part)
        twice = sorted(start for start, times in starts.items() if times > 1)
        promise(not twice, f"dequeue: no two callers get the same start ({who})", given_twice=twice)
        again = sorted(start for start in starts if start[1] != 1)
        promise(not again, f"dequeue: does not return a job that another caller holds ({who})", given_again=again)
        lost = sorted(set(names) - {name for name, _ in starts})
        promise(not lost, f"dequeue: no job is lost ({who})", lost=lost)
        left = [job.id for job in storage.list_jobs() if job.status is not JobStatus.COMPLETED]
        promise(not left, f"complete: every job that was completed has the status completed ({who})", left=left)

    def _rescued(self, storage: BaseStorage, job_id: str, status: str) -> None:
        def look() -> bool:
            storage.rescue()
            return stored(storage, job_id).status == status

        sentence = f"rescue: within rescue_within seconds, the job of a dead worker is {status}"
        eventually(look, sentence, self.rescue_within)

    def _answer(self, pipe: Any) -> Any:
        if not pipe.poll(self.patience + self.rescue_within):
            raise broken("processes: a storage in a child process answers", waited_for="a child process")
        try:
            return pipe.recv()
        except EOFError:
            raise broken("processes: a storage works in a child process; see the traceback on standard error") from None

    @pytest.fixture
    def start_child(self) -> Iterator[StartChild]:
        """Start functions of `children` in child processes. At the end of the test, kill those that still run."""
        context = multiprocessing.get_context("spawn")
        started: list[tuple[SpawnProcess, Any]] = []

        def start(target: Callable[..., None], *arguments: Any) -> Any:
            try:
                pickle.dumps(arguments)
            except Exception as error:
                raise broken(
                    "processes: make_storage can be pickled; use functools.partial(MyStorage, url), or set"
                    " processes = False for a storage that works in one process only",
                    raised=repr(error),
                ) from error
            ours, theirs = context.Pipe()
            make_storage, *rest = arguments
            process = context.Process(target=target, args=(make_storage, theirs, *rest), daemon=True)
            process.start()
            theirs.close()
            started.append((process, ours))
            return process, ours

        yield start
        deadline = time.monotonic() + 1.0
        for _, pipe in started:
            pipe.close()  # ends a child that waits for a message
        for process, _ in started:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
            process.close()
