"""Tests that enqueue, get_job and list_jobs store and return jobs unchanged."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from reprlib import repr as shown
from typing import Any

import pytest

from pgjobq.errors import DuplicateJob, InvalidJob
from pgjobq.models import JobStatus
from pgjobq.storage.base import BaseStorage
from pgjobq.testing.features import MakeStorage, StorageTests
from pgjobq.testing.promises import accepted, ids, promise, refused, same, stored, taken, unchanged

FAR = datetime(2100, 1, 1, tzinfo=UTC)


def nested(levels: int) -> list[Any]:
    """Return nested lists."""
    inner: list[Any] = []
    for _ in range(levels - 1):
        inner = [inner]
    return inner


DATA: dict[str, dict[str, Any]] = {
    "empty": {},
    "nested": {"list": [1, [2, [3, {}]], []], "dict": {"a": {"b": {"c": None}}}, "flags": [True, False, None]},
    "whole numbers": {"numbers": [0, -1, 2**31, -(2**31) - 1, 2**53, -(2**53)]},
    "large numbers": {"numbers": [2**53 + 1, 2**63, -(2**63) - 1, 2**64 + 1, -(10**30) - 1, 10**400 + 1]},
    "fractions": {"numbers": [0.1, -2.5, 1 / 3, 1.5e-9, 123456789.125, 0.0, -0.0]},
    "large and small fractions": {"numbers": [1e15, 1e16, -1.5e16, 1e23, 1e300, 1.7976931348623157e308, 5e-324]},
    "deep": {"a": [[[[{}]]]], "b": nested(400)},
    "texts": {
        "é": "e\u0301",
        "中文": "שלום",
        "🎉": "\U0001f468\u200d\U0001f469",
        "quotes": "\"'\\ \n\t\r \u2028",
        "": "",
    },
    "keys": {"a.b": 1, "$set": {"$where": 2}, "_id": 3, " ": 4, "A": 5, "a": 6, "status": "completed"},
}
REFUSED: dict[str, list[Any]] = {
    "job_id": ["", "x" * 256, 7, None, "a\0b", "a\ud800b"],
    "job_type": ["", "x" * 256, 7, None, "a\0b", "a\ud800b"],
    "data": [
        *([1], "{}", {"x": {1, 2}}, {1: 2}),
        *({"x": float("nan")}, {"x": [float("inf")]}, {"x": -float("inf")}),
        *({"x": "a\0b"}, {"a\0b": 1}, {"x": ["a\ud800b"]}, {"a\ud800b": 1}),
        {"x": nested(1000)},
    ],
    "max_retries": [-1, 1.5, "3"],
    "priority": ["high", 5.5, True, 2**31],
    "execute_at": ["2020-01-01T00:00:00Z", 0],
}
IDS = ["a", "A", "a ", " a", "á", "a\u0301", "ß", "ss", "🎉", "a:b{c}*", "%s", "'; --", "x" * 255, "0", "00"]


class KeepingTests(StorageTests):
    """Part of StorageContract."""

    def test_a_new_job_is_pending(self, storage: BaseStorage) -> None:
        """A new job has the given values, and the defaults of the signature for the others."""
        storage.enqueue("new", "greet", {"name": "Ada"})
        job = stored(storage, "new")
        found = (job.id, job.type, job.data, job.status, job.attempts, job.max_retries, job.priority, job.error)
        same(
            found,
            ("new", "greet", {"name": "Ada"}, JobStatus.PENDING, 0, 3, 5, None),
            "enqueue: a new job is pending, has no attempts, and has the defaults max_retries=3 and priority=5",
        )

    def test_every_argument_is_stored(self, storage: BaseStorage) -> None:
        """get_job and dequeue return max_retries, priority and execute_at as they were given."""
        due = datetime(2020, 2, 29, 12, 30, 15, 678000, tzinfo=UTC)
        storage.enqueue("all", "greet", {"n": 1}, max_retries=7, priority=-3, execute_at=due)
        for job in (stored(storage, "all"), taken(storage, "all")):
            found = (job.id, job.type, job.data, job.max_retries, job.priority)
            same(found, ("all", "greet", {"n": 1}, 7, -3), "enqueue: stores every argument")
            promise(
                job.execute_at is not None and abs(job.execute_at - due) < timedelta(milliseconds=1),
                "execute_at: is returned as it was given, to the millisecond",
                expected=due,
                found=job.execute_at,
            )

    def test_unknown_job_returns_none(self, storage: BaseStorage) -> None:
        """get_job returns None for an unknown id."""
        storage.enqueue("there", "t", {})
        with accepted("get_job: returns None for an unknown id"):
            same(storage.get_job("nobody"), None, "get_job: returns None for an unknown id")

    @pytest.mark.parametrize("kind", DATA)
    def test_data_is_returned_unchanged(self, storage: BaseStorage, kind: str) -> None:
        """Data may be any JSON object."""
        with accepted(f"data: the example {kind!r} can be enqueued"):
            storage.enqueue("data", "t", DATA[kind])
        for job in (stored(storage, "data"), taken(storage, "data"), storage.list_jobs()[0]):
            same(_plain(job.data), _plain(DATA[kind]), f"data: the example {kind!r} is returned as it was given")

    def test_large_data_is_returned_unchanged(self, storage: BaseStorage) -> None:
        """Data may have up to largest_data bytes."""
        data = {"text": "é☃🎉x" * (self.largest_data // 10)}
        size = f"{self.largest_data / 1000:g} kB"
        with accepted(f"data: {size} of data can be enqueued"):
            storage.enqueue("large", "t", data)
        promise(stored(storage, "large").data == data, f"data: get_job returns {size} of data as they were given")
        promise(taken(storage, "large").data == data, f"data: dequeue returns {size} of data as they were given")

    def test_data_is_copied(self, storage: BaseStorage) -> None:
        """The caller may change a dict that it gave to enqueue or received from get_job."""
        data: dict[str, Any] = {"list": [1]}
        storage.enqueue("own", "t", data)
        data["list"].append(2)
        stored(storage, "own").data["list"].append(3)
        same(stored(storage, "own").data, {"list": [1]}, "data: a change of the caller's dict does not change the job")

    def test_ids_that_differ_slightly(self, storage: BaseStorage) -> None:
        """Ids are different if they differ in case, accents or spaces."""
        for job_id in IDS:
            with accepted(f"id: ids that differ in any character are different ids ({job_id!r})"):
                storage.enqueue(job_id, "t", {"of": job_id})
        for job_id in IDS:
            job = stored(storage, job_id)
            same((job.id, job.data), (job_id, {"of": job_id}), "id: ids that differ in any character are different ids")

    def test_duplicate_id_is_refused(self, storage: BaseStorage, other: BaseStorage) -> None:
        """enqueue refuses the id of a job that is pending, running or completed."""
        sentence = "duplicate: enqueue of an id that exists raises DuplicateJob"
        storage.enqueue("twin", "t", {"v": 1})
        for step in (lambda: None, lambda: taken(storage, "twin"), lambda: storage.complete("twin")):
            step()
            for one in (storage, other):
                with (
                    unchanged(storage, "twin", "duplicate: a refused enqueue does not change the job that exists"),
                    refused(DuplicateJob, sentence),
                ):
                    one.enqueue("twin", "other", {"v": 2}, priority=9)
        same(len(storage.list_jobs()), 1, "duplicate: a refused job is not added")
        same(storage.dequeue(), None, "duplicate: a refused job is not dequeued")

    @pytest.mark.parametrize("field", REFUSED)
    def test_invalid_job_is_refused(self, storage: BaseStorage, field: str) -> None:
        """A storage can check all arguments by creating a NewJob from them."""
        for value in REFUSED[field]:
            arguments = {"job_id": "bad", "job_type": "t", "data": {}} | {field: value}
            with refused(InvalidJob, f"enqueue: an invalid value raises InvalidJob ({field}={shown(value)})"):
                storage.enqueue(**arguments)
        same(storage.list_jobs(), [], "enqueue: a refused job is not added")

    def test_naive_time_is_refused(self, storage: BaseStorage) -> None:
        """A time without a time zone is ambiguous."""
        with refused(InvalidJob, "times: a naive execute_at raises InvalidJob"):
            storage.enqueue("naive", "t", {}, execute_at=datetime(2020, 1, 1))  # noqa: DTZ001  # naive on purpose
        same(storage.get_job("naive"), None, "times: a refused job is not added")

    def test_times_are_in_utc_in_any_time_zone(self, storage: BaseStorage, in_kolkata: None) -> None:
        """The time zone of the process does not matter."""
        kolkata = timezone(timedelta(hours=5, minutes=30))
        storage.enqueue("past", "t", {}, execute_at=datetime.now(kolkata) - timedelta(hours=1))
        storage.enqueue("future", "t", {}, priority=9, execute_at=datetime.now(kolkata) + timedelta(hours=1))
        past = taken(storage, "past", "times: execute_at is the same instant in every time zone")
        same(storage.dequeue(), None, "times: execute_at is the same instant in every time zone")
        storage.fail("past", "x")
        for job in (past, *storage.list_jobs()):
            times = (job.created_at, job.updated_at, job.started_at, job.finished_at, job.failed_at)
            for moment in times:
                if moment is not None:
                    promise(
                        moment.tzinfo is UTC and abs(moment - datetime.now(UTC)) < timedelta(minutes=10),
                        "times: a storage sets a timestamp to the current time, as an aware datetime in UTC",
                        expected=datetime.now(UTC),
                        found=moment,
                    )

    def test_list_jobs_filters(self, storage: BaseStorage) -> None:
        """list_jobs accepts a status as a string or as a JobStatus. Without a status it returns all jobs."""
        for name in ("completed", "failed", "running", "pending"):
            storage.enqueue(name, "t", {})
        storage.enqueue("scheduled", "t", {}, execute_at=FAR)
        for name in ("completed", "failed", "running"):
            taken(storage, name)
        storage.complete("completed")
        storage.fail("failed", "boom")
        for status in ("completed", "failed", "running", "cancelled"):
            expected = [status] if status != "cancelled" else []
            same(ids(storage.list_jobs(status)), expected, f"list_jobs: with {status}, returns only {status} jobs")
        found = sorted(ids(storage.list_jobs(JobStatus.PENDING)))
        same(found, ["pending", "scheduled"], "list_jobs: with pending, returns due and scheduled jobs")
        expected = ["completed", "failed", "pending", "running", "scheduled"]
        same(sorted(ids(storage.list_jobs())), expected, "list_jobs: without a status, returns all jobs")

    def test_list_jobs_newest_first(self, storage: BaseStorage) -> None:
        """list_jobs returns the newest jobs first, and with a limit only the newest."""
        self._enqueue_apart(storage, 5)
        same(ids(storage.list_jobs()), ["4", "3", "2", "1", "0"], "list_jobs: returns the newest job first")
        same(ids(storage.list_jobs(limit=2)), ["4", "3"], "list_jobs: a limit keeps only the newest jobs")
        same(ids(storage.list_jobs("pending", 2)), ["4", "3"], "list_jobs: a status and a limit can be combined")
        same(ids(storage.list_jobs(limit=9)), ["4", "3", "2", "1", "0"], "list_jobs: a large limit returns all jobs")
        same(storage.list_jobs(limit=0), [], "list_jobs: with limit=0, returns an empty list")

    def test_list_jobs_refuses_an_unknown_status(self, storage: BaseStorage) -> None:
        """A misspelt status must not look like a status that no job has."""
        storage.enqueue("there", "t", {})
        with refused(InvalidJob, "list_jobs: an unknown status raises InvalidJob"):
            storage.list_jobs("finished")

    def test_another_storage_sees_the_same_jobs(self, open_storage: MakeStorage) -> None:
        """Two storages that are open at the same time see the same jobs."""
        first, second = open_storage(), open_storage()
        same(second.list_jobs(), [], "storage: the database is empty when a test begins")
        first.enqueue("shared", "t", {"n": 1})
        job = stored(second, "shared")
        same(job, stored(first, "shared"), "storage: two storages on one database see the same jobs")
        same(taken(second, "shared").id, "shared", "storage: a storage dequeues a job that another storage enqueued")
        same(stored(first, "shared").status, JobStatus.RUNNING, "storage: two storages see the same status")

    @staticmethod
    def _enqueue_apart(storage: BaseStorage, jobs: int) -> None:
        for n in range(jobs):
            storage.enqueue(str(n), "t", {})
            time.sleep(0.003)  # so that databases that store milliseconds can distinguish the times

    @pytest.fixture
    def in_kolkata(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Set the time zone of the process to one that is far from UTC."""
        monkeypatch.setenv("TZ", "Asia/Kolkata")
        time.tzset()
        yield
        monkeypatch.undo()
        time.tzset()


def _plain(value: object) -> object:
    """Replace numbers by strings, so that 1 and 1.0 are equal, as in JSON, and True and 1 are not."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # all digits, unlike repr
    return repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
