"""Jobs of a SQLAlchemyStorage, for its tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pgjobq.models import Job
from pgjobq.storage.sqlalchemy_storage import SQLAlchemyStorage


def start(storage: SQLAlchemyStorage) -> Job:
    """The start of the next job."""
    found = storage.dequeue()
    assert found is not None
    return found


def status(storage: SQLAlchemyStorage, job_id: str) -> str:
    """The status of a job that is there."""
    found = storage.get_job(job_id)
    assert found is not None
    return str(found.status)


@contextmanager
def closing(storage: SQLAlchemyStorage) -> Iterator[SQLAlchemyStorage]:
    """A storage that leaves and closes at the end."""
    try:
        yield storage
        storage.leave()
    finally:
        storage.close()
