"""StorageContract, which combines all parts of the contract."""

from __future__ import annotations

from pgjobq.testing.batching import BatchingTests
from pgjobq.testing.claiming import ClaimingTests
from pgjobq.testing.concurrency import ConcurrencyTests
from pgjobq.testing.ending import EndingTests
from pgjobq.testing.keeping import KeepingTests
from pgjobq.testing.machine import MachineTests
from pgjobq.testing.more import MoreTests
from pgjobq.testing.moving import MovingTests
from pgjobq.testing.starts import StartsTests
from pgjobq.testing.working import WorkingTests


class StorageContract(
    KeepingTests,
    ClaimingTests,
    BatchingTests,
    StartsTests,
    MoreTests,
    MovingTests,
    EndingTests,
    WorkingTests,
    ConcurrencyTests,
    MachineTests,
):
    """The promises of every storage. Each promise is a test whose failure message states the broken promise.

    Write a subclass with one fixture that returns a callable without arguments. Each call returns a new storage on the
    same database, which must be empty when the test begins.

        class TestMyStorage(StorageContract):
            @pytest.fixture
            def make_storage(self, tmp_path):
                return functools.partial(MyStorage, tmp_path / "jobs.db")

    A test of a method beyond the seven abstract ones is skipped if the storage does not override the method. To leave
    these tests out instead, set storage_class = MyStorage, or set an attribute to False:

    batches: enqueue_many adds all jobs or none. queues: list_jobs and dequeue_many distinguish queues. settles: settle
    is fenced by the start and can be repeated. releases: release does not count the start. cancels, prunes: the storage
    can cancel and prune; with queues, prune and prune_some accept queues. reasons: cancel keeps its reason as the job's
    error. cancels_many: cancel_jobs cancels all jobs that match. leaves: leave_types keeps jobs of these types in line.
    results: what handlers return is kept. rescues: the jobs of a worker that died, or of a storage that was closed
    without leave(), go back in line. processes: make_storage can be pickled and reaches the same database from another
    process.

    Other attributes set the effort. jobs: the number for which threads and processes compete. examples, steps: of the
    comparison with a model. derandomize: use the same examples on every run. largest_data: bytes. patience: seconds
    that a worker may take. rescue_within: seconds within which the jobs of dead workers are rescued.
    """
