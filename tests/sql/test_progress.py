"""set_progress: what a start reports while it holds its job, and nothing after that."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from helpers.until import until

Connection = psycopg.Connection[Any]
Start = tuple[str, int, int]  # the job's id, the claim, and the worker's id


def one(conn: Connection, statement: str, *arguments: Any) -> Any:
    row = conn.execute(statement, arguments).fetchone()
    assert row is not None
    return row[0]


def start(conn: Connection, **job: Any) -> Start:
    """A job that a worker has just started."""
    values = {"type": "x", **job}
    conn.execute(f"select enqueue_job({', '.join(f'{key} => %s' for key in values)})", list(values.values()))
    worker = one(conn, "select register_worker('w')")
    ((claim_id, job_id),) = conn.execute("select claim_id, id from claim_jobs(%s)", [worker]).fetchall()
    return job_id, claim_id, worker


def report(conn: Connection, job_id: str, claim: int, fraction: float, *more: Any) -> bool:
    return bool(one(conn, f"select set_progress(%s, %s, %s{', %s' * len(more)})", job_id, claim, fraction, *more))


def shown(conn: Connection) -> list[Any]:
    return conn.execute("select job_id, fraction, message, meta from job_progress").fetchall()


def test_the_last_report_is_shown(conn: Connection) -> None:
    job_id, claim, _ = start(conn)
    assert shown(conn) == []
    assert report(conn, job_id, claim, 0.1, "page 1 of 10", '{"page": 1}')
    first = one(conn, "select updated_at from job_progress")
    assert shown(conn) == [(job_id, 0.1, "page 1 of 10", {"page": 1})]
    assert report(conn, job_id, claim, 1)
    assert shown(conn) == [(job_id, 1.0, None, None)]
    assert one(conn, "select updated_at from job_progress") > first


@pytest.mark.parametrize("fraction", ["-0.01", "1.01", "'NaN'", "'Infinity'", "null"])
def test_a_fraction_outside_of_0_to_1_is_refused(conn: Connection, fraction: str) -> None:
    job_id, claim, _ = start(conn)
    report(conn, job_id, claim, 0.5)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"fraction: .* is not from 0 to 1"):
        conn.execute(f"select set_progress(%s, %s, {fraction})", [job_id, claim])
    assert [row[1] for row in shown(conn)] == [0.5]


ENDS = {
    "completed": "select complete_jobs(%(worker)s, array[%(id)s], array[%(claim)s]::bigint[])",
    "failed": "select fail_job(%(id)s, %(claim)s, 'E: x')",
    "cancelled": "select cancel_job(%(id)s)",
}


@pytest.mark.parametrize("end", ENDS)
def test_a_start_that_is_over_reports_nothing(conn: Connection, end: str) -> None:
    job_id, claim, worker = start(conn)
    report(conn, job_id, claim, 0.5, "half")
    conn.execute(ENDS[end], {"worker": worker, "id": job_id, "claim": claim})
    assert not report(conn, job_id, claim, 0.9)
    assert one(conn, "select fraction from progress") == 0.5
    # The last report of a try remains, unless something other than its worker has ended it.
    assert [row[1] for row in shown(conn)] == ([] if end == "cancelled" else [0.5])


@pytest.mark.parametrize("retry", ["retry_job(%s, 0, 'E: x', %s)", "release_jobs(array[%s], array[%s]::bigint[])"])
def test_the_next_start_begins_without_progress(conn: Connection, retry: str) -> None:
    job_id, claim, worker = start(conn)
    report(conn, job_id, claim, 0.9)
    conn.execute(f"select {retry}", [job_id, claim])
    assert shown(conn) == []
    second = one(conn, "select claim_id from claim_jobs(%s)", worker)
    assert shown(conn) == []
    assert not report(conn, job_id, claim, 0.95)
    assert report(conn, job_id, second, 0.1)
    assert not report(conn, job_id, claim, 0.99)
    assert [row[1] for row in shown(conn)] == [0.1]


def test_a_rescued_start_reports_nothing(connect: Callable[..., Connection]) -> None:
    conn, dying = connect(), connect()
    job_id, claim, _ = start(dying)
    report(conn, job_id, claim, 0.9)
    dying.close()
    while not one(conn, "select rescued from rescue_jobs('0')"):
        pass
    assert not report(conn, job_id, claim, 0.95)
    assert shown(conn) == []


def test_a_report_does_not_wait_for_the_row_and_leaves_that_of_the_new_start(
    connect: Callable[..., Connection],
) -> None:
    """The stale start sees that it still has the job, while the new start reports in an open transaction."""
    conn, other, stale = connect(), connect(), connect()
    job_id, claim, worker = start(conn)
    report(conn, job_id, claim, 0.5)
    with conn.transaction():
        conn.execute("select release_jobs(array[%s], array[%s]::bigint[])", [job_id, claim])
        second = one(conn, "select claim_id from claim_jobs(%s)", worker)
        assert report(conn, job_id, second, 0.1)
        assert not report(stale, job_id, claim, 0.9)
    assert not report(stale, job_id, claim, 0.9)
    assert shown(other) == [(job_id, 0.1, None, None)]


def test_a_stale_start_that_has_looked_before_the_new_one_reports_changes_nothing(
    connect: Callable[..., Connection],
) -> None:
    """A trigger stops the stale start between its look at the job and its insert, until the new start has reported."""
    conn, stale = connect(), connect()
    job_id, claim, worker = start(conn)
    conn.execute(
        "create function stop() returns trigger language plpgsql as"
        " 'begin if new.fraction = 0.9 then perform pg_advisory_xact_lock(42); end if; return new; end'"
    )
    conn.execute("create trigger stop before insert on progress for each row execute function stop()")
    conn.execute("alter function set_progress reset lock_timeout")
    conn.execute("select pg_advisory_lock(42)")
    with ThreadPoolExecutor() as pool:
        late = pool.submit(report, stale, job_id, claim, 0.9)
        try:
            pid = stale.info.backend_pid
            until(lambda: one(conn, "select cardinality(pg_blocking_pids(%s)) > 0", pid))
            conn.execute("select release_jobs(array[%s], array[%s]::bigint[])", [job_id, claim])
            second = one(conn, "select claim_id from claim_jobs(%s)", worker)
            assert report(conn, job_id, second, 0.1)
        finally:
            conn.execute("select pg_advisory_unlock(42)")
        assert not late.result(20)
    assert shown(conn) == [(job_id, 0.1, None, None)]


def test_a_first_report_that_another_transaction_holds_is_refused_soon(connect: Callable[..., Connection]) -> None:
    conn, other = connect(), connect()
    job_id, claim, _ = start(conn)
    with conn.transaction():
        report(conn, job_id, claim, 0.1)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            report(other, job_id, claim, 0.2)
    assert report(other, job_id, claim, 0.2)
    assert shown(conn) == [(job_id, 0.2, None, None)]


def test_a_job_without_progress_has_no_row(conn: Connection) -> None:
    job_id, claim, worker = start(conn)
    conn.execute("select complete_jobs(%s, %s, %s)", [worker, [job_id], [claim]])
    assert one(conn, "select count(*) from progress") == 0


def test_prune_jobs_takes_the_progress_along(conn: Connection) -> None:
    job_id, claim, worker = start(conn)
    other, other_claim, _ = start(conn)
    report(conn, job_id, claim, 0.5)
    report(conn, other, other_claim, 0.5)
    conn.execute("select complete_jobs(%s, %s, %s)", [worker, [job_id], [claim]])
    conn.execute("select from prune_jobs('0')")
    assert conn.execute("select job_id from progress").fetchall() == [(other,)]


def test_progress_of_a_job_that_was_deleted_manually_is_swept(conn: Connection) -> None:
    job_id, claim, _ = start(conn)
    other, other_claim, _ = start(conn)
    report(conn, job_id, claim, 0.5)
    report(conn, other, other_claim, 0.5)
    conn.execute("delete from jobs where id = %s", [job_id])
    assert one(conn, "select count(*) from progress") == 2
    conn.execute("select from prune_jobs('1 day')")
    assert conn.execute("select job_id from progress").fetchall() == [(other,)]


def test_the_table_is_unlogged(conn: Connection) -> None:
    assert one(conn, "select relpersistence = 'u' from pg_class where oid = 'progress'::regclass")
    assert one(conn, "select relpersistence = 'u' from pg_class where oid = 'progress_pkey'::regclass")
