"""The loop that settles jobs, in batches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from pgjobq.errors import JobsHeld, StorageUnavailable
from pgjobq.events import EventLog
from pgjobq.storage.base import BaseStorage, Completed, Outcome, Released
from pgjobq.worker.contact import Contact
from pgjobq.worker.in_flight import InFlight
from pgjobq.worker.loop import Loop
from pgjobq.worker.running import log_fields

log = EventLog("pgjobq.worker")

MAX_BATCH = 1000  # outcomes
MANY_OUTCOMES = 10  # with this many outcomes waiting, linger for a bigger batch
LINGER = 0.004  # seconds to linger
RETRY_MIN, RETRY_MAX = 1.0, 60.0  # seconds before those set aside are tried again
AWAY_ERRORS = (StorageUnavailable, OSError)  # errors that no outcome causes
NAMED = 10  # outcomes set aside that the log names one by one, each time


class Settler(Loop):
    """Settles a lone outcome at once; under load waits a few milliseconds for a batch.

    An outcome is kept until the database has taken it. While the database is away the batch is tried again, which is
    safe, because settling twice is the same as once. After any other error the batch is halved until the outcomes
    that cause it are found; those are set aside and tried again later, and hold up no other.
    """

    name = "settle"

    def __init__(self, storage: BaseStorage, in_flight: InFlight, *, contact: Contact | None = None) -> None:
        super().__init__(contact)
        self._storage, self._in_flight = storage, in_flight
        self._under_way: list[Outcome] = []
        self._deferred: list[Outcome] = []
        self._retry_at, self._retry_pause = 0.0, RETRY_MIN

    def run_once(self) -> None:
        """Settle what has come, and what was set aside when its time has come; wait for the first."""
        if self._in_flight.has_outcome.wait(1.0):
            if len(self._in_flight.outcomes) >= MANY_OUTCOMES:
                time.sleep(LINGER)
            self._settle_batch()
        if self._deferred and time.monotonic() >= self._retry_at:
            self._try_again()

    def stop(self) -> None:
        """End soon; flush() settles what is left."""
        super().stop()
        self._in_flight.has_outcome.set()

    def unsettled(self) -> list[Outcome]:
        """The outcomes that the database has not taken, or has not said that it took."""
        return [*self._under_way, *(outcome for outcome in list(self._in_flight.outcomes) if outcome), *self._deferred]

    def flush(self, seconds: float) -> bool:
        """When the loop has ended, settle what is left, trying for so long; whether the database has answered.

        A job whose outcome cannot be settled even now is given back, or left to rescue when that cannot be done either.
        """
        deadline = time.monotonic() + seconds
        if not self.join(seconds):
            return False
        while True:
            try:
                while self._in_flight.outcomes:
                    self._settle_batch()
                self._try_again()
                self._give_back()
                return True
            except Exception as error:
                if isinstance(error, StorageUnavailable):
                    self.contact.lost(self.name, error)
                else:
                    log.warning("settle.error", extra={"error": error})
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.2)

    def _settle_batch(self) -> None:
        batch = self._in_flight.take_outcomes(MAX_BATCH)
        if self._in_flight.outcomes:
            self._in_flight.has_outcome.set()
        if batch:
            self._settle(batch)

    def _try_again(self) -> None:
        outcomes, self._deferred = self._deferred, []
        self._retry_pause = min(self._retry_pause * 2, RETRY_MAX)
        if outcomes:
            self._settle(outcomes)
        if not self._deferred:
            self._retry_pause = RETRY_MIN

    def _settle(self, outcomes: list[Outcome]) -> None:
        """Settle these; set aside those that cannot be. Raises when the database is away, and puts them back."""
        self._under_way = outcomes
        try:
            self._settle_parts(outcomes)
        finally:
            self._under_way = []

    def _settle_parts(self, outcomes: list[Outcome]) -> None:
        culprits: list[tuple[Outcome, Exception]] = []
        parts = [outcomes]
        while parts:
            part = parts.pop()
            try:
                lost = self._storage.settle(part)
                self.contact.answered(self.name)
            except JobsHeld as error:  # the others are settled
                lost = error.lost
                culprits += [(outcome, error) for outcome in error.outcomes]
            except Exception as error:
                if isinstance(error, AWAY_ERRORS):
                    self._in_flight.put_back([outcome for some in (part, *reversed(parts)) for outcome in some])
                    if culprits:
                        self._defer(culprits)
                    raise
                if len(part) > 1:
                    half = len(part) // 2
                    parts += [part[half:], part[:half]]
                elif (in_ascii := _in_ascii(part[0])) is not None:
                    parts.append([in_ascii])
                else:
                    culprits.append((part[0], error))
                continue
            for outcome in lost:
                log.warning("job.lost", extra=_outcome_fields(outcome))
        if culprits:
            self._defer(culprits)

    def _defer(self, culprits: Sequence[tuple[Outcome, Exception]]) -> None:
        if not self._deferred:
            self._retry_at = time.monotonic() + self._retry_pause
        self._deferred += [outcome for outcome, _ in culprits]
        retry_in = round(self._retry_at - time.monotonic(), 3)
        for outcome, error in culprits[:NAMED]:
            log.error("job.unsettled", extra={**_outcome_fields(outcome), "error": str(error), "retry_in": retry_in})
        if len(culprits) > NAMED:
            log.error("jobs.unsettled", extra={"more": len(culprits) - NAMED, "retry_in": retry_in})

    def _give_back(self) -> None:
        while self._deferred:
            outcome = self._deferred[-1]
            try:
                self._storage.settle([Released(outcome.job)])
                log.warning("job.given_back", extra=_outcome_fields(outcome))
            except AWAY_ERRORS:
                raise
            except Exception as error:
                log.error("job.left_to_rescue", extra={**_outcome_fields(outcome), "error": str(error)})
            self._deferred.pop()


def _in_ascii(outcome: Outcome) -> Outcome | None:
    """The same with its error in ASCII, which every encoding of a database has; None when that changes nothing."""
    if isinstance(outcome, Completed | Released) or outcome.error is None:
        return None
    plain = outcome.error.replace("\0", "\\0").encode("ascii", "backslashreplace").decode()
    return None if plain == outcome.error else replace(outcome, error=plain)


def _outcome_fields(outcome: Outcome) -> dict[str, object]:
    return {**log_fields(outcome.job), "outcome": type(outcome).__name__}
