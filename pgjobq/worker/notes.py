"""What running jobs report of themselves, until the settler has written it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pgjobq.errors import JobsHeld, StorageUnavailable
from pgjobq.events import EventLog
from pgjobq.models import Job
from pgjobq.reports import Line, Report
from pgjobq.storage.base import BaseStorage, Outcome
from pgjobq.worker.running import log_fields

log = EventLog("pgjobq.worker")

EVERY = 1.0  # seconds between two writes for a job


class Note:
    """What one start of a job has reported and the settler has not written."""

    __slots__ = ("due_at", "job", "lines", "report", "reported_at")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.report: Report | None = None
        self.lines: list[Line] = []
        self.reported_at = -math.inf  # when a report was last written
        self.due_at = math.inf


class Notes:
    """Keeps the last report of each job, and the lines that it has logged.

    The first report is due at once, later ones a second after the one before, and lines a second after the first.
    The handlers' threads add them, and the settler writes them, so that no handler waits for the database. A job
    that reports nothing costs nothing.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        # Reentrant, because a signal handler or a finalizer may report while its thread holds the lock.
        self._lock = threading.RLock()
        self._notes: dict[int, Note] = {}  # by the identity of the job, because a job may be started again

    def __bool__(self) -> bool:
        return bool(self._notes)

    def report(self, job: Job, report: Report) -> None:
        """Take a report, which replaces the one before. Any thread may call it."""
        with self._lock:
            note = self._note(job)
            note.report = report
            note.due_at = min(note.due_at, note.reported_at + EVERY)
            is_due = note.due_at <= time.monotonic()
        if is_due:
            self._wake()

    def line(self, job: Job, line: Line) -> None:
        """Take a line that a handler has logged. Any thread may call it."""
        with self._lock:
            note = self._note(job)
            note.lines.append(line)
            note.due_at = min(note.due_at, time.monotonic() + EVERY)

    def patience(self, longest: float) -> float:
        """Return the seconds until something is due, at most these."""
        with self._lock:
            due_at = min((note.due_at for note in self._notes.values()), default=math.inf)
        return max(0.0, min(longest, due_at - time.monotonic()))

    def write(self, storage: BaseStorage, outcomes: Iterable[Outcome] = (), *, everything: bool = False) -> None:
        """Write what is due, and all that the jobs of these outcomes have reported. Never raises an Exception.

        While the database does not answer, everything is kept for a later call.
        """
        reports, lines = self._take([outcome.job for outcome in outcomes], everything)
        left = each_that_can(storage.save_progress, reports, "progress.unwritten")
        lines_left = each_that_can(storage.save_lines, lines, "logs.unwritten")
        with self._lock:
            for job, report in left:
                note = self._keep(job)
                note.report = note.report or report
            for job, line in reversed(lines_left):
                self._keep(job).lines.insert(0, line)

    def _note(self, job: Job) -> Note:
        note = self._notes.get(id(job))
        if note is None:
            note = self._notes[id(job)] = Note(job)
        return note

    def _take(self, ended: Sequence[Job], everything: bool) -> tuple[list[tuple[Job, Report]], list[tuple[Job, Line]]]:
        now = time.monotonic()
        reports: list[tuple[Job, Report]] = []
        lines: list[tuple[Job, Line]] = []
        with self._lock:
            last = [note for job in ended if (note := self._notes.pop(id(job), None)) is not None]
            due = [note for note in self._notes.values() if everything or note.due_at <= now]
            for note in (*last, *due):
                if note.report is not None:
                    reports.append((note.job, note.report))
                    note.report, note.reported_at = None, now
                lines += [(note.job, line) for line in note.lines]
                note.lines, note.due_at = [], math.inf
            for note in [note for note in self._notes.values() if note.due_at == math.inf]:
                if note.reported_at + EVERY < now:  # a later report makes another note, which is due at once, too
                    del self._notes[id(note.job)]
        return reports, lines

    def _keep(self, job: Job) -> Note:
        """Return the note of a job whose report or lines could not be written; they are due again in a second."""
        note = self._note(job)
        note.due_at = time.monotonic() + EVERY
        return note


def each_that_can(
    save: Callable[[Sequence[tuple[Job, Any]]], None], items: list[tuple[Job, Any]], event: str
) -> list[tuple[Job, Any]]:
    """Save these items; if that fails, one by one, and log those that fail again. Return those to try again later."""
    parts = [items] if items else []
    held: list[tuple[Job, Any]] = []
    while parts:
        part = parts.pop()
        try:
            save(part)
        except (StorageUnavailable, OSError):
            return held + [item for some in (part, *reversed(parts)) for item in some]
        except Exception as error:
            if len(part) > 1:
                parts += [[item] for item in reversed(part)]
            elif isinstance(error, JobsHeld):
                held += part
            else:
                log.warning(event, extra={**log_fields(part[0][0]), "error": error})
    return held
