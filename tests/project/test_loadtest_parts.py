"""Tests of the load test's parts without load: the checks before and after a run, the limits and the stages."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers.until import until

from pgjobq import JobQueue, Registry, Worker
from pgjobq.storage.postgres_storage import PostgresStorage

sys.path.insert(0, str(Path(__file__).parents[2] / "loadtests" / "locust"))

from check import Finding, examine, server_time
from ledger import Ledger
from limits import Calls, failed_calls, slowest
from stages import stage_at, stages
from target import Refused, Target, clean, prepare, workers

Connection = psycopg.Connection[Any]


@pytest.fixture
def target(dsn: str) -> Target:
    """Return the test's database as the target."""
    return Target(dsn=dsn, schema="pgjobq", queue="loadtest")


# -- the database under test -----------------------------------------------------------------------------


def test_prepare_creates_the_table_and_reports_missing_workers(target: Target, conn: Connection) -> None:
    for _ in range(2):
        (note,) = prepare(target)
        assert note.endswith("run: pgjobq worker handlers --queues loadtest")
    conn.execute("insert into pgjobq_loadtest.orders (email, queue) values ('a@b.c', 'loadtest')")
    assert conn.execute("select type, queue, data from jobs").fetchall() == [
        ("loadtest.invoice", "loadtest", {"order_id": 1})
    ]


def test_worker_for_all_queues_is_refused(
    target: Target, conn: Connection, storage: PostgresStorage, registry: Registry
) -> None:
    worker = Worker(JobQueue(storage, registry=registry), registry=registry)
    worker.start()
    try:
        until(lambda: workers(conn, target), seconds=10)
        with pytest.raises(Refused, match="serves all queues, and would claim the load test's jobs"):
            prepare(target)
    finally:
        worker.stop()


def test_unfinished_jobs_are_refused(target: Target, conn: Connection) -> None:
    conn.execute("select enqueue_job('loadtest.row', queue => 'loadtest')")
    with pytest.raises(Refused, match="has 1 unfinished jobs of an earlier load test; remove them with --clean"):
        prepare(target)
    assert clean(target) == 1
    prepare(target)


def test_missing_schema_is_refused(empty_dsn: str) -> None:
    with pytest.raises(Refused, match="pgjobq is not installed in the schema pgjobq; run: pgjobq migrate"):
        prepare(Target(dsn=empty_dsn, schema="pgjobq", queue="loadtest"))


def test_role_without_rights_is_refused(target: Target, conn: Connection) -> None:
    conn.execute("drop role if exists loadtest_of_test")
    conn.execute("create role loadtest_of_test login password 'secret' in role pgjobq_admin")
    try:
        dsn = psycopg.conninfo.make_conninfo(target.dsn, user="loadtest_of_test", password="secret")  # noqa: S106  # the line above made it up
        with pytest.raises(Refused, match="connect as the role that ran `pgjobq migrate`"):
            prepare(Target(dsn=dsn, schema="pgjobq", queue="loadtest"))
    finally:
        conn.execute("drop role loadtest_of_test")


# -- the check -------------------------------------------------------------------------------------------


class Checked:
    """A database in the state after a load test, without a load test."""

    def __init__(self, target: Target, conn: Connection, runs: Path) -> None:
        self._target, self._conn, self._runs = target, conn, runs
        prepare(target)
        self.ledger = Ledger()
        self._since: datetime = server_time(conn)

    def jobs(self, count: int, **columns: Any) -> list[str]:
        """Add jobs that were run once. They are completed unless `columns` has another status."""
        row: dict[str, Any] = {
            "queue": "loadtest",
            "type": "loadtest.row",
            "status": "completed",
            "attempts": 1,
        } | columns
        ids = []
        for _ in range(count):
            with self.ledger.enqueueing(self._conn, row["type"]):
                query = f"insert into jobs ({', '.join(row)}) values ({', '.join(['%s'] * len(row))}) returning id"
                made = self._conn.execute(query.encode(), list(row.values())).fetchone()
            assert made is not None
            ids.append(made[0])
            if row["attempts"]:
                self.ran(made[0], row["attempts"])
        return ids

    def ran(self, job_id: str, attempt: int) -> None:
        """Record a run of a job, as the handlers of the load test do."""
        with (self._runs / "runs-1").open("a") as file:
            file.write(f"{job_id} {attempt}\n")

    def wrong(self) -> list[Finding]:
        """Return the findings that failed."""
        found = examine(self._conn, self._target, self.ledger, self._since, drain=0, runs=self._runs)
        assert len({finding.name for finding in found}) == len(found) == 6
        return [finding for finding in found if not finding.ok]


@pytest.fixture
def checked(target: Target, conn: Connection, tmp_path: Path) -> Checked:
    """Return such a database."""
    return Checked(target, conn, tmp_path)


def test_correct_run_has_no_failed_findings(checked: Checked, conn: Connection) -> None:
    checked.jobs(3)
    checked.jobs(1, attempts=2)
    conn.execute("insert into pgjobq_loadtest.orders (email, queue, invoices) values ('a@b.c', 'elsewhere', 0)")
    conn.execute("select enqueue_job('greet', queue => 'mail')")
    assert [finding.name for finding in checked.wrong()] == []


def test_lost_job_is_found(checked: Checked, conn: Connection) -> None:
    job_id, _ = checked.jobs(2)
    conn.execute("delete from jobs where id = %s", [job_id])
    (wrong,) = checked.wrong()
    assert (wrong.name, wrong.detail) == (
        "nothing lost",
        "2 jobs enqueued, 1 found; 1 of 2 loadtest.row jobs exist",
    )


def test_enqueue_without_an_answer_may_have_committed(checked: Checked, conn: Connection) -> None:
    checked.jobs(2)
    checked.ledger.unsure["loadtest.row"] += 1
    assert checked.wrong() == []
    conn.execute("insert into jobs (queue, type, status) values ('loadtest', 'loadtest.row', 'cancelled')")
    assert [finding.name for finding in checked.wrong()] == ["all completed"]
    conn.execute("insert into jobs (queue, type, status) values ('loadtest', 'loadtest.row', 'cancelled')")
    assert [finding.name for finding in checked.wrong()] == ["nothing lost", "all completed"]


def test_pending_job_is_found(checked: Checked) -> None:
    checked.jobs(1, status="pending", attempts=0)
    drained, completed = checked.wrong()
    assert drained.detail.startswith("1 jobs are not finished 0 s after the last call: no worker serves the queue")
    assert completed.detail == "0 jobs completed, 1 pending"


def test_failed_job_is_found_with_its_error(checked: Checked, conn: Connection) -> None:
    checked.jobs(1, status="failed", error="ValueError: no\nTraceback", failed_at=server_time(conn))
    (wrong,) = checked.wrong()
    assert wrong.detail == "0 jobs completed, 1 failed; such as loadtest.row: ValueError: no"


def test_start_beyond_the_retries_is_found(checked: Checked) -> None:
    checked.jobs(1, attempts=3, max_retries=1)
    (wrong,) = checked.wrong()
    assert wrong.name == "no start too many"
    assert wrong.detail.endswith("1 were started more often than their retries allow")


def test_start_that_ran_twice_is_found(checked: Checked) -> None:
    (job_id,) = checked.jobs(1, attempts=2)
    checked.ran(job_id, 2)
    (wrong,) = checked.wrong()
    assert (wrong.name, wrong.detail) == ("each start ran once", "the handlers ran 2 times; 1 starts ran twice")


def test_run_without_a_start_is_found(checked: Checked) -> None:
    (job_id,) = checked.jobs(1)
    checked.ran(job_id, 2)
    (wrong,) = checked.wrong()
    assert wrong.detail == "the handlers ran 2 times; 1 jobs ran more often than they were started"


def test_completed_job_that_never_ran_is_found(checked: Checked, tmp_path: Path) -> None:
    checked.jobs(1)
    (tmp_path / "runs-1").unlink()
    (wrong,) = checked.wrong()
    assert wrong.detail == "the handlers ran 0 times; 1 jobs are completed but never ran"


@pytest.mark.parametrize("invoices", [0, 2])
def test_order_without_exactly_one_invoice_is_found(checked: Checked, conn: Connection, invoices: int) -> None:
    conn.execute("alter table pgjobq_loadtest.orders disable trigger all")
    query = "insert into pgjobq_loadtest.orders (email, queue, invoices) values ('a@b.c', 'loadtest', %s)"
    conn.execute(query, [invoices])
    (wrong,) = checked.wrong()
    assert (wrong.name, wrong.detail) == ("one invoice an order", "1 of 1 orders have no invoice or several")


def test_ledger_counts_enqueues_without_an_answer(conn: Connection) -> None:
    ledger = Ledger()
    with ledger.enqueueing(conn, "a", 500):
        conn.execute("select 1")
    with pytest.raises(psycopg.errors.DivisionByZero), ledger.enqueueing(conn, "a"):
        conn.execute("select 1 / 0")
    assert (ledger.acknowledged, ledger.unsure) == ({"a": 500}, {})
    with pytest.raises(psycopg.OperationalError), ledger.enqueueing(conn, "a"):
        conn.execute("select pg_terminate_backend(pg_backend_pid())")
    assert (ledger.acknowledged, ledger.unsure) == ({"a": 500}, {"a": 1})


# -- limits, stages and options --------------------------------------------------------------------------


def calls(name: str, p99: float, requests: int = 100, failures: int = 0) -> Calls:
    return Calls(name=name, requests=requests, failures=failures, p99=p99)


def test_limits() -> None:
    made = [calls("a", 10.0), calls("b", 20.0, failures=1), calls("c", 0.0, requests=0)]
    assert failed_calls(made, 0, 0.5).ok
    assert failed_calls(made, 0, 0.5).detail == "1 of 200 calls, 0.50 %, at most 0.5 %"
    assert not failed_calls(made, 0, 0.4).ok
    assert not failed_calls(made, 1, 0.5).ok
    assert not failed_calls([], 0, 100).ok
    kept, broken = slowest("p99", made, 20), slowest("p99", made, 19.9)
    assert kept is not None
    assert kept.ok
    assert broken is not None
    assert not broken.ok
    assert broken.detail == "20 ms (b), at most 19.9 ms"
    assert slowest("p99", [], 1) is None


def test_stages() -> None:
    plan = stages(ramp=10, burst=5, soak=20, users=4, burst_users=200)
    assert [(stage.name, stage.users, stage.end) for stage in plan] == [
        ("ramp", 4, 10),
        ("burst", 200, 15),
        ("soak", 4, 35),
    ]
    assert plan[0].rate == pytest.approx(0.4)
    assert plan[1].rate == 20  # a higher rate would only measure how fast connections are opened
    at = [stage_at(plan, seconds) for seconds in (0, 9.9, 10, 34.9, 35)]
    assert at == [plan[0], plan[0], plan[1], plan[2], None]
    assert [stage.name for stage in stages(ramp=0, burst=0, soak=1, users=1, burst_users=1)] == ["soak"]


@pytest.mark.parametrize(
    ("option", "changed"),
    [
        ("--ramp-seconds", {"ramp": -1.0}),
        ("--soak-seconds", {"soak": 1e6}),
        ("--soak-seconds", {"ramp": 0, "burst": 0, "soak": 0}),
        ("--soak-seconds", {"soak": float("nan")}),
        ("--steady-users", {"users": 0}),
        ("--burst-users", {"burst_users": 10_000}),
    ],
)
def test_load_without_bounds_is_refused(option: str, changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{option}: "):
        stages(**{"ramp": 1.0, "burst": 1.0, "soak": 1.0, "users": 1, "burst_users": 1, **changed})
