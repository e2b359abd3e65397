"""The loop that deletes finished jobs past their age."""

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
    """Deletes some completed and cancelled jobs older than keep, as often as the storage says.

    queues: those that the worker serves. How long the jobs of others are kept is for their workers to say.
    """

    name = "prune"

    def __init__(
        self, storage: BaseStorage, keep: timedelta, queues: Sequence[str] | None, *, contact: Contact | None = None
    ) -> None:
        super().__init__(contact)
        self._storage, self._keep = storage, keep
        # A storage without queues need not know of them.
        self._served = {} if queues is None else {"queues": list(queues)}
        self._pruned, self._tell_at = 0, 0.0

    def run_once(self) -> None:
        """Delete some, and wait."""
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
        raise ConfigurationError(f"keep: {keep!r} is not allowed; give a timedelta of 0 or more, or None for all")
    kind = type(storage)
    if kind.prune is BaseStorage.prune and kind.prune_some is BaseStorage.prune_some:
        raise ConfigurationError(f"keep: {kind.__name__} cannot prune jobs; leave keep out")
