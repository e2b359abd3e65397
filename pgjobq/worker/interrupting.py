"""Ending the statements of handlers whose outcome counts no more."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from pgjobq.events import EventLog
from pgjobq.storage.base import JobTransaction

log = EventLog("pgjobq.worker")

AGAIN_MIN, AGAIN_MAX = 0.05, 5.0  # seconds between two interrupts of a transaction that goes on


def interrupt(transactions: Sequence[JobTransaction]) -> None:
    """End the statements that run in these transactions, again and again until the transactions have ended.

    In a thread of its own: an interrupt waits for the database. A transaction may be between two statements, and only
    one that runs can be ended.
    """
    threading.Thread(target=_interrupt, args=(list(transactions),), name="pgjobq-interrupt", daemon=True).start()


def _interrupt(transactions: list[JobTransaction]) -> None:
    pause = AGAIN_MIN
    while transactions:
        transactions = [transaction for transaction in transactions if _goes_on(transaction)]
        time.sleep(pause if transactions else 0.0)
        pause = min(pause * 2, AGAIN_MAX)


def _goes_on(transaction: JobTransaction) -> bool:
    try:
        return transaction.interrupt()
    except Exception as error:  # the database does not answer
        log.debug("interrupt.error", extra={"error": error})
        return True
