"""StorageContract, which combines all parts of the contract."""

from __future__ import annotations

from pgjobq.testing.batching import BatchingTests
from pgjobq.testing.claiming import ClaimingTests
from pgjobq.testing.concurrency import ConcurrencyTests
from pgjobq.testing.ending import EndingTests
from pgjobq.testing.isolating import IsolatingTests
from pgjobq.testing.keeping import KeepingTests
from pgjobq.testing.machine import MachineTests
from pgjobq.testing.more import MoreTests
from pgjobq.testing.moving import MovingTests
from pgjobq.testing.scheduling import SchedulingTests
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
    IsolatingTests,
    SchedulingTests,
    ConcurrencyTests,
    MachineTests,
):
    """The promises of every storage, as tests. A test that fails states the broken promise in its message.

    Write a subclass with one fixture, make_storage, which returns a callable without arguments. Each call of it returns
    a new storage on the same database. The database must be empty when the test begins.

        class TestMyStorage(StorageContract):
            @pytest.fixture
            def make_storage(self, tmp_path):
                return functools.partial(MyStorage, tmp_path / "jobs.db")

    The tests of a method other than the seven abstract ones are skipped if the storage does not override the method. To
    leave them out instead, set storage_class = MyStorage, or set the attribute of the feature to False:

    - batches: enqueue_many adds all jobs or none.
    - queues: list_jobs and dequeue_many distinguish queues.
    - settles: settle is fenced by the start and can be repeated.
    - releases: release does not count the start.
    - cancels, prunes: the storage can cancel and prune. With queues, prune and prune_some accept queues.
    - reasons: cancel stores its reason as the error of the job.
    - cancels_many: cancel_jobs cancels all jobs that match.
    - leaves: after leave_types, dequeue passes over jobs of these types.
    - reopens: the function of reopener opens the same jobs in another process.
    - transacts: transaction completes its job.
    - schedules: create_schedule and its kin; the jobs of ticks are added by maintain or by a claim.
    - results: what handlers return is kept.
    - rescues: if a worker dies, or a storage is closed without leave(), its jobs become pending again.
    - processes: make_storage can be pickled and opens the same database in another process.

    Other attributes set the effort:

    - jobs: how many jobs the threads and processes compete for.
    - batch: how many jobs the largest batches contain.
    - examples, steps: how many examples the comparison with a model runs, and how many calls each of them makes.
    - derandomize: use the same examples in every run.
    - largest_data: the size of the largest data, in bytes.
    - patience: how many seconds a worker may take.
    - rescue_within: within how many seconds the jobs of a dead worker must be rescued.
    """
