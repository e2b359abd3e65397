"""Handlers for the load test's workers. Run `pgjobq worker handlers --queues loadtest` in this folder.

If LOADTEST_RUNS names a folder, each run is recorded in a file there, with its job and attempt. These files prove what
ran, independently of the database.
"""

from __future__ import annotations

import asyncio
import os
from functools import cache
from pathlib import Path

from pgjobq import Fail, Retry, RunningJob, job

MAIL_SECONDS = 0.005  # a mail server on the same network takes about this long


@job(type="loadtest.mail")
async def send_mail(job: RunningJob, to: str, fails: int = 0) -> None:
    """Wait on the event loop, as for a mail server. The first `fails` tries fail."""
    _write_down(job)
    await asyncio.sleep(MAIL_SECONDS)
    if job.attempts <= fails:
        raise Retry(0.2, f"the mail server of {to} is down (simulated)")


@job(type="loadtest.invoice")
def write_invoice(job: RunningJob, order_id: int) -> None:
    """Mark the order in the transaction that completes the job."""
    with job.transaction() as conn:
        _write_down(job)
        conn.execute("update pgjobq_loadtest.orders set invoices = invoices + 1 where id = %s", [order_id])


@job(type="loadtest.row")
def take_row(job: RunningJob, n: int) -> None:
    """Process one row of an import, which takes almost no time."""
    _write_down(job)
    if n < 1:
        raise Fail("there is no such row")


@job(type="loadtest.question")
def answer(job: RunningJob) -> None:
    """Do nothing, so that EndToEndCaller measures only the queue."""
    _write_down(job)


def _write_down(job: RunningJob) -> None:
    if folder := os.environ.get("LOADTEST_RUNS"):
        os.write(_file(folder), f"{job.id} {job.attempts}\n".encode())


@cache
def _file(folder: str) -> int:
    path = Path(folder) / f"runs-{os.getpid()}"
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
