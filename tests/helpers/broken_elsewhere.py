"""Broken storages that child processes create. This module imports little, so that the processes start quickly."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from sqlalchemy import text

from pgjobq.models import Job
from pgjobq.outcomes import Outcome
from pgjobq.storage.sqlalchemy_storage import SQLAlchemyStorage


class FileStorage(SQLAlchemyStorage):
    """A storage in a SQLite file, which every process can open."""


class FailsElsewhere(FileStorage):
    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        if multiprocessing.parent_process() is not None:
            raise OSError("no such folder here")


class SharesNothingElsewhere(FileStorage):
    def __init__(self, url: str, **options: Any) -> None:
        elsewhere = multiprocessing.parent_process() is not None
        super().__init__("sqlite:///:memory:" if elsewhere else url, **options)


class SelectsThenStartsElsewhere(FileStorage):
    def dequeue_many(self, limit: int, queues: Sequence[str] | None = None) -> list[Job]:
        found = super().list_jobs("pending")[:limit]
        for job in found:
            self._change(job.id, "status = 'running', attempts = attempts + 1")
        return [replace(job, attempts=job.attempts + 1) for job in found]

    def complete(self, job_id: str) -> None:
        self._change(job_id, "status = 'completed'")

    def _change(self, job_id: str, changes: str) -> None:
        with self.engine.begin() as conn:
            conn.execute(text(f"update jobs set {changes} where id = :id"), {"id": job_id})


class NeverRescuesElsewhere(FileStorage):
    def rescue(self) -> int:
        return 0


class NoFencingElsewhere(SelectsThenStartsElsewhere):
    def dequeue_many(self, limit: int, queues: Sequence[str] | None = None) -> list[Job]:
        return FileStorage.dequeue_many(self, limit, queues)


class ReopensAnother(FileStorage):
    def reopener(self) -> Callable[[], SQLAlchemyStorage] | None:
        return partial(SQLAlchemyStorage, "sqlite:///:memory:")


class LosesWhatWasCompletedElsewhere(FileStorage):
    def _settle(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        lost = [outcome for outcome in outcomes if (job := self.get_job(outcome.job.id)) and job.status != "running"]
        return lost or super()._settle(outcomes)
