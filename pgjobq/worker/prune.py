"""The loop that deletes old jobs that have finished."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from pgjobq.arrival import FINISHED
from pgjobq.errors import ConfigurationError
from pgjobq.events import EventLog
from pgjobq.storage.base import BaseStorage
from pgjobq.worker.contact import Contact
from pgjobq.worker.loop import Loop

log = EventLog("pgjobq.worker")

TELL_EVERY = 60.0  # seconds between two log lines

Keep = timedelta | Mapping[str, timedelta]  # of completed and cancelled jobs, or of each status


class PruneLoop(Loop):
    """Deletes batches of jobs that finished longer ago than keep, as often as the storage asks for.

    keep: for completed and cancelled jobs; or a dict with an age for each final status, where jobs of a status that it
    leaves out are kept.
    queues: the queues that the worker serves. It does not prune other queues, whose workers may keep jobs for longer.
    """

    name = "prune"

    def __init__(
        self, storage: BaseStorage, keep: Keep, queues: Sequence[str] | None, *, contact: Contact | None = None
    ) -> None:
        super().__init__(contact)
        self._storage = storage
        self._ages: dict[timedelta, dict[str, Any]] = {}  # each with the arguments for its statuses
        if isinstance(keep, Mapping):
            for status, age in keep.items():
                self._ages.setdefault(age, {"statuses": []})["statuses"].append(str(status))
        else:
            self._ages[keep] = {}
        # Passed only if given, because a storage without queues does not accept the argument.
        self._served = {} if queues is None else {"queues": list(queues)}
        self._pruned, self._tell_at = 0, 0.0

    def run_once(self) -> None:
        """Delete one batch, and wait."""
        again_in = TELL_EVERY
        for age, statuses in self._ages.items():
            pruned = self._storage.prune_some(age, **self._served, **statuses)
            self.contact.answered(self.name)
            self._pruned += pruned.jobs
            again_in = min(again_in, pruned.again_in)
        if self._pruned and time.monotonic() >= self._tell_at:
            log.info("jobs.pruned", extra={"jobs": self._pruned})
            self._pruned, self._tell_at = 0, time.monotonic() + TELL_EVERY
        self.stopping.wait(again_in)


def check_keep(keep: Keep, storage: BaseStorage) -> None:
    """Raise ConfigurationError for what is no age or no final status, and for a storage that cannot delete them."""
    kind = type(storage)
    by_status = keep if isinstance(keep, Mapping) else {}
    for status in by_status:
        if status not in FINISHED:
            raise ConfigurationError(f"keep: {status!r} is not a final status; use {', '.join(FINISHED)}")
    for age in by_status.values() if by_status else (keep,):
        if not isinstance(age, timedelta) or age < timedelta(0):
            raise ConfigurationError(f"keep: {age!r} is not allowed; use a timedelta of 0 or more, or None to keep all")
    if by_status and "statuses" not in inspect.signature(kind.prune_some).parameters:
        raise ConfigurationError(f"keep: {kind.__name__} cannot prune by status; use one timedelta")
    if kind.prune is BaseStorage.prune and kind.prune_some is BaseStorage.prune_some:
        raise ConfigurationError(f"keep: {kind.__name__} cannot prune jobs; leave out keep")


def completed_age(keep: Keep) -> timedelta | None:
    """Return how long completed jobs are kept; None: forever."""
    return keep.get("completed") if isinstance(keep, Mapping) else keep
