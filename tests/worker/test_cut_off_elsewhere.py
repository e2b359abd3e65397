"""A worker on another database than PostgreSQL logs that its network drops everything, and stops in time."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest
from helpers.sqlalchemy_databases import mariadb_database, postgres_url
from helpers.stalling_proxy import StallingProxy
from helpers.until import until

from pgjobq import JobQueue, JobStatus, Registry, Worker, job
from pgjobq.connect import open_storage

GRACE, BOUND = 0.5, 5.0  # seconds
URLS = ["empty_dsn", "mariadb_url", "redis_url", "mongo_url", "dynamodb_url"]


def proxied(url: str, ends: ExitStack) -> tuple[str, StallingProxy]:
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    proxy = ends.enter_context(StallingProxy(parts.hostname, parts.port))
    return url.replace(f":{parts.port}", f":{proxy.port}", 1), proxy


@pytest.mark.parametrize("fixture", URLS)
def test_worker_stops_in_time_when_the_network_drops_everything(
    request: pytest.FixtureRequest, fixture: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    began, go, registry = threading.Event(), threading.Event(), Registry()

    @job(registry=registry)
    def waits() -> None:
        began.set()
        go.wait(30)

    with ExitStack() as ends:
        url = request.getfixturevalue(fixture)
        if fixture == "empty_dsn":
            url = f"sqlalchemy+{postgres_url(url)}"
        elif fixture == "mariadb_url":
            url = ends.enter_context(mariadb_database(url))
        through, proxy = proxied(url, ends)
        if fixture == "mongo_url":
            through = f"{through}/?directConnection=true"  # without this the client connects to the address that the server reports
        if fixture == "dynamodb_url":
            through = f"dynamodb://test/t_{secrets.token_hex(6)}?endpoint={through}"
        storage = open_storage(through)
        ends.callback(storage.close)
        queue = JobQueue(storage, registry=registry)
        job_id = queue.enqueue(waits)
        worker = Worker(queue, registry=registry)
        worker.start()
        assert began.wait(10)
        ends.callback(go.set)
        proxy.stall()
        began_at = time.monotonic()
        with caplog.at_level(logging.WARNING):
            worker.stop(grace=GRACE)
        took = time.monotonic() - began_at
        proxy.flow()
        # The threads that the worker leaves behind must end before the next test.
        left = [
            thread
            for thread in threading.enumerate()
            if thread.name.startswith("pgjobq-") and "-run-" not in thread.name
        ]
        for thread in left:
            thread.join(30)
        assert took < GRACE + BOUND
        lines: list[Any] = [record for record in caplog.records if getattr(record, "event", "") == "worker.unsettled"]
        assert [line.job_ids for line in lines] == [job_id]
        found = until(lambda: queue.get_job(job_id))
        assert found.status in {JobStatus.RUNNING, JobStatus.PENDING}
