"""Every start of a job gets an outcome, whatever the handler raises or returns and however logging fails."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import logging
import math
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from helpers.until import until
from helpers.working import finished

from pgjobq import Fail, Job, JobQueue, JobStatus, LostJob, Registry, Retry, Worker, job
from pgjobq.backoff import constant

StartWorker = Callable[..., Worker]


@pytest.fixture
def start(queue: JobQueue, registry: Registry) -> Iterator[StartWorker]:
    """Return a function that starts workers with concurrency 2. They are stopped at the end."""
    workers: list[Worker] = []

    def make() -> Worker:
        workers.append(Worker(queue, registry=registry, concurrency=2))
        workers[-1].start()
        return workers[-1]

    yield make
    for worker in workers:
        worker.stop(grace=1)


def both(registry: Registry, function: Callable[[], Any], **options: Any) -> list[Any]:
    """Register a function as a sync and as an async handler, and return both."""

    def sync() -> Any:
        return function()

    async def on_the_loop() -> Any:
        return function()

    return [job(registry=registry, max_retries=0, **options)(handler) for handler in (sync, on_the_loop)]


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class UnprintableAtAll(Exception):
    def __str__(self) -> str:
        raise SystemExit

    __repr__ = __str__


class NoText(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]  # noqa: PLE0307  # the test needs a wrong type


class Resists(Exception):
    """Raises when any attribute is read."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class BadClass(type):
    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError(name)


class OfBadClass(Exception, metaclass=BadClass):
    pass


class BareRetry(Retry):
    def __init__(self) -> None:  # does not call Retry.__init__
        pass


class BareFail(Fail):
    def __init__(self) -> None:
        pass


def with_notes(notes: Any) -> Exception:
    error = ValueError("noted")
    error.__notes__ = notes
    return error


ERRORS: dict[str, Callable[[], BaseException]] = {
    "Unprintable": Unprintable,
    "UnprintableAtAll": UnprintableAtAll,
    "NoText": NoText,
    "Resists": Resists,
    "OfBadClass": OfBadClass,
    "BareRetry": BareRetry,
    "BareFail": BareFail,
    "noted": lambda: with_notes(5),
    "\\udcff": lambda: ValueError("\udcff"),
    "\\0": lambda: ValueError("a\0b"),
    "SystemExit": SystemExit,
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "StopIteration": StopIteration,
    "CancelledError": asyncio.CancelledError,
    "TimeoutError": TimeoutError,
    "LostJob": LostJob,
    "xxx": lambda: ValueError("x" * 50_000_000),
    "two (1 sub-exception)": lambda: ExceptionGroup("two", [Unprintable()]),
}


@pytest.mark.parametrize("name", ERRORS)
def test_job_fails_whatever_is_raised(queue: JobQueue, registry: Registry, start: StartWorker, name: str) -> None:
    def raises() -> None:
        error = ERRORS[name]()
        raise error

    start()
    for kind in both(registry, raises):
        # Two jobs of each kind use both threads of the worker.
        jobs = [finished(queue, job_id) for job_id in [queue.enqueue(kind) for _ in range(2)]]
        assert [job.status for job in jobs] == [JobStatus.FAILED] * 2
        for found in jobs:
            assert found.error is not None
            assert name in found.error or (name == "StopIteration" and "RuntimeError" in found.error)
            assert len(found.error) <= 20_000

    @job(registry=registry)
    def good() -> None: ...

    assert finished(queue, queue.enqueue(good)).status == JobStatus.COMPLETED


class Unreadable:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


class LiesAboutItsNumber(float):
    def __le__(self, other: object) -> bool:
        raise RuntimeError("no order")

    __ge__ = __le__


DELAYS = ["soon", math.nan, math.inf, -1, 1e300, timedelta(seconds=1), True, Unreadable(), LiesAboutItsNumber(3)]


@pytest.mark.parametrize("delay", DELAYS, ids=lambda delay: type(delay).__name__)
def test_invalid_delay_is_replaced_by_the_backoff(
    queue: JobQueue, registry: Registry, start: StartWorker, delay: Any
) -> None:
    tries: list[str | None] = []

    @job(registry=registry, max_retries=1, backoff=constant(0))
    def again(job: Job) -> None:
        tries.append(job.error)
        error = Retry(reason="not yet")
        error.delay = delay
        raise error

    job_id = queue.enqueue(again)
    start()
    found = finished(queue, job_id)
    assert (found.status, found.attempts, found.error) == (JobStatus.FAILED, 2, "Retry: not yet")
    assert "not a number of seconds from 0 to 3200000000; the backoff was used instead" in str(tries[1])


def test_retry_and_fail_can_be_raised_without_arguments(
    queue: JobQueue, registry: Registry, start: StartWorker
) -> None:
    @job(registry=registry)
    def fails() -> None:
        raise Fail

    @job(registry=registry, max_retries=1, backoff=constant(0))
    async def retries() -> None:
        raise Retry

    start()
    jobs = [finished(queue, queue.enqueue(handler)) for handler in (fails, retries)]
    assert [(job.attempts, job.error) for job in jobs] == [
        (1, "Fail: the handler gave no reason"),
        (2, "Retry: the handler asked for another try"),
    ]


def test_lost_job_from_another_storage_call_fails_the_job(
    queue: JobQueue, registry: Registry, start: StartWorker
) -> None:
    @job(registry=registry, max_retries=0)
    def settles_another() -> None:
        queue.storage.complete("other")

    queue.enqueue("unknown", job_id="other", delay=60)
    job_id = queue.enqueue(settles_another)
    start()
    assert "LostJob" in str(finished(queue, job_id).error)


class Breaks(logging.Handler):
    """A logging handler that raises."""

    def emit(self, record: logging.LogRecord) -> None:
        raise RuntimeError("the log is full")


def broken_handler() -> Callable[[], None]:
    handler = Breaks()
    logging.getLogger().addHandler(handler)
    return lambda: logging.getLogger().removeHandler(handler)


def broken_filter() -> Callable[[], None]:
    def exits(record: logging.LogRecord) -> bool:
        raise RuntimeError(record.name) if threading.current_thread() is threading.main_thread() else SystemExit

    logger = logging.getLogger("pgjobq.worker")
    logger.addFilter(exits)
    return lambda: logger.removeFilter(exits)


def factory(make: Callable[..., Any]) -> Callable[[], None]:
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(functools.partial(make, before))
    return lambda: logging.setLogRecordFactory(before)


def with_job_id(before: Any, *args: Any, **kwargs: Any) -> logging.LogRecord:
    record: logging.LogRecord = before(*args, **kwargs)
    for name in ("job_id", "error", "event", "attempts", "concurrency"):
        setattr(record, name, "of the program")
    return record


def raising(before: Any, *args: Any, **kwargs: Any) -> logging.LogRecord:
    raise RuntimeError("no record")


LOGGING: dict[str, Callable[[], Callable[[], None]]] = {
    "handler": broken_handler,
    "filter": broken_filter,
    "factory with fields": lambda: factory(with_job_id),
    "factory that raises": lambda: factory(raising),
}


@pytest.mark.parametrize("what", LOGGING)
def test_broken_logging_does_not_affect_jobs(
    queue: JobQueue,
    registry: Registry,
    what: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("pgjobq"), "level", logging.DEBUG)
    logging.getLogger("pgjobq").manager._clear_cache()  # type: ignore[attr-defined]  # as setLevel does

    def breaks() -> None:
        raise ValueError("no luck")

    def stuck() -> None:
        release.wait(20)

    kinds = both(registry, breaks)
    job(registry=registry, timeout=0.05, max_retries=0)(stuck)
    release = threading.Event()
    restore = LOGGING[what]()
    try:
        worker = Worker(queue, registry=registry, concurrency=2)
        worker.start()
        jobs = [finished(queue, job_id) for job_id in [queue.enqueue(kind) for kind in kinds for _ in range(2)]]
        late = finished(queue, queue.enqueue(stuck))
        worker.stop(grace=1)
    finally:
        restore()
        release.set()
    assert [str(job.error).split("\n")[0] for job in jobs] == ["ValueError: no luck"] * 4
    assert str(late.error).startswith("JobTimeout")
    assert not worker.is_running()
    if what != "factory with fields":
        assert "pgjobq: logging of job.failed failed: " in capsys.readouterr().err


# Results that nothing has run


async def coroutine() -> None: ...


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> Any:
    yield 1


class Awaitable:
    def __await__(self) -> Iterator[None]:
        yield


PROMISES: dict[str, Callable[[], Any]] = {
    "coroutine": coroutine,
    "generator": generator,
    "async generator": async_generator,
    "awaitable": Awaitable,
    "context manager": contextlib.contextmanager(generator),
    "async context manager": contextlib.asynccontextmanager(async_generator),
    "future": concurrent.futures.Future,
}


@pytest.mark.parametrize("what", PROMISES)
def test_unawaited_result_of_a_handler_fails_the_job(
    queue: JobQueue, registry: Registry, start: StartWorker, what: str
) -> None:
    start()
    for kind in both(registry, PROMISES[what]):
        found = finished(queue, queue.enqueue(kind))
        assert (found.status, found.attempts) == (JobStatus.FAILED, 1)
        assert f"handler test_outcomes.both.<locals>.{kind.__name__}: it returned a" in str(found.error)


def test_task_that_an_async_handler_returns_fails_the_job(
    queue: JobQueue, registry: Registry, start: StartWorker
) -> None:
    @job(registry=registry)
    async def leaves() -> Any:
        return asyncio.ensure_future(asyncio.sleep(0))

    start()
    assert "which nothing awaits" in str(finished(queue, queue.enqueue(leaves)).error)


def test_any_other_result_is_not_closed(queue: JobQueue, registry: Registry, start: StartWorker) -> None:
    with contextlib.closing(open(__file__, encoding="utf-8")) as file:  # noqa: PTH123  # a file is a context manager too
        start()
        for kind in both(registry, lambda: file):
            found = finished(queue, queue.enqueue(kind))
            assert (found.status, found.attempts) == (JobStatus.FAILED, 1)
            assert "result: TextIOWrapper cannot be stored as JSON" in str(found.error)
        assert not file.closed


def test_results_and_errors_of_a_job_are_not_kept(queue: JobQueue, registry: Registry, start: StartWorker) -> None:
    import weakref

    class Big:
        pass

    seen: list[weakref.ref[Any]] = []

    def returns() -> Big:
        big = Big()
        seen.append(weakref.ref(big))
        return big

    start()
    for kind in both(registry, returns):
        finished(queue, queue.enqueue(kind))
    until(lambda: len(seen) == 2 and not any(ref() for ref in seen))
