"""Tests that settle applies an outcome to the start that the outcome names, and applies it only once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest

from pgjobq.models import Job, JobStatus
from pgjobq.outcomes import Completed, Failed, Outcome, Released, Retried
from pgjobq.storage.base import BaseStorage
from pgjobq.testing.features import StorageTests, needs
from pgjobq.testing.promises import accepted, promise, same, stored, taken, unchanged

OUTCOMES: dict[str, Callable[[Job], Outcome]] = {
    "completed": Completed,
    "failed": lambda job: Failed(job, "boom"),
    "retried": lambda job: Retried(job, 0.0, "again"),
    "released": Released,
}
OTHER_START = "settle: an outcome of an earlier start changes nothing"
ROUNDS = 20  # how often the race is repeated


class StartsTests(StorageTests):
    """Part of StorageContract."""

    @needs("settles", "releases")
    @pytest.mark.parametrize("outcome", OUTCOMES)
    def test_start_after_a_release_is_a_new_start(self, storage: BaseStorage, outcome: str) -> None:
        """Both starts have the same attempt number and the same worker, so only the claim distinguishes them."""
        storage.enqueue("a", "t", {})
        first = taken(storage, "a")
        same(storage.settle([Released(first)]), [], "settle: releases a start that is held")
        second = taken(storage, "a", "release: the job is due at once")
        with unchanged(storage, "a", OTHER_START):
            lost = storage.settle([OUTCOMES[outcome](first)])
        if outcome != "released":  # the contract does not say whether such a late release is lost
            same(ids_of(lost), ["a"], "settle: returns an outcome of an earlier start of the job as lost")
        same(storage.dequeue(), None, "settle: a repeated release does not make the job due while a later start runs")
        with accepted("settle: after an outcome of an earlier start, the storage still holds the later start"):
            storage.complete(second.id)
        same(stored(storage, "a").status, JobStatus.COMPLETED, "settle: applies the outcome of the start that is held")

    @needs("settles", "releases")
    def test_release_can_be_repeated(self, storage: BaseStorage, other: BaseStorage) -> None:
        """A repeated release changes nothing, even if another storage has started the job in the meantime."""
        storage.enqueue("a", "t", {})
        first = taken(storage, "a")
        for _ in range(2):
            same(storage.settle([Released(first)]), [], "settle: a release can be repeated")
            found = (str(stored(storage, "a").status), stored(storage, "a").attempts)
            same(found, ("pending", 0), "settle: a repeated release subtracts the start from attempts only once")
        taken(other, "a")
        with unchanged(storage, "a", OTHER_START):
            storage.settle([Released(first)])
        other.complete("a")

    @needs("settles", "prunes")
    @pytest.mark.parametrize("outcome", OUTCOMES)
    def test_job_with_the_id_of_a_deleted_job_is_new(self, storage: BaseStorage, outcome: str) -> None:
        """Both jobs have the same id, attempt number and worker, so only the claim distinguishes them."""
        storage.enqueue("a", "t", {})
        first = taken(storage, "a")
        storage.complete("a")
        storage.prune(timedelta(0))
        storage.enqueue("a", "t", {})
        taken(storage, "a")
        with unchanged(storage, "a", "settle: an outcome of a deleted job does not change a new job with the same id"):
            storage.settle([OUTCOMES[outcome](first)])
        with accepted("settle: after an outcome of a deleted job, the storage still holds a new job with the same id"):
            storage.complete("a")

    @needs("settles", "releases")
    def test_start_during_a_release_is_held(self, storage: BaseStorage) -> None:
        """One thread releases the job. Another thread dequeues it before the first call has returned."""
        storage.enqueue("a", "t", {})
        held = taken(storage, "a")
        for _ in range(ROUNDS):
            found: list[Job] = []
            over = threading.Event()

            def dequeue(found: list[Job] = found, over: threading.Event = over) -> None:
                while not found and not over.is_set():
                    found += storage.dequeue_many(1)

            thread = threading.Thread(target=dequeue)
            thread.start()
            storage.settle([Released(held)])
            thread.join(self.patience)
            over.set()
            promise(found, "release: the job is due at once")
            held = found[0]
            with accepted("release: the storage holds a start that begins before the release has returned"):
                storage.retry("a", 0)
            held = taken(storage, "a")


def ids_of(outcomes: list[Outcome]) -> list[str]:
    """Return the ids of the jobs of these outcomes."""
    return [outcome.job.id for outcome in outcomes]
