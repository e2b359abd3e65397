"""Jobs to copy from one storage to another."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pgjobq import BaseStorage, Job, NewJob
from pgjobq.copying import CopyReport, copy_jobs
from pgjobq.storage.base import Completed, Failed, Outcome, Retried

LATER = datetime(2090, 1, 31, 9, 0, 0, 123456, UTC)
DATA: dict[str, Any] = {"text": "Ünal \U0001f40d\n\\u0000", "n": [1, -2.5, None, True, {}], "": "empty key"}


def copied(source: Any, destination: BaseStorage, batch: int = 500) -> CopyReport:
    """Copy all jobs and return the final report."""
    *_, report = copy_jobs(source, destination, batch)
    return report


def all_of(storage: BaseStorage) -> dict[str, Job]:
    return {job.id: job for job in storage.list_jobs()}


def fill(storage: BaseStorage) -> None:
    """Add a job in every state that a caller can bring about."""
    ends = ("completed", "failed", "tried", "running", "used-up")
    storage.enqueue_many(
        [
            *[
                NewJob(id=name, type="t", data=DATA, priority=9, max_retries=0 if name == "used-up" else 3)
                for name in ends
            ],
            NewJob(id="plain", type="t"),
            NewJob(id="cancelled", type="t", queue="mail", data={"to": "a@b.c"}),
            NewJob(id="later", type="Größe", queue="mail", priority=-7, max_retries=0, execute_at=LATER),
        ]
    )
    held = {job.id: job for job in storage.dequeue_many(5)}
    assert set(held) == set(ends)
    outcomes: list[Outcome] = [
        Completed(held["completed"]),
        Failed(held["failed"], "ValueError: Ü\nTraceback"),
        Retried(held["tried"], 3600, "KeyError: 'x'"),
    ]
    assert storage.settle(outcomes) == []
    storage.cancel("cancelled")
