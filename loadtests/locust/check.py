"""The checks after a load test: every job was done, and none was started more often than allowed."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from ledger import Ledger
from target import Target, no_worker, unfinished, workers

LOOK = 0.1  # seconds between two checks whether the queue is drained
FETCH = 5000  # rows

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check. detail: a sentence that explains it."""

    name: str
    ok: bool
    detail: str


def server_time(conn: Connection) -> datetime:
    """Return the current time of the server's clock."""
    row = conn.execute("select clock_timestamp()").fetchone()
    assert row is not None  # the query always returns a row
    now: datetime = row[0]
    return now


def examine(
    conn: Connection, target: Target, ledger: Ledger, since: datetime, *, drain: float, runs: Path | None
) -> list[Finding]:
    """Return the findings about the jobs that were created since this time.

    drain: how many seconds the workers may still need to finish them. runs: the folder in which the handlers recorded
    their runs, if it is known.
    """
    drained = _drained(conn, target, drain)
    statuses = _statuses(conn, target, since)
    findings = [drained, _nothing_lost(ledger, statuses), _completed(conn, target, since, statuses)]
    findings.append(_starts(conn, target, since))
    if runs is not None:
        findings.append(_runs(conn, target, since, runs))
    return [*findings, _invoices(conn, target, since)]


def _drained(conn: Connection, target: Target, patience: float) -> Finding:
    began = time.monotonic()
    while left := unfinished(conn, target):
        if time.monotonic() - began > patience:
            detail = f"{left:,} jobs are not finished {patience:g} s after the last call"
            detail += "" if workers(conn, target) else f": {no_worker(target)}"
            return Finding(name="queue drained", ok=False, detail=detail)
        time.sleep(LOOK)
    waited = time.monotonic() - began
    return Finding(name="queue drained", ok=True, detail=f"{waited:.1f} s after the last call, at most {patience:g} s")


def _statuses(conn: Connection, target: Target, since: datetime) -> dict[str, Counter[str]]:
    """Return the numbers of jobs by type and status."""
    query = "select type, status, count(*) from {}.jobs where created_at >= %s and queue = %s group by type, status"
    found: dict[str, Counter[str]] = {}
    for job_type, status, jobs in conn.execute(target.sql(query), [since, target.queue]):
        found.setdefault(job_type, Counter())[status] = jobs
    return found


def _nothing_lost(ledger: Ledger, statuses: dict[str, Counter[str]]) -> Finding:
    enqueued, found, wrong = ledger.acknowledged.total(), 0, []
    for job_type in sorted({*ledger.acknowledged, *ledger.unsure, *statuses}):
        known, there = ledger.acknowledged[job_type], statuses.get(job_type, Counter()).total()
        found += there
        if not known <= there <= known + ledger.unsure[job_type]:
            wrong.append(f"{there:,} of {known:,} {job_type} jobs exist")
    detail = f"{enqueued:,} jobs enqueued, {found:,} found"
    if unsure := ledger.unsure.total():
        detail += f"; {unsure:,} more may have been committed by an enqueue without an answer"
    return Finding(name="nothing lost", ok=not wrong, detail="; ".join([detail, *wrong]))


def _completed(conn: Connection, target: Target, since: datetime, statuses: dict[str, Counter[str]]) -> Finding:
    by_status: Counter[str] = Counter()
    for counts in statuses.values():
        by_status += counts
    completed = by_status.pop("completed", 0)
    detail = f"{completed:,} jobs completed"
    if by_status:
        detail += f", {', '.join(f'{jobs:,} {status}' for status, jobs in sorted(by_status.items()))}"
    if by_status["failed"]:
        query = """select type, split_part(error, E'\n', 1) from {}.jobs
                    where failed_at >= %s and queue = %s and status = 'failed' limit 1"""
        row = conn.execute(target.sql(query), [since, target.queue]).fetchone()
        detail += f"; such as {row[0]}: {row[1]}" if row else ""
    return Finding(name="all completed", ok=not by_status, detail=detail)


def _starts(conn: Connection, target: Target, since: datetime) -> Finding:
    query = """select count(*), coalesce(sum(attempts), 0)::bigint, count(*) filter (where attempts > 1),
                      count(*) filter (where attempts > 1 + max_retries)
                 from {}.jobs where created_at >= %s and queue = %s"""
    row = conn.execute(target.sql(query), [since, target.queue]).fetchone()
    jobs, starts, again, often = row or (0, 0, 0, 0)
    detail = f"{starts:,} starts of {jobs:,} jobs, {again:,} of which were retried"
    if often:
        detail += f"; {often:,} were started more often than their retries allow"
    return Finding(name="no start too many", ok=not often, detail=detail)


def _runs(conn: Connection, target: Target, since: datetime, folder: Path) -> Finding:
    """Check by the handlers' files that each start ran at most once, and that each completed job ran."""
    runs = Counter(line for path in folder.glob("runs-*") for line in path.read_text().splitlines())
    twice = sum(1 for times in runs.values() if times > 1)
    tries = Counter(line.partition(" ")[0] for line in runs.elements())
    often = never = 0
    query = "select id, attempts, status from {}.jobs where created_at >= %s and queue = %s"
    with conn.transaction(), conn.cursor("runs") as cursor:
        cursor.itersize = FETCH
        for job_id, attempts, status in cursor.execute(target.sql(query), [since, target.queue]):
            ran = tries[job_id]
            often += ran > attempts
            never += status == "completed" and ran == 0
    detail = f"the handlers ran {runs.total():,} times"
    detail += f"; {twice:,} starts ran twice" if twice else ""
    detail += f"; {often:,} jobs ran more often than they were started" if often else ""
    detail += f"; {never:,} jobs are completed but never ran" if never else ""
    return Finding(name="each start ran once", ok=not (twice or often or never), detail=detail)


def _invoices(conn: Connection, target: Target, since: datetime) -> Finding:
    """Check that each order has one invoice, which its handler adds in the transaction that completes the job."""
    query = """select count(*), count(*) filter (where invoices <> 1)
                 from pgjobq_loadtest.orders where placed_at >= %s and queue = %s"""
    orders, wrong = conn.execute(query, [since, target.queue]).fetchone() or (0, 0)
    detail = f"{orders:,} orders, each with one invoice"
    if wrong:
        detail = f"{wrong:,} of {orders:,} orders have no invoice or several"
    return Finding(name="one invoice an order", ok=not wrong, detail=detail)
