"""Snooze: a handler that waits for something without using up tries."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from helpers.places import KINDS, place

from pgjobq import InvalidJob, Job, JobQueue, JobStatus, Registry, Retry, Snooze, Worker, job
from pgjobq.handlers import Handler
from pgjobq.outcomes import Released, Retried
from pgjobq.worker.running import verdict


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture(params=["postgresql", *KINDS])
def queue(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry
) -> Iterator[JobQueue]:
    """An empty queue of each kind."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    url = request.getfixturevalue("dsn") if request.param == "postgresql" else place(request.param, request, tmp_path)
    with JobQueue(url, registry=registry) as made:
        yield made


def test_snooze_costs_no_try_on_any_storage(queue: JobQueue, registry: Registry) -> None:
    starts: list[int] = []

    @job(registry=registry, max_retries=1)
    def wait_for_payment(job: Job) -> None:
        starts.append(job.attempts)
        if len(starts) <= 4:
            raise Snooze(timedelta(hours=1), "no payment yet")
        if len(starts) == 5:
            raise Retry(0, "now it counts")

    job_id = queue.enqueue(wait_for_payment)
    worker = Worker(queue, registry=registry)
    for _ in range(4):
        before = datetime.now(UTC)
        assert worker.run_once() == 1  # it ran, and is not due again
        found = queue.get_job(job_id)
        assert found is not None
        assert (found.status, found.attempts, found.error) == (JobStatus.PENDING, 0, None)
        assert found.execute_at is not None
        assert timedelta(minutes=59) < found.execute_at - before < timedelta(minutes=61)
        queue.retry(job_id)  # due now
    assert worker.run_once() == 2  # one try of two, and the second one completes
    assert starts == [1, 1, 1, 1, 1, 2]
    found = queue.get_job(job_id)
    assert found is not None
    assert found.status is JobStatus.COMPLETED


@pytest.mark.parametrize("delay", [0, -1, True, "60", float("inf"), None, timedelta(0)])
def test_delay_must_be_above_zero(delay: Any) -> None:
    with pytest.raises(InvalidJob, match=r"^delay: .* use seconds above 0"):
        Snooze(delay)


def test_snooze_survives_a_process_boundary() -> None:
    copy = pickle.loads(pickle.dumps(Snooze(60, "later")))  # noqa: S301  # our own
    assert (copy.delay, copy.reason, str(copy)) == (60, "later", "later")


class Broken(Snooze):
    def __init__(self, delay: object = None) -> None:
        if delay is not None:
            self.delay = delay  # type: ignore[assignment]  # what a careless subclass does


def handle() -> None: ...


@pytest.mark.parametrize("error", [Broken(), Broken("60"), Broken(float("nan")), Broken(True), Broken(0)])
def test_broken_snooze_counts_as_any_error(error: Snooze) -> None:
    handler = Handler(type="t", function=handle)
    assert isinstance(verdict(Job(id="1", type="t", attempts=1), handler, error), Retried)
    assert isinstance(verdict(Job(id="1", type="t", attempts=1), handler, Snooze(5)), Released)
