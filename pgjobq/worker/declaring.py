"""Hands the schedules that a program declares to the storage, when a worker starts."""

from __future__ import annotations

import time
from collections.abc import Mapping

from pgjobq.errors import Unsupported
from pgjobq.events import EventLog
from pgjobq.schedules import Schedule
from pgjobq.storage.base import BaseStorage

log = EventLog("pgjobq.worker")

AGAIN = 5.0  # seconds until another try, if a schedule is locked


class Declarer:
    """Declares schedules once. Maintenance calls it, so it tries again until the database answers.

    Raises Unsupported if there are schedules, and the storage has none.
    """

    def __init__(self, storage: BaseStorage, declarations: Mapping[str, Schedule]) -> None:
        if declarations and type(storage).declare_schedules is BaseStorage.declare_schedules:
            raise Unsupported(
                f"@schedule: {type(storage).__name__} has no schedules; remove {', '.join(declarations)}, or use"
                " another storage"
            )
        self._storage, self._left = storage, dict(declarations)
        self._all, self._next_at = declarations, 0.0

    def run(self) -> None:
        """Declare the schedules that are not declared yet. Logs what became of each."""
        if not self._left or time.monotonic() < self._next_at:
            return
        self._next_at = time.monotonic() + AGAIN
        for one in self._storage.declare_schedules(self._all):
            if self._left.pop(one.id, None) is None:
                continue  # an earlier try has declared it
            if one.outcome == "held":
                self._left[one.id] = self._all[one.id]
            elif one.outcome == "refused":
                log.error("schedule.refused", extra={"schedule_id": one.id, "error": one.error})
            elif one.outcome != "kept":
                log.info(f"schedule.{one.outcome}", extra={"schedule_id": one.id})
