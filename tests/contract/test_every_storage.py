"""Tests of what SQLAlchemyStorage, RedisStorage, MongoStorage and DynamoDBStorage have in common."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from helpers.memory_storages import MemoryStorage
from helpers.places import KINDS, place

from pgjobq import BaseStorage, InvalidJob, Job, JobNotFound, LostJob, NewJob, open_storage
from pgjobq.encoding import encode_data
from pgjobq.outcomes import Completed, Outcome, Released
from pgjobq.storage.holds import Claimant, claim_of

EXACT: list[Any] = [
    *(1e15, 1e16, 1e17, -1.5e16, 1e22, 1e23, 1e300, 1.7976931348623157e308, 5e-324, 2.2250738585072014e-308),
    *(0.0, -0.0, 1.0, -1.0, 0.1, 1 / 3, 1e-7, 123456789.125),
    *(2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64 + 1, 10**400 + 1, 0, -1),
    *(True, False, None, "", "a\x01\x1f\x7f\x9b\u2028\ufeff\uffff\U0010ffff", " a ", "1e16", "-0.0"),
]


@pytest.fixture(params=KINDS)
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BaseStorage]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    storage = open_storage(place(request.param, request, tmp_path))
    yield storage
    storage.leave()
    storage.close()


def nested(levels: int, inner: Any) -> Any:
    for n in range(levels):
        inner = [inner] if n % 2 else {"a": inner}
    return inner


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "with values that BSON cannot hold"])
def test_data_is_kept_exactly(storage: BaseStorage, wrapped: bool) -> None:
    data = {"values": EXACT, "deep": nested(60, EXACT)} | ({"$a.b": nested(400, EXACT)} if wrapped else {})
    if not wrapped:
        data = {"values": [value for value in EXACT if not isinstance(value, int) or abs(value) < 2**63]}
    storage.enqueue("exact", "t", data)
    for found in (storage.get_job("exact"), storage.dequeue(), storage.list_jobs()[0]):
        assert found is not None
        assert repr(found.data) == repr(data)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"a": [1.5, float("nan")]}, "data.a[1]: nan is not a JSON number"),
        ({"a": float("inf")}, "data.a: inf is not a JSON number"),
        ({"a": {"b": 10**5000}}, "data.a.b: has more digits than Python can format; use a string"),
        ({"a": "x\0y"}, "data.a: contains a NUL character"),
        ({"x\0y": 1}, "data key 'x\\x00y': contains a NUL character"),
        ({"a": "x\ud800y"}, "data.a: contains half of a surrogate pair"),
        ({"a": nested(600, 1)}, "nested too deeply, or contains itself; flatten it"),
        ({"a": nested(100_000, 1)}, "nested too deeply, or contains itself; flatten it"),
    ],
)
def test_data_that_cannot_be_kept_is_refused(data: dict[str, Any], says: str) -> None:
    """Data is refused before a storage sees it, even if the caller's stack is deep."""

    def called_from(depth: int) -> None:
        if depth:
            return called_from(depth - 1)
        with pytest.raises(InvalidJob) as raised:
            encode_data(data)
        assert says in str(raised.value)
        return None

    for depth in (0, 300):
        called_from(depth)


REFUSED: list[tuple[Callable[[Any], Any], str]] = [
    (lambda s: s.list_jobs("finished"), "status: 'finished' is not a status; use pending, running"),
    (lambda s: s.list_jobs(limit=-1), "limit: -1 is not allowed; use a whole number from 0"),
    (lambda s: s.list_jobs(limit=1.5), "limit: 1.5 is not allowed; use a whole number from 0"),
    (lambda s: s.list_jobs(queue=""), "queue: has 0 characters; use the name of a queue"),
    (lambda s: s.list_jobs(queue=7), "queue: 7 is not a string; use the name of a queue"),
    (lambda s: s.dequeue_many(-1), "limit: -1 is not allowed; use a whole number from 0"),
    (lambda s: s.dequeue_many(1, "mail"), "queues: 'mail' is not a list of names; use a list such as ['mail']"),
    (lambda s: s.prune(timedelta(-1)), "older_than: datetime.timedelta(days=-1) is not an age; use a timedelta"),
    (lambda s: s.prune(7), "older_than: 7 is not an age; use a timedelta of 0 or more"),
    (lambda s: s.prune(timedelta(0), ["pending"]), "statuses: 'pending' is not final; use completed, failed,"),
    (lambda s: s.prune(timedelta(0), ["done"]), "status: 'done' is not a status; use pending, running"),
    (lambda s: s.prune(timedelta(0), "failed"), "statuses: 'failed' is not a list of names"),
    (lambda s: s.prune(timedelta(0), queues="mail"), "queues: 'mail' is not a list of names"),
    (lambda s: s.prune(timedelta(0), batch=0), "batch: 0 is not allowed; use a whole number from 1"),
    (lambda s: s.prune_some(timedelta(-1)), "older_than: datetime.timedelta(days=-1) is not an age; use a timedelta"),
    (lambda s: s.retry("a", None), "delay: None is not allowed; use seconds from 0"),
    (lambda s: s.fail("a", None), "error: None is not a string; use a string"),
    *((lambda s, n=name: getattr(s, n)(7), "job_id: 7 is not a string") for name in ("get_job", "cancel", "complete")),
]


def test_arguments_are_refused_in_the_same_words(storage: BaseStorage) -> None:
    storage.enqueue("a", "t", {})
    storage.dequeue()
    before = storage.list_jobs()
    for call, says in REFUSED:
        with pytest.raises(InvalidJob) as raised:
            call(storage)
        assert str(raised.value).startswith(says)
    assert storage.list_jobs() == before


def test_id_that_no_job_can_have_is_unknown(storage: BaseStorage) -> None:
    for job_id in ("", "a\0b", "a\ud800b", "x" * 256, "nobody"):
        assert storage.get_job(job_id) is None
        calls: list[Callable[[], Any]] = [
            lambda job_id=job_id: storage.cancel(job_id),  # type: ignore[misc]
            lambda job_id=job_id: storage.complete(job_id),  # type: ignore[misc]
            lambda job_id=job_id: storage.fail(job_id, "boom"),  # type: ignore[misc]
            lambda job_id=job_id: storage.retry(job_id, 0),  # type: ignore[misc]
            lambda job_id=job_id: storage.release(job_id),  # type: ignore[misc]
        ]
        for call in calls:
            with pytest.raises(JobNotFound) as raised:
                call()
            assert str(raised.value) == f"there is no job {job_id!r}"


def test_prune_accepts_an_age_of_a_thousand_years(storage: BaseStorage) -> None:
    storage.enqueue("a", "t", {})
    storage.dequeue()
    storage.complete("a")
    assert storage.prune(timedelta.max) == 0
    assert storage.prune(timedelta(days=365_000)) == 0
    assert storage.get_job("a") is not None


def test_batch_limits_each_step_of_prune_but_not_the_total(storage: BaseStorage) -> None:
    storage.enqueue_many([NewJob(id=str(n), type="t") for n in range(7)])
    jobs: list[Job] = []
    while len(jobs) < 7:
        jobs += storage.dequeue_many(7 - len(jobs))
    assert storage.complete_many(jobs) == []
    prune: Any = storage.prune
    assert prune(timedelta(0), batch=2) == 7


# -- starts ----------------------------------------------------------------------------------------------


def test_each_claim_has_its_own_id(storage: BaseStorage) -> None:
    storage.enqueue("a", "t", {})
    seen: set[int] = set()
    for _ in range(5):
        held = storage.dequeue()
        assert held is not None
        assert (held.attempts, held.worker_id is not None) == (1, True)
        seen.add(claim_of(held))
        stored = storage.get_job("a")
        assert stored is not None
        assert claim_of(stored) == claim_of(held)
        storage.release("a")
    assert len(seen) == 5
    assert 0 not in seen


def test_job_without_its_claim_settles_nothing(storage: BaseStorage) -> None:
    """A job that was rebuilt from its fields has lost the claim, which identifies the start."""
    storage.enqueue("a", "t", {})
    held = storage.dequeue()
    assert held is not None
    rebuilt = Job.from_dict(held.to_dict() | {"worker_id": int(held.worker_id or 0)})
    assert storage.settle([Completed(rebuilt)]) == [Completed(rebuilt)]
    storage.complete("a")


def test_claimant_keeps_its_claim_when_it_is_copied() -> None:
    one = Claimant(7, 42)
    assert (one, repr(one), f"{one}", hash(one)) == (7, "7", "7", hash(7))
    for other in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):  # noqa: S301  # our own
        assert (other, other.claim) == (7, 42)


def test_claim_during_a_release_is_held() -> None:
    """The job is claimed again after the database has released it, and before the storage has forgotten the old start."""
    released, claimed = threading.Event(), threading.Event()

    class Paused(MemoryStorage):
        def _settle(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
            lost = super()._settle(outcomes)
            if isinstance(outcomes[0], Released):
                released.set()
                assert claimed.wait(10)
            return lost

    storage = Paused()
    storage.enqueue("a", "t", {})
    first = storage.dequeue()
    assert first is not None
    thread = threading.Thread(target=storage.settle, args=[[Released(first)]])
    thread.start()
    assert released.wait(10)
    second = storage.dequeue()
    claimed.set()
    thread.join(10)
    assert second is not None
    storage.complete("a")
    with pytest.raises(LostJob):
        storage.complete("a")
    storage.close()
