"""Tests that a settle applies to one start of a job, once, however often it is repeated."""

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
ROUNDS = 20  # of a race


class StartsTests(StorageTests):
    """Part of StorageContract."""

    @needs("settles", "releases")
    @pytest.mark.parametrize("outcome", OUTCOMES)
    def test_start_after_a_release_is_another(self, storage: BaseStorage, outcome: str) -> None:
        """Although the release took the attempt back, and the same storage starts it."""
        storage.enqueue("a", "t", {})
        first = taken(storage, "a")
        same(storage.settle([Released(first)]), [], "settle: a start that is held can be released")
        second = taken(storage, "a", "release: the job is due at once")
        with unchanged(storage, "a", OTHER_START):
            lost = storage.settle([OUTCOMES[outcome](first)])
        if outcome != "released":  # the contract does not define whether a release that is repeated so late is lost
            same(ids_of(lost), ["a"], "settle: an outcome of an earlier start of the job comes back as lost")
        same(storage.dequeue(), None, "settle: a release that is repeated does not let another start begin")
        with accepted("settle: an outcome of an earlier start leaves the later one held"):
            storage.complete(second.id)
        same(stored(storage, "a").status, JobStatus.COMPLETED, "settle: the outcome of the start that is held is taken")

    @needs("settles", "releases")
    def test_release_can_be_repeated(self, storage: BaseStorage, other: BaseStorage) -> None:
        """Also when another storage has started the job since."""
        storage.enqueue("a", "t", {})
        first = taken(storage, "a")
        for _ in range(2):
            same(storage.settle([Released(first)]), [], "settle: a release can be repeated")
            found = (str(stored(storage, "a").status), stored(storage, "a").attempts)
            same(found, ("pending", 0), "settle: a release that is repeated takes the start back once")
        taken(other, "a")
        with unchanged(storage, "a", OTHER_START):
            storage.settle([Released(first)])
        other.complete("a")

    @needs("settles", "prunes")
    @pytest.mark.parametrize("outcome", OUTCOMES)
    def test_job_that_has_the_id_of_a_deleted_one_is_another(self, storage: BaseStorage, outcome: str) -> None:
        """Started by the same storage, for the first time, too."""
        storage.enqueue("a", "t", {})
        first = taken(storage, "a")
        storage.complete("a")
        storage.prune(timedelta(0))
        storage.enqueue("a", "t", {})
        taken(storage, "a")
        with unchanged(storage, "a", "settle: an outcome of a job that was deleted changes no other of its id"):
            storage.settle([OUTCOMES[outcome](first)])
        with accepted("settle: an outcome of a job that was deleted leaves another of its id held"):
            storage.complete("a")

    @needs("settles", "releases")
    def test_job_that_is_started_while_it_is_released_is_held(self, storage: BaseStorage) -> None:
        """One thread releases, another dequeues: the release is not yet over where it began."""
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
            with accepted("release: a start that begins before the release has returned is held"):
                storage.retry("a", 0)
            held = taken(storage, "a")


def ids_of(outcomes: list[Outcome]) -> list[str]:
    """Of their jobs."""
    return [outcome.job.id for outcome in outcomes]
