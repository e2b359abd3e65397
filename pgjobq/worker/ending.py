"""The end of a worker, whatever the database does: steps that may wait for it have a limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pgjobq.events import EventLog
from pgjobq.outcomes import Outcome

log = EventLog("pgjobq.worker")

END_TIME = 3.0  # seconds beyond the grace; the program has about one more to close the storage and end
LEAVE_TIME = 1.0  # seconds of these that are kept for leaving
NAMED = 100  # jobs that a log line names


class Step:
    """A step of the end, in a thread of its own. It may be left behind there: a call that gets no answer ends late."""

    def __init__(self, name: str, step: Callable[[], object]) -> None:
        self._name, self._step = name, step
        self._thread = threading.Thread(target=self._run, name=f"pgjobq-{name}", daemon=True)
        self._thread.start()

    def join(self, until: float) -> bool:
        """Wait for its end, at most until then by the monotonic clock; whether it has ended."""
        self._thread.join(max(0.0, until - time.monotonic()))
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._step()
        except Exception as error:  # the others follow, whatever a storage raises
            log.warning(f"worker.{self._name}_failed", extra={"error": error})


def log_unsettled(outcomes: list[Outcome]) -> None:
    """Name the jobs whose outcomes could not be settled."""
    ids = list(dict.fromkeys(outcome.job.id for outcome in outcomes))
    log.error(
        "worker.unsettled",
        extra={
            "jobs": len(ids),
            "job_ids": " ".join(ids[:NAMED]),
            "error": "the database did not answer; what it has not taken is given to other workers",
        },
    )
