"""What handlers report with job.progress, on workers, from the first report to the last."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from helpers import isolated
from helpers.memory_storages import DictStorage
from helpers.until import until
from helpers.working import finished

from pgjobq import (
    BaseStorage,
    InvalidJob,
    Job,
    JobQueue,
    JobStatus,
    Registry,
    RunningJob,
    StorageUnavailable,
    Unsupported,
    Worker,
    job,
)
from pgjobq.outcomes import Completed
from pgjobq.reports import Line, Report
from pgjobq.storage.postgres_storage import PostgresStorage
from pgjobq.worker.notes import Notes

Connection = psycopg.Connection[Any]
Start = Callable[..., Worker]


@pytest.fixture
def start(make_storage: Callable[..., PostgresStorage], registry: Registry) -> Iterator[Start]:
    """Starts workers; stopped at the end."""
    made: list[Worker] = []

    def make(storage: BaseStorage | None = None, **options: Any) -> Worker:
        made.append(Worker(storage or make_storage(), registry=registry, **options))
        made[-1].start()
        return made[-1]

    yield make
    for worker in made:
        worker.stop()


def test_progress_is_seen_while_the_handler_runs(queue: JobQueue, registry: Registry, start: Start) -> None:
    go_on = threading.Event()

    @job(registry=registry)
    def import_file(job: RunningJob) -> None:
        job.progress(0.4, "page 4 of 10", page=4)
        go_on.wait(20)
        job.progress(1)

    job_id = queue.enqueue("import_file")
    assert queue.progress(job_id) is None
    start()
    found = until(lambda: queue.progress(job_id))
    assert found.pop("updated_at").utcoffset() is not None
    assert found == {"fraction": 0.4, "message": "page 4 of 10", "meta": {"page": 4}}
    go_on.set()
    finished(queue, job_id)
    # The last report is written with the settle, even if a second has not passed.
    last = queue.progress(job_id)
    assert last is not None
    assert (last["fraction"], last["message"], last["meta"]) == (1.0, None, None)


@pytest.mark.parametrize("kind", ["sync", "async", "process"])
def test_every_kind_of_handler_reports(queue: JobQueue, registry: Registry, kind: str) -> None:
    if kind == "async":

        @job(registry=registry, type="report")
        async def report(job: RunningJob) -> None:
            job.progress(0.5, "half")
    elif kind == "sync":
        job(registry=registry, type="report")(isolated.report)
    else:
        job(registry=registry, type="report", isolate="process")(isolated.report)
    job_id = queue.enqueue("report")
    Worker(queue, registry=registry).run_once()
    assert finished(queue, job_id).status is JobStatus.COMPLETED
    found = queue.progress(job_id)
    assert found is not None
    assert (found["fraction"], found["message"]) == (0.5, "half")


BAD: dict[str, tuple[Callable[[RunningJob], None], str]] = {
    "above": (lambda job: job.progress(1.5), "fraction: 1.5 is not allowed; use the share that is done"),
    "below": (lambda job: job.progress(-0.1), "fraction: -0.1 is not allowed"),
    "nan": (lambda job: job.progress(float("nan")), "fraction: nan is not allowed"),
    "text": (lambda job: job.progress("half"), "fraction: 'half' is not allowed"),  # type: ignore[arg-type]
    "bool": (lambda job: job.progress(True), "fraction: True is not allowed"),
    "number": (lambda job: job.progress(0.1, 4), "message: 4 is not a string"),  # type: ignore[arg-type]
    "long": (lambda job: job.progress(0.1, "x" * 1001), "message: has 1001 characters"),
    "nul": (lambda job: job.progress(0.1, "a\0b"), "message: contains a NUL character"),
    "set": (lambda job: job.progress(0.1, pages={1}), "meta.pages: set cannot be stored as JSON"),
    "meta nan": (lambda job: job.progress(0.1, x=float("nan")), "meta.x: nan is not a JSON number"),
    "much": (lambda job: job.progress(0.1, x="y" * 10_000), "meta: it has 10008 bytes; use at most 10000"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_report_raises_in_the_handler(queue: JobQueue, registry: Registry, name: str) -> None:
    call, message = BAD[name]

    @job(registry=registry, max_retries=0)
    def report(job: RunningJob) -> None:
        with pytest.raises(InvalidJob) as caught:
            call(job)
        assert message in str(caught.value)
        assert caught.value.field == message.partition(":")[0].partition(".")[0]

    job_id = queue.enqueue("report")
    Worker(queue, registry=registry).run_once()
    ended = finished(queue, job_id)
    assert ended.status is JobStatus.COMPLETED, ended.error
    assert queue.progress(job_id) is None


def test_a_handler_that_reports_runs_on_a_storage_without_progress(registry: Registry) -> None:
    @job(registry=registry)
    def report(job: RunningJob) -> None:
        job.progress(0.5)

    queue = JobQueue(DictStorage())
    job_id = queue.enqueue("report")
    Worker(queue, registry=registry).run_once()
    assert finished(queue, job_id).status is JobStatus.COMPLETED
    with pytest.raises(Unsupported, match="progress: DictStorage"):
        queue.progress(job_id)


def test_a_handler_past_its_timeout_reports_nothing(queue: JobQueue, registry: Registry, start: Start) -> None:
    ended = threading.Event()

    @job(registry=registry, timeout=0.1, max_retries=0)
    def slow(job: RunningJob) -> None:
        job.progress(0.1)
        while not job.lost:
            pass
        job.progress(0.9)
        ended.set()

    job_id = queue.enqueue("slow")
    worker = start()
    assert finished(queue, job_id).status is JobStatus.FAILED
    assert ended.wait(20)
    worker.stop()
    found = queue.progress(job_id)
    assert found is not None
    assert found["fraction"] == 0.1


# -- the notes of a worker ----------------------------------------------------------------------------


class Writes(DictStorage):
    """Keeps what is written; raises `error` if it is set."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[float]] = []
        self.error: Exception | None = None

    def save_progress(self, reports: Any) -> None:
        if self.error is not None:
            raise self.error
        self.calls.append([report.fraction for _, report in reports])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of the notes, which the test sets."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def a_report(fraction: float) -> Report:
    return Report.checked(fraction, None, {})


def test_at_most_one_write_a_second_and_the_last_value_is_never_lost(clock: list[float]) -> None:
    woken: list[None] = []
    storage, kept, one = Writes(), Notes(lambda: woken.append(None)), Job(id="a", type="x")
    for hundredth in range(100):  # a report each 50 ms, for five seconds
        kept.report(one, a_report(hundredth / 100))
        kept.write(storage)
        clock[0] += 0.05
    assert [len(call) for call in storage.calls] == [1] * 5
    assert storage.calls[0] == [0.0]
    assert len(woken) == 5
    assert 0 < kept.patience(1.0) <= 1.0
    clock[0] += kept.patience(1.0)
    kept.write(storage)
    assert storage.calls[-1] == [0.99]
    clock[0] += 2
    kept.write(storage)
    assert not kept


def test_the_last_report_is_written_when_the_job_ends(clock: list[float]) -> None:
    storage, kept, one = Writes(), Notes(lambda: None), Job(id="a", type="x")
    kept.report(one, a_report(0.1))
    kept.write(storage)
    kept.report(one, a_report(1))
    kept.write(storage)
    assert storage.calls == [[0.1]]
    kept.write(storage, [Completed(one)])
    assert storage.calls == [[0.1], [1.0]]
    assert not kept


def test_a_report_is_kept_while_the_database_is_away(clock: list[float]) -> None:
    storage, kept, one, other = Writes(), Notes(lambda: None), Job(id="a", type="x"), Job(id="b", type="x")
    storage.error = StorageUnavailable("away")
    kept.report(one, a_report(0.1))
    kept.report(other, a_report(0.2))
    kept.write(storage)
    kept.report(other, a_report(0.3))
    storage.error = None
    kept.write(storage)
    assert storage.calls == []  # not at once, because the database is away
    clock[0] += 1
    kept.write(storage)
    assert storage.calls == [[0.1, 0.3]]


def test_a_report_that_cannot_be_written_does_not_stop_the_others(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    class Refuses(Writes):
        def save_progress(self, reports: Any) -> None:
            if any(report.fraction == 0.2 for _, report in reports):
                raise ValueError("no")
            super().save_progress(reports)

    storage, kept = Refuses(), Notes(lambda: None)
    for name, fraction in (("a", 0.1), ("b", 0.2), ("c", 0.3)):
        kept.report(Job(id=name, type="x"), a_report(fraction))
    kept.write(storage)
    assert storage.calls == [[0.1], [0.3]]
    assert [record.job_id for record in caplog.records if "progress.unwritten" in record.message] == ["b"]  # type: ignore[attr-defined]


def a_line(seq: int) -> Line:
    return Line(seq, datetime.now(UTC), "INFO", "app", f"line {seq}")


def test_lines_keep_their_order_while_the_database_is_away(clock: list[float]) -> None:
    class Keeps(Writes):
        def save_lines(self, lines: Any) -> None:
            if self.error is not None:
                raise self.error
            kept.line(other, a_line(99))  # as if the driver logged in the context of a handler
            self.calls.append([line.seq for _, line in lines])

    storage, kept, one, other = Keeps(), Notes(lambda: None), Job(id="a", type="x"), Job(id="b", type="x")
    kept.line(one, a_line(1))
    kept.line(one, a_line(2))
    kept.write(storage)
    assert storage.calls == []  # a second after the first line
    storage.error = StorageUnavailable("away")
    kept.write(storage, [Completed(one)])
    kept.line(one, a_line(3))
    storage.error = None
    clock[0] += 1
    kept.write(storage)
    assert storage.calls == [[1, 2, 3]]
