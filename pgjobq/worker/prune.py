"""The loop that deletes old completed and cancelled jobs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta

from pgjobq.errors import ConfigurationError
from pgjobq.events import EventLog
from pgjobq.storage.base import BaseStorage
from pgjobq.worker.contact import Contact
from pgjobq.worker.loop import Loop

log = EventLog("pgjobq.worker")

TELL_EVERY = 60.0  # seconds between two log lines


class PruneLoop(Loop):
    """Deletes batches of completed and cancelled jobs that are older than keep, as often as the storage asks for.

    queues: the queues that the worker serves. It does not prune other queues, whose workers may keep jobs for longer.
    """

    name = "prune"

    def __init__(
        self, storage: BaseStorage, keep: timedelta, queues: Sequence[str] | None, *, contact: Contact | None = None
    ) -> None:
        super().__init__(contact)
        self._storage, self._keep = storage, keep
        # Passed only if given, because a storage without queues does not accept the argument.
        self._served = {} if queues is None else {"queues": list(queues)}
        self._pruned, self._tell_at = 0, 0.0

    def run_once(self) -> None:
        """Delete one batch, and wait."""
        pruned = self._storage.prune_some(self._keep, **self._served)
        self.contact.answered(self.name)
        self._pruned += pruned.jobs
        if self._pruned and time.monotonic() >= self._tell_at:
            log.info("jobs.pruned", extra={"jobs": self._pruned})
            self._pruned, self._tell_at = 0, time.monotonic() + TELL_EVERY
        self.stopping.wait(pruned.again_in)


def check_keep(keep: timedelta, storage: BaseStorage) -> None:
    """Raise ConfigurationError for what is no age, and for a storage that deletes nothing."""
    if not isinstance(keep, timedelta) or keep < timedelta(0):
        raise ConfigurationError(f"keep: {keep!r} is not allowed; use a timedelta of 0 or more, or None to keep all")
    kind = type(storage)
    if kind.prune is BaseStorage.prune and kind.prune_some is BaseStorage.prune_some:
        raise ConfigurationError(f"keep: {kind.__name__} cannot prune jobs; leave out keep")
