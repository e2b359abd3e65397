"""Shared helpers for the tests of SQLAlchemyStorage."""

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
    """Return the status of a job that exists."""
    found = storage.get_job(job_id)
    assert found is not None
    return str(found.status)


@contextmanager
def closing(storage: SQLAlchemyStorage) -> Iterator[SQLAlchemyStorage]:
    """Leave and close the storage at the end of the block."""
    try:
        yield storage
        storage.leave()
    finally:
        storage.close()
