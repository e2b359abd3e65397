"""The simulated users. Each kind calls the queue at its own rate, so the load depends only on their number."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from datetime import datetime
from itertools import count

from client import Client, NotCompleted
from locust import constant_pacing, task
from target import Connection

BULK = 500  # jobs in one import
FAILS_ONE_IN = 50  # the first try of one mail in 50 fails, so that the load includes retries
END_TO_END = ("JOB", "enqueue to completed")
START = ("JOB", "enqueue to started, by the server's clock")
FIRST_LOOK = 0.002  # seconds
PATIENCE = 10.0  # how many seconds a caller waits for its job

_numbers = count(1)


class SqlEnqueuer(Client):
    """An application that enqueues with `select enqueue_job`, ten jobs a second."""

    weight = 6
    wait_time = constant_pacing(0.1)

    @task
    def enqueue(self) -> None:
        """Enqueue one mail."""
        fails = int(next(_numbers) % FAILS_ONE_IN == 0)
        self.call(
            "enqueue_job",
            """select {}.enqueue_job('loadtest.mail', jsonb_build_object('to', 'a@b.c', 'fails', %s::integer),
                                     queue => %s)""",
            [fails, self.target.queue],
            enqueues="loadtest.mail",
        )


class TriggerWriter(Client):
    """An application that writes its own table, whose trigger enqueues, five rows a second."""

    weight = 4
    wait_time = constant_pacing(0.2)

    @task
    def order(self) -> None:
        """Insert one order."""
        self.call(
            "insert into orders, whose trigger enqueues",
            "insert into pgjobq_loadtest.orders (email, queue) values ('a@b.c', %s)",
            [self.target.queue],
            enqueues="loadtest.invoice",
        )


class BulkImporter(Client):
    """An import: every four seconds, 500 jobs by enqueue_jobs and 500 by COPY, at the lowest priority."""

    weight = 1
    wait_time = constant_pacing(4)

    @task
    def run_imports(self) -> None:
        """Import by enqueue_jobs, then by COPY."""
        self._enqueue_jobs()
        self._copy()

    def _enqueue_jobs(self) -> None:
        statement = self.target.sql(
            """select count(*) from {}.enqueue_jobs(
                 array_fill('loadtest.row'::text, array[%s::integer]),
                 array(select jsonb_build_object('n', n) from generate_series(1, %s) as n),
                 priorities => array_fill(1, array[%s::integer]),
                 queues     => array_fill(%s::text, array[%s::integer]))"""
        )
        with self.request("SQL", f"enqueue_jobs, {BULK} jobs") as conn, self._enqueueing(conn):
            conn.execute(statement, [BULK, BULK, BULK, self.target.queue, BULK])

    def _copy(self) -> None:
        statement = self.target.sql("copy {}.jobs (queue, type, data, priority) from stdin")
        with (
            self.request("SQL", f"copy, {BULK} jobs") as conn,
            self._enqueueing(conn),
            conn.cursor() as cursor,
            cursor.copy(statement) as copy,
        ):
            for n in range(1, BULK + 1):
                copy.write_row((self.target.queue, "loadtest.row", f'{{"n": {n}}}', 1))

    def _enqueueing(self, conn: Connection) -> AbstractContextManager[None]:
        return self.ledger.enqueueing(conn, "loadtest.row", BULK)


class EndToEndCaller(Client):
    """A caller that enqueues a job and waits until it is completed, at most five times a second.

    It polls after 2 ms, and then whenever a tenth of the time waited so far has passed. Its figure is therefore at most
    a tenth and 2 ms too high, and even a long wait needs few polls.
    """

    weight = 6
    wait_time = constant_pacing(0.2)

    @task
    def enqueue_and_wait(self) -> None:
        """Enqueue one job and wait for it."""
        with self.request(*END_TO_END) as conn:
            began = time.perf_counter()
            ask = "select {}.enqueue_job('loadtest.question', queue => %s)"
            row = self.execute(conn, ask, [self.target.queue], enqueues="loadtest.question").fetchone()
            assert row is not None  # a function always returns a row
            created_at, started_at = self._completed(conn, row[0], began)
            # started_at may be earlier than created_at, because the claim may have begun before the enqueue.
            self.report(*START, max(0.0, (started_at - created_at).total_seconds()))

    def _completed(self, conn: Connection, job_id: str, began: float) -> tuple[datetime, datetime]:
        while True:
            waited = time.perf_counter() - began
            time.sleep(max(FIRST_LOOK, min(waited / 10, PATIENCE - waited)))
            look = "select status, created_at, started_at from {}.get_job(%s)"
            row = self.execute(conn, look, [job_id]).fetchone()
            if row is not None and row[0] == "completed":
                return row[1], row[2]
            if row is None or row[0] not in ("pending", "running"):
                raise NotCompleted(f"a job is {row[0] if row else 'deleted'}")
            if waited >= PATIENCE:
                raise NotCompleted(f"a job is not completed after {PATIENCE:.0f} s")


class DashboardReader(Client):
    """A dashboard that is refreshed every two seconds."""

    weight = 2
    wait_time = constant_pacing(2)

    @task
    def refresh(self) -> None:
        """Run the dashboard's queries."""
        self.call("job_stats", "select count(*), sum(jobs), max(oldest_due_age) from {}.job_stats")
        self.call("list_jobs", "select count(data) from {}.list_jobs(null, 50, %s)", [self.target.queue])
        self.call("list_jobs, failed", "select count(error) from {}.list_jobs('failed', 50, %s)", [self.target.queue])
        self.call("worker_status", "select count(*), sum(running) from {}.worker_status")
