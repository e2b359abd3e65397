"""Runners: the caller that takes out a run decides its outcome, and affects no other run."""

from __future__ import annotations

import threading

from helpers.until import until

from pgjobq import Job, Registry, job
from pgjobq.models import NewJob
from pgjobq.storage.base import Completed
from pgjobq.storage.postgres_storage import PostgresStorage
from pgjobq.worker.in_flight import InFlight
from pgjobq.worker.threads import ThreadRunner


def test_abandoning_an_ended_run_does_not_affect_the_next_run_of_its_thread(storage: PostgresStorage) -> None:
    """Maintenance may take a job for lost that was settled meanwhile, while its thread already runs another job."""
    registry, gates = Registry(), {"first": threading.Event(), "second": threading.Event()}

    @job(registry=registry)
    def wait(job: Job) -> None:
        gates[job.id].wait(10)

    storage.enqueue_many([NewJob(type="wait", id=name) for name in gates])
    first, second = storage.dequeue_many(2)
    in_flight = InFlight(1)
    runner = ThreadRunner(in_flight, storage, 1)
    runner.submit(first, registry.get("wait"))
    until(runner.running)
    (seen,) = runner.running()
    runner.submit(second, registry.get("wait"))
    gates["first"].set()
    until(lambda: [run.job.id for run in runner.running()] == ["second"])
    runner.abandon(seen, release=False)
    assert [run.job.id for run in runner.running()] == ["second"]
    gates["second"].set()
    until(lambda: len(in_flight.outcomes) == 2)
    assert [(type(outcome), outcome and outcome.job.id) for outcome in in_flight.outcomes] == [
        (Completed, "first"),
        (Completed, "second"),
    ]
    runner.stop()
