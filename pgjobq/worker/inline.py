"""Running jobs in the caller's thread, for tests and scripts."""

from __future__ import annotations

from collections.abc import Sequence

from pgjobq.handlers import Registry
from pgjobq.outcomes import Released, Snoozed
from pgjobq.storage.base import BaseStorage
from pgjobq.worker.fetcher import Fetcher
from pgjobq.worker.in_flight import InFlight
from pgjobq.worker.tasks import TaskRunner
from pgjobq.worker.threads import ThreadRunner


def run_jobs(
    storage: BaseStorage, registry: Registry, queues: Sequence[str] | None, *, fail_unknown: bool, limit: int | None
) -> int:
    """Run the due jobs one after another, at most limit of them. Return how many ran; released jobs do not count."""
    done = 0
    in_flight = InFlight(1)
    threads, tasks = ThreadRunner(in_flight, storage, 1), TaskRunner(in_flight, storage, 1)
    fetcher = Fetcher(storage, in_flight, registry, threads, tasks, queues=queues, fail_unknown=fail_unknown)
    while limit is None or done < limit:
        jobs = storage.dequeue_many(1, queues)
        if not jobs:
            break
        fetcher.dispatch(jobs)
        in_flight.note_claimed(1)
        while not in_flight.outcomes:
            in_flight.has_outcome.wait(0.05)
            in_flight.has_outcome.clear()
            threads.check_deadlines()
            tasks.watch()
            tasks.running()
            in_flight.notes.write(storage)
        outcomes = in_flight.take_outcomes(1)
        in_flight.notes.write(storage, outcomes)
        storage.settle(outcomes)
        done += not any(isinstance(outcome, Released) and not isinstance(outcome, Snoozed) for outcome in outcomes)
    threads.stop()
    tasks.stop()
    storage.leave_types(())
    return done
