"""Helpers that inspect and start the jobs of a SQLAlchemyStorage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pgjobq.models import Job
from pgjobq.storage.sqlalchemy_storage import SQLAlchemyStorage


def start(storage: SQLAlchemyStorage) -> Job:
    """Start the next job and return it."""
    found = storage.dequeue()
    assert found is not None
    return found


def status(storage: SQLAlchemyStorage, job_id: str) -> str:
    """Return the status of a job, which must exist."""
    found = storage.get_job(job_id)
    assert found is not None
    return str(found.status)


@contextmanager
def closing(storage: SQLAlchemyStorage) -> Iterator[SQLAlchemyStorage]:
    """Yield the storage. At the end it leaves and closes."""
    try:
        yield storage
        storage.leave()
    finally:
        storage.close()
