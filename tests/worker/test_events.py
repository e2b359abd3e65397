"""Log lines: their text under any formatter, their fields, and the job that a handler's own lines name."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import logging.handlers
import queue as queues
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
from helpers.working import finished

from pgjobq import Fail, JobLogFilter, JobQueue, Registry, Retry, Worker, current_job, job
from pgjobq.backoff import constant
from pgjobq.cli.logs import EventFormatter, configure
from pgjobq.events import MAX_FIELD, EventLog

StartWorker = Callable[..., Worker]


class Lines:
    """The log lines as a formatter writes them."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self.stream = io.StringIO()
        self.handler = logging.StreamHandler(self.stream)
        self.handler.setFormatter(formatter)

    def __call__(self) -> list[str]:
        return self.stream.getvalue().splitlines()


@pytest.fixture
def heard() -> Iterator[Callable[..., Lines]]:
    """Return a function that collects the program's log lines as a formatter writes them."""
    root, before = logging.getLogger(), logging.getLogger().level
    made: list[Lines] = []

    def hear(formatter: logging.Formatter, *filters: logging.Filter, level: int = logging.DEBUG) -> Lines:
        made.append(Lines(formatter))
        for each in filters:
            made[-1].handler.addFilter(each)
        root.addHandler(made[-1].handler)
        root.setLevel(level)
        return made[-1]

    yield hear
    root.setLevel(before)
    for lines in made:
        root.removeHandler(lines.handler)


def ran(queue: JobQueue, registry: Registry, *handlers: Any, **options: Any) -> list[str]:
    """Run one job of each handler and return the ids of the jobs."""
    worker = Worker(queue, registry=registry, **options)
    worker.start()
    try:
        ids: list[str] = [queue.enqueue(handler) for handler in handlers]
        for job_id in ids:
            finished(queue, job_id)
    finally:
        worker.stop(grace=0)
    return ids


@pytest.fixture
def handlers(registry: Registry) -> list[Any]:
    """One handler that completes, and two that fail."""

    @job(registry=registry)
    def good() -> None: ...

    @job(registry=registry, max_retries=1, backoff=constant(0))
    def breaks() -> None:
        raise ValueError("no luck")

    @job(registry=registry)
    async def fails() -> None:
        raise Fail("no such customer")

    return [good, breaks, fails]


def test_any_formatter_shows_which_job_failed_and_why(
    queue: JobQueue, registry: Registry, handlers: list[Any], heard: Callable[..., Lines]
) -> None:
    lines = heard(logging.Formatter("%(levelname)s %(message)s"))
    good, breaks, fails = ran(queue, registry, *handlers)
    log = lines()
    assert (
        f'WARNING job.failed job_id={breaks} job_type=breaks queue=default attempts=2 error="ValueError: no luck"'
        in log
    )
    assert (
        f'WARNING job.failed job_id={fails} job_type=fails queue=default attempts=1 error="Fail: no such customer"'
        in log
    )
    (retried,) = [line for line in log if "job.retried" in line]
    assert f"job_id={breaks} job_type=breaks queue=default attempts=1" in retried
    assert retried.endswith("delay=0.0")
    assert log.count('    raise ValueError("no luck")') == 2  # one traceback for each try
    assert '    raise Fail("no such customer")' not in log
    for event in ("job.started", "job.completed"):
        assert f"DEBUG {event} job_id={good} job_type=good queue=default attempts=1" in log


@pytest.mark.parametrize("as_json", [True, False])
def test_event_formatter_shows_each_field_once(
    queue: JobQueue, registry: Registry, handlers: list[Any], heard: Callable[..., Lines], as_json: bool
) -> None:
    lines = heard(EventFormatter(as_json=as_json), JobLogFilter())
    _, breaks, _ = ran(queue, registry, *handlers)
    (line,) = [line for line in lines() if "job.failed" in line and breaks in line]
    if as_json:
        record = json.loads(line)
        assert record["event"] == "job.failed"
        assert (record["job_id"], record["error"], record["attempts"]) == (breaks, "ValueError: no luck", 2)
        assert "in breaks" in record["traceback"]
    else:
        assert line.endswith(
            f' WARNING job.failed job_id={breaks} job_type=breaks queue=default attempts=2 error="ValueError: no luck"'
        )


def test_events_of_each_job_are_not_logged_at_level_info(
    queue: JobQueue, registry: Registry, handlers: list[Any], heard: Callable[..., Lines]
) -> None:
    lines = heard(logging.Formatter("%(message)s"), level=logging.INFO)
    ran(queue, registry, *handlers)
    assert not [line for line in lines() if line.startswith(("job.started", "job.completed"))]


def test_job_that_is_released_at_the_end_of_the_grace_period_is_logged(
    queue: JobQueue, registry: Registry, heard: Callable[..., Lines]
) -> None:
    lines = heard(logging.Formatter("%(message)s"))
    began, go = threading.Semaphore(0), threading.Event()

    @job(registry=registry)
    def stuck() -> None:
        began.release()
        go.wait(20)

    @job(registry=registry)
    async def stuck_async() -> None:
        began.release()
        await asyncio.sleep(20)

    worker = Worker(queue, registry=registry)
    worker.start()
    ids = [queue.enqueue(stuck), queue.enqueue(stuck_async)]
    for _ in ids:
        assert began.acquire(timeout=5)
    worker.stop(grace=0)
    go.set()
    released = [line for line in lines() if line.startswith("job.released ")]
    assert sorted(line.split("job_id=")[1].split()[0] for line in released) == sorted(ids)


def test_huge_error_is_shortened_in_the_log(queue: JobQueue, registry: Registry, heard: Callable[..., Lines]) -> None:
    lines = heard(logging.Formatter("%(message)s"))

    @job(registry=registry)
    def huge() -> None:
        raise Fail("x" * 50_000_000)

    @job(registry=registry, max_retries=0)
    def huge_too() -> None:
        raise ValueError("x" * 50_000_000)

    ran(queue, registry, huge, huge_too)
    assert len(lines.stream.getvalue()) < 60_000
    assert all(len(line) < MAX_FIELD + 500 for line in lines() if line.startswith("job.failed"))


@pytest.mark.parametrize("as_json", [True, False])
def test_huge_lines_of_other_loggers_are_shortened(as_json: bool) -> None:
    """A driver or asyncio may log a handler's exception, and any logger may create such a record."""
    huge = "\0x" * 5_000_000
    try:
        raise ValueError(huge)
    except ValueError as error:
        info = (ValueError, error, error.__traceback__)
    for name in ("asyncio", "pgjobq.storage"):
        fields = {"name": name, "msg": huge, "exc_info": info, "error": huge, "values": [huge], "pair": {huge: huge}}
        line = EventFormatter(as_json=as_json).format(logging.makeLogRecord(fields))
        assert len(line) < 100_000  # an escape is longer than its character
        assert "\0" not in line
        assert "ValueError" in line
        if as_json:
            assert "\0" not in str(json.loads(line))


def test_lines_of_a_handler_name_its_job(queue: JobQueue, registry: Registry, heard: Callable[..., Lines]) -> None:
    shop = logging.getLogger("shop")
    lines = heard(logging.Formatter("%(message)s %(job_type)s %(job_id)s"), JobLogFilter(default="-"))
    seen: list[Any] = []

    @job(registry=registry)
    def plain() -> None:
        shop.info("written")
        seen.append(current_job())

    @job(registry=registry)
    async def on_the_loop() -> None:
        await asyncio.to_thread(shop.info, "sent")
        await asyncio.create_task(noted())

    async def noted() -> None:
        shop.info("noted", extra={"job_id": "its own"})

    shop.info("outside")
    first, second = ran(queue, registry, plain, on_the_loop)
    mine = [line for line in lines() if line.split()[0] in {"written", "sent", "noted", "outside"}]
    assert sorted(mine) == sorted(
        [f"written plain {first}", f"sent on_the_loop {second}", "noted on_the_loop its own", "outside - -"]
    )
    assert seen[0].id == first
    assert current_job() is None


def test_lines_that_pass_through_a_queue_are_unchanged(heard: Callable[..., Lines]) -> None:
    lines = Lines(EventFormatter(as_json=False))
    carried: queues.Queue[Any] = queues.Queue()
    carrier = logging.handlers.QueueHandler(carried)
    logger = logging.getLogger("pgjobq.test")
    logger.addHandler(carrier)
    try:
        EventLog("pgjobq.test").error("job.failed", extra={"job_id": "a"}, exc_info=ValueError("no luck"))
    finally:
        logger.removeHandler(carrier)
    lines.handler.handle(carried.get_nowait())
    assert lines()[0].endswith(" ERROR job.failed job_id=a")


def test_event_has_the_place_of_the_logging_call(caplog: pytest.LogCaptureFixture) -> None:
    EventLog("pgjobq.test").warning("here")
    (record,) = caplog.records
    assert (record.filename, record.funcName) == ("test_events.py", "test_event_has_the_place_of_the_logging_call")


def test_times_have_milliseconds_and_a_zone() -> None:
    record = logging.makeLogRecord({"name": "pgjobq.test", "msg": "here", "created": 1900000000.1239})
    time = EventFormatter(as_json=False).format(record).split()[0]
    assert datetime.fromisoformat(time).timestamp() == pytest.approx(1900000000.123)
    assert datetime.fromisoformat(time).tzinfo is not None


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


@pytest.mark.parametrize("as_json", [True, False])
def test_lines_of_other_loggers_are_one_line_and_name_the_logger(as_json: bool) -> None:
    fields = {"name": "urllib3.connectionpool", "msg": "pool\nis %s", "args": ("full",), "event": 5, "x": Hostile()}
    line = EventFormatter(as_json=as_json).format(logging.makeLogRecord(fields))
    assert "\n" not in line
    if as_json:
        record = json.loads(line)
        assert (record["event"], record["logger"], record["event_"]) == ("pool\nis full", "urllib3.connectionpool", 5)
    else:
        assert "pool\\nis full logger=urllib3.connectionpool event_=5 x=" in line


def test_drivers_are_quiet_below_warning() -> None:
    root = logging.getLogger()
    kept, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("urllib3", "botocore", "pymongo")}
    try:
        configure(as_json=False, level="info")
        assert not any(logging.getLogger(name).isEnabledFor(logging.INFO) for name in levels)
        assert all(logging.getLogger(name).isEnabledFor(logging.WARNING) for name in levels)
    finally:
        root.handlers[:] = kept
        root.setLevel(level)
        for name, before in levels.items():
            logging.getLogger(name).setLevel(before)


def test_retry_with_a_reason_is_logged_without_a_traceback(
    queue: JobQueue, registry: Registry, heard: Callable[..., Lines]
) -> None:
    lines = heard(logging.Formatter("%(message)s"))

    @job(registry=registry, max_retries=1)
    def busy() -> None:
        raise Retry(0, "rate limit")

    ran(queue, registry, busy)
    assert [line for line in lines() if "rate limit" in line and line.startswith("job.retried")]
    assert "Traceback" not in lines.stream.getvalue()
