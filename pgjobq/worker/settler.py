"""The loop that settles jobs, in batches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from pgjobq.errors import InvalidJob, JobsHeld, StorageUnavailable
from pgjobq.events import EventLog
from pgjobq.storage.base import BaseStorage, Completed, Outcome, Released
from pgjobq.worker.contact import Contact
from pgjobq.worker.in_flight import InFlight
from pgjobq.worker.loop import Loop
from pgjobq.worker.running import log_fields, verdict

log = EventLog("pgjobq.worker")

MAX_BATCH = 1000  # outcomes
MANY_OUTCOMES = 10  # if at least this many outcomes wait, linger for a larger batch
LINGER = 0.004  # seconds to linger
RETRY_MIN, RETRY_MAX = 1.0, 60.0  # seconds before deferred outcomes are tried again
AWAY_ERRORS = (StorageUnavailable, OSError)  # errors of the connection, which no outcome causes
NAMED = 10  # deferred outcomes that each get a log line of their own; the rest are counted


class Settler(Loop):
    """Settles a single outcome at once. Under load it waits a few milliseconds for a batch.

    An outcome is kept until the database has stored it. While the database does not answer, the settler retries the
    batch. This is safe, because settling twice has the same effect as once. After any other error it halves the batch
    until it has found the outcomes that cause the error. It defers these and tries them again later, so they do not
    delay the others.
    """

    name = "settle"

    def __init__(self, storage: BaseStorage, in_flight: InFlight, *, contact: Contact | None = None) -> None:
        super().__init__(contact)
        self._storage, self._in_flight = storage, in_flight
        self._notes = in_flight.notes
        self._under_way: list[Outcome] = []
        self._deferred: list[Outcome] = []
        self._retry_at, self._retry_pause = 0.0, RETRY_MIN

    def run_once(self) -> None:
        """Wait for outcomes and settle them. Also settle the deferred ones if their time has come."""
        if self._in_flight.has_outcome.wait(self._notes.patience(1.0) if self._notes else 1.0):
            if len(self._in_flight.outcomes) >= MANY_OUTCOMES:
                time.sleep(LINGER)
            self._settle_batch()
        if self._notes:
            self._notes.write(self._storage)
        if self._deferred and time.monotonic() >= self._retry_at:
            self._try_again()

    def stop(self) -> None:
        """Ask the loop to end. flush() settles the remaining outcomes."""
        super().stop()
        self._in_flight.has_outcome.set()

    def unsettled(self) -> list[Outcome]:
        """Return the outcomes that the database has not confirmed."""
        return [*self._under_way, *(outcome for outcome in list(self._in_flight.outcomes) if outcome), *self._deferred]

    def flush(self, seconds: float) -> bool:
        """Wait for the loop to end, then settle the remaining outcomes. Gives up after `seconds`.

        Returns whether the database has answered. A job whose outcome cannot be settled even now is released. If that
        fails too, the job is left to be rescued.
        """
        deadline = time.monotonic() + seconds
        if not self.join(seconds):
            return False
        while True:
            try:
                while self._in_flight.outcomes:
                    self._settle_batch()
                self._notes.write(self._storage, everything=True)
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
            if self._notes:
                self._notes.write(self._storage, batch)
            self._settle(batch)

    def _try_again(self) -> None:
        outcomes, self._deferred = self._deferred, []
        self._retry_pause = min(self._retry_pause * 2, RETRY_MAX)
        if outcomes:
            self._settle(outcomes)
        if not self._deferred:
            self._retry_pause = RETRY_MIN

    def _settle(self, outcomes: list[Outcome]) -> None:
        """Settle these outcomes, and defer those that cannot be. If the database is away, put them back and raise."""
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
            except JobsHeld as error:  # the other outcomes of the part are settled
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
                elif (other := _in_ascii(part[0]) or _without_result(part[0], error)) is not None:
                    parts.append([other])
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
                self._storage.settle([Released(outcome.job, ran=True)])
                log.warning("job.given_back", extra=_outcome_fields(outcome))
            except AWAY_ERRORS:
                raise
            except Exception as error:
                log.error("job.left_to_rescue", extra={**_outcome_fields(outcome), "error": str(error)})
            self._deferred.pop()


def _in_ascii(outcome: Outcome) -> Outcome | None:
    """Return the outcome with its error in ASCII, which every database encoding has; None if that changes nothing."""
    if isinstance(outcome, Completed | Released) or outcome.error is None:
        return None
    plain = outcome.error.replace("\0", "\\0").encode("ascii", "backslashreplace").decode()
    return None if plain == outcome.error else replace(outcome, error=plain)


def _without_result(outcome: Outcome, error: Exception) -> Outcome | None:
    """Return the failure of a job whose result the storage refuses; None if that is not what is wrong."""
    if isinstance(outcome, Completed) and outcome.result is not None and isinstance(error, InvalidJob):
        return verdict(outcome.job, None, InvalidJob(str(error), field="result"))  # without its traceback
    return None


def _outcome_fields(outcome: Outcome) -> dict[str, object]:
    return {**log_fields(outcome.job), "outcome": type(outcome).__name__}
