"""The steps of stopping a worker. Steps that call the database have a time limit, because it may not answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pgjobq.events import EventLog
from pgjobq.outcomes import Outcome

log = EventLog("pgjobq.worker")

END_TIME = 3.0  # seconds after the grace; the program then has about one more to close the storage and exit
LEAVE_TIME = 1.0  # the part of END_TIME that is reserved for leaving
NAMED = 100  # the most job ids in a log line


class Step:
    """Runs one step of stopping in its own daemon thread, because a call to the database may block for a long time."""

    def __init__(self, name: str, step: Callable[[], object]) -> None:
        self._name, self._step = name, step
        self._thread = threading.Thread(target=self._run, name=f"pgjobq-{name}", daemon=True)
        self._thread.start()

    def join(self, until: float) -> bool:
        """Wait for the step, at most until `until` on the monotonic clock. Returns whether it has ended."""
        self._thread.join(max(0.0, until - time.monotonic()))
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._step()
        except Exception as error:  # a storage may raise anything, and the other steps must still run
            log.warning(f"worker.{self._name}_failed", extra={"error": error})


def log_unsettled(outcomes: list[Outcome]) -> None:
    """Log the ids of the jobs whose outcomes could not be settled."""
    ids = list(dict.fromkeys(outcome.job.id for outcome in outcomes))
    log.error(
        "worker.unsettled",
        extra={
            "jobs": len(ids),
            "job_ids": " ".join(ids[:NAMED]),
            "error": "the database did not answer; other workers will get the jobs whose outcomes it has not stored",
        },
    )
