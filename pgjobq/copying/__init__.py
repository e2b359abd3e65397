"""copy_jobs copies jobs, with their state, from one storage to another."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pgjobq.errors import InvalidJob
from pgjobq.models import Job, JobStatus
from pgjobq.storage.base import BaseStorage

BATCH = 500  # jobs read and written at once
MAX_BATCH_DATA = 8_000_000  # characters of data written at once, because databases limit the size of a statement


class Source(Protocol):
    """The source of a copy: a storage, or anything with export_jobs."""

    def export_jobs(self, batch: int = ...) -> Iterator[list[Job]]:
        """Yield every job, in batches, the oldest first if the source has an order."""


@dataclass(kw_only=True)
class CopyReport:
    """The progress of a copy, as numbers of jobs.

    there: jobs whose id was already at the destination, where they are unchanged. running: jobs that were running at
    the source. refused: maps the ids of refused jobs to the reasons.
    """

    read: int = 0
    added: int = 0
    running: int = 0
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def there(self) -> int:
        """Jobs that were already at the destination."""
        return self.read - self.added - len(self.refused)


def copy_jobs(source: Source, destination: BaseStorage, batch: int = BATCH) -> Generator[CopyReport, None, None]:
    """Add the jobs of source to destination, with their state. Skips jobs whose id is already there.

    The caller must iterate over the result. It yields the same report before the first batch and after each batch. The
    copy can be repeated after an interrupt or an error, or to copy new jobs, and copies nothing twice. Only one batch
    is in memory. It is added in one transaction if the destination has transactions and the data is not too large.
    No worker should serve the source meanwhile, because jobs would run in both databases. BaseStorage.import_jobs
    describes how running jobs are copied.
    """
    report = CopyReport()
    yield report
    for jobs in source.export_jobs(batch):
        for some in _portions(jobs):
            _import(some, destination, report)
        report.read += len(jobs)
        report.running += sum(job.status is JobStatus.RUNNING for job in jobs)
        yield report


def _portions(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    portion: list[Job] = []
    size = 0
    for job in jobs:
        more = len(str(job.data))
        if portion and size + more > MAX_BATCH_DATA:
            yield portion
            portion, size = [], 0
        portion.append(job)
        size += more
    if portion:
        yield portion


def _import(jobs: list[Job], destination: BaseStorage, report: CopyReport) -> None:
    try:
        added = destination.import_jobs(jobs)
    except InvalidJob as error:
        # The destination has added none of the jobs. Halve the batch until the invalid job is alone.
        if len(jobs) == 1:
            report.refused[jobs[0].id] = str(error)
            return
        middle = len(jobs) // 2
        _import(jobs[:middle], destination, report)
        _import(jobs[middle:], destination, report)
    else:
        report.added += added
