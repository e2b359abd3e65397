"""copy_jobs: jobs with their state from one storage to another."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pgjobq.errors import InvalidJob
from pgjobq.models import Job, JobStatus
from pgjobq.storage.base import BaseStorage

BATCH = 500  # jobs read and written at once
MAX_BATCH_DATA = 8_000_000  # characters of data written at once: statements have limits


class Source(Protocol):
    """Where jobs are read: a storage, or less."""

    def export_jobs(self, batch: int = ...) -> Iterator[list[Job]]:
        """Every job, in batches, the oldest first where there is an order."""


@dataclass(kw_only=True)
class CopyReport:
    """What a copy has done so far.

    there: jobs whose id was at the destination already, left as they are. running: those that were running at the
    source. refused: why the destination did not take a job, by the job's id.
    """

    read: int = 0
    added: int = 0
    running: int = 0
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def there(self) -> int:
        """Jobs that were there already."""
        return self.read - self.added - len(self.refused)


def copy_jobs(source: Source, destination: BaseStorage, batch: int = BATCH) -> Generator[CopyReport, None, None]:
    """Add the jobs of source to destination, with their state, unless their id is there already.

    Goes on while it is iterated over: gives the report, one and the same, before the first batch and after each.
    Repeat it after an interrupt, an error, or with new jobs at the source: nothing is copied twice. Only a batch is
    in memory, and it is added in one transaction, where the destination has any and the data is not too large.
    Nobody should work on the source meanwhile: its jobs would run at both ends. See BaseStorage.import_jobs for
    what becomes of running jobs.
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
        # All or none of them: halve until the bad one is alone.
        if len(jobs) == 1:
            report.refused[jobs[0].id] = str(error)
            return
        middle = len(jobs) // 2
        _import(jobs[:middle], destination, report)
        _import(jobs[middle:], destination, report)
    else:
        report.added += added
