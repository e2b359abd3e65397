"""StorageContract: all its parts."""

from __future__ import annotations

from pgjobq.testing.batching import BatchingTests
from pgjobq.testing.claiming import ClaimingTests
from pgjobq.testing.concurrency import ConcurrencyTests
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
    WorkingTests,
    ConcurrencyTests,
    MachineTests,
):
    """What every storage promises, each promise a test whose failure says in words what was broken.

    Make a test class of it, with one fixture, which returns a callable without arguments: each call gives a new
    storage on the same database, and that is empty when the test begins.

        class TestMyStorage(StorageContract):
            @pytest.fixture
            def make_storage(self, tmp_path):
                return functools.partial(MyStorage, tmp_path / "jobs.db")

    Tests of what a storage does beyond the seven abstract methods are skipped when it does not override the
    method. storage_class = MyStorage, or what follows set to False, leaves them out instead:

    batches: enqueue_many adds all jobs or none. queues: list_jobs and dequeue_many tell queues apart. settles:
    settle is fenced by the start, and can be repeated. releases: release takes the start back. cancels, prunes:
    as named; with queues, prune and prune_some are told which. reasons: cancel keeps its reason as the job's error.
    cancels_many: cancel_jobs cancels all jobs that match, whatever their number. leaves: leave_types keeps jobs of
    these types in line. rescues: the jobs of a worker that died, or of a
    storage that was closed without leave(), go back in line. processes: make_storage can be pickled, and reaches
    the same database from another process.

    How hard it tries: jobs, the number that threads and processes compete for; examples and steps of the
    comparison with a model, which derandomize makes the same on every run; largest_data, in bytes; patience,
    seconds that a worker may take; rescue_within, seconds within which the jobs of the dead are rescued.
    """
