"""Tests of what the process of an isolated handler needs of a storage."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

from pgjobq.handlers import Registry, job
from pgjobq.models import JobStatus
from pgjobq.outcomes import Completed
from pgjobq.storage.base import BaseStorage
from pgjobq.testing.features import StorageTests, needs
from pgjobq.testing.promises import promise, same, stored
from pgjobq.worker import Worker


def note_process(path: str) -> None:
    """Write the id of the process that runs this."""
    Path(path).write_text(str(os.getpid()))


class IsolatingTests(StorageTests):
    """Part of StorageContract."""

    def test_worker_isolates(self, storage: BaseStorage, tmp_path: Path) -> None:
        """The worker settles the job of a handler that runs in a process of its own."""
        registry, path = Registry(), tmp_path / "pid"
        job(registry=registry, isolate="process")(note_process)
        storage.enqueue("isolated", "note_process", {"path": str(path)})
        Worker(storage, registry=registry).run_once()
        found = stored(storage, "isolated")
        same(
            (found.status, found.error), (JobStatus.COMPLETED, None), "worker: completes the job of an isolated handler"
        )
        promise(path.read_text() != str(os.getpid()), "worker: runs an isolated handler in another process")

    @needs("reopens", "transacts")
    def test_reopened_storage_completes_jobs(self, storage: BaseStorage) -> None:
        """A transaction of a reopened storage completes a start of this one. To settle it here too is no loss."""
        reopen = storage.reopener()
        promise(reopen is not None, "reopener: returns a function; if the storage has none, set reopens = False")
        assert reopen is not None
        storage.enqueue("elsewhere", "t", {})
        started = storage.dequeue()
        assert started is not None
        reopened: BaseStorage = pickle.loads(pickle.dumps(reopen))()  # noqa: S301  # made here
        try:
            same(reopened.get_job("elsewhere"), storage.get_job("elsewhere"), "reopener: opens the same jobs")
            with reopened.transaction(started):
                pass
        finally:
            reopened.close()
        status = stored(storage, "elsewhere").status
        same(status, JobStatus.COMPLETED, "transaction: completes a job that the storage was reopened for")
        lost = storage.settle([Completed(started)])
        same(lost, [], "settle: a job that a reopened storage has completed is not lost")
        same(stored(storage, "elsewhere").status, JobStatus.COMPLETED, "settle: leaves a completed job completed")
