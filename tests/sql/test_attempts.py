"""attempts: one row for each try that did not succeed, and none for a try that did."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

Connection = psycopg.Connection[Any]


def start(conn: Connection, name: str = "alpha", **job: Any) -> tuple[str, int, int]:
    """A job that a worker of this name has just started: its id, its claim, and the worker's id."""
    values = {"type": "x", **job}
    names = ", ".join(f"{key} => %s" for key in values)
    conn.execute(f"select enqueue_job({names})", list(values.values()))
    worker = one(conn, "select register_worker(%s)", name)
    ((claim_id, job_id),) = conn.execute("select claim_id, id from claim_jobs(%s)", [worker]).fetchall()
    return job_id, claim_id, worker


def one(conn: Connection, statement: str, *arguments: Any) -> Any:
    row = conn.execute(statement, arguments).fetchone()
    assert row is not None
    return row[0]


def history(conn: Connection, job_id: str) -> list[Any]:
    return conn.execute(
        "select attempt, worker, outcome, error_class, error from list_attempts(%s)", [job_id]
    ).fetchall()


def test_a_job_that_succeeds_leaves_no_row(conn: Connection) -> None:
    job_id, claim, worker = start(conn)
    assert conn.execute("select complete_jobs(%s, %s, %s)", [worker, [job_id], [claim]]).fetchall() == []
    assert one(conn, "select status from jobs") == "completed"
    assert one(conn, "select count(*) from attempts") == 0


def test_fail_job_keeps_the_try(conn: Connection) -> None:
    job_id, claim, _ = start(conn)
    error = "ValueError: no such order\n  File tasks.py"
    assert one(conn, "select fail_job(%s, %s, %s)", job_id, claim, error)
    assert history(conn, job_id) == [(1, "alpha", "raised", "ValueError", error)]
    ((started, ended),) = conn.execute("select started_at, ended_at from list_attempts(%s)", [job_id]).fetchall()
    assert started == one(conn, "select started_at from jobs")
    assert started <= ended


@pytest.mark.parametrize("settle", ["fail_job(%s, %s, 'E: x')", "retry_job(%s, 0, 'E: x', %s)"])
def test_a_repeated_settle_keeps_one_row(conn: Connection, settle: str) -> None:
    job_id, claim, _ = start(conn)
    assert one(conn, f"select {settle}", job_id, claim)
    assert one(conn, f"select {settle}", job_id, claim)
    assert len(history(conn, job_id)) == 1


def test_a_settle_that_comes_too_late_keeps_nothing(conn: Connection) -> None:
    job_id, claim, worker = start(conn)
    conn.execute("select complete_jobs(%s, %s, %s)", [worker, [job_id], [claim]])
    assert not one(conn, "select fail_job(%s, %s, 'E: x')", job_id, claim)
    assert not one(conn, "select retry_job(%s, 0, 'E: x', %s)", job_id, claim)
    conn.execute("select release_jobs(%s, %s, ran => true)", [[job_id], [claim]])
    assert history(conn, job_id) == []


def test_the_caller_says_how_the_try_ended(conn: Connection) -> None:
    job_id, claim, worker = start(conn)
    one(conn, "select retry_job(%s, 0, 'JobTimeout: ran long', %s, 'timed out')", job_id, claim)
    claim = one(conn, "select claim_id from claim_jobs(%s)", worker)
    one(conn, "select fail_job(%s, %s, 'the process ended', 'worker died')", job_id, claim)
    assert [row[:4] for row in history(conn, job_id)] == [
        (1, "alpha", "timed out", "JobTimeout"),
        (2, "alpha", "worker died", None),
    ]


def test_an_outcome_that_is_none_is_refused(conn: Connection) -> None:
    job_id, claim, _ = start(conn)
    with pytest.raises(psycopg.errors.CheckViolation):
        conn.execute("select fail_job(%s, %s, 'E: x', 'tired')", [job_id, claim])
    assert one(conn, "select status from jobs") == "running"


@pytest.mark.parametrize(
    ("cancel", "reason"), [("cancel_job(%s, 'why not')", "why not"), ("cancel_jobs(type => 'x', reason => %s)", None)]
)
def test_cancelling_a_running_job_keeps_its_try(conn: Connection, cancel: str, reason: str | None) -> None:
    job_id, _, _ = start(conn)
    pending = one(conn, "select enqueue_job('x')")
    conn.execute(f"select {cancel}", [job_id])
    conn.execute("select cancel_job(%s)", [pending])
    assert history(conn, job_id) == [(1, "alpha", "cancelled", None, reason or job_id)]
    assert history(conn, pending) == []


def test_a_released_start_is_kept_only_if_it_ran(conn: Connection) -> None:
    job_id, claim, worker = start(conn)
    conn.execute("select release_jobs(%s, %s)", [[job_id], [claim]])
    assert history(conn, job_id) == []
    claim = one(conn, "select claim_id from claim_jobs(%s)", worker)
    conn.execute("select release_jobs(%s, %s, ran => true)", [[job_id], [claim]])
    conn.execute("select release_jobs(%s, %s, ran => true)", [[job_id], [claim]])
    assert history(conn, job_id) == [(1, "alpha", "released", None, None)]
    assert one(conn, "select attempts from jobs") == 0


def test_a_rescued_try_keeps_the_name_of_its_worker(connect: Callable[..., Connection]) -> None:
    conn, dying = connect(), connect()
    job_id, _, worker = start(dying, "omega")
    dying.close()
    while not one(conn, "select rescued from rescue_jobs('0')"):
        pass
    ((attempt, name, outcome, kind, error),) = history(conn, job_id)
    assert (attempt, name, outcome, kind) == (1, "omega", "worker died", "WorkerDied")
    assert error.startswith(f"worker {worker} stopped or died")
    assert one(conn, "select worker_id from list_attempts(%s)", job_id) == worker


def test_a_worker_that_leaves_releases_its_tries(conn: Connection) -> None:
    job_id, _, worker = start(conn)
    conn.execute("select retire_worker(%s)", [worker])
    assert [row[:3] for row in history(conn, job_id)] == [(1, "alpha", "released")]


def test_a_claim_that_the_worker_never_learned_of_keeps_nothing(conn: Connection) -> None:
    job_id, _, worker = start(conn)
    assert one(conn, "select release_unknown_jobs(%s, '{}')", worker) == 1
    assert history(conn, job_id) == []


def test_pruning_takes_the_attempts_along(conn: Connection) -> None:
    job_id, claim, _ = start(conn)
    one(conn, "select fail_job(%s, %s, 'E: x')", job_id, claim)
    other, claim, _ = start(conn, "beta")
    one(conn, "select retry_job(%s, 0, 'E: x', %s)", other, claim)
    conn.execute("select prune_jobs('0', '{failed}')")
    assert one(conn, "select array_agg(job_id) from attempts") == [other]


def test_attempts_of_jobs_that_were_deleted_manually_are_swept(connect: Callable[..., Connection]) -> None:
    conn, holder = connect(), connect(autocommit=False)
    job_id, claim, worker = start(conn)
    one(conn, "select retry_job(%s, 0, 'E: x', %s)", job_id, claim)
    claim = one(conn, "select claim_id from claim_jobs(%s)", worker)
    one(conn, "select fail_job(%s, %s, 'E: x')", job_id, claim)
    kept, claim, _ = start(conn, "beta")
    one(conn, "select fail_job(%s, %s, 'E: x')", kept, claim)
    conn.execute("delete from jobs where id = %s", [job_id])
    holder.execute("select from attempts where job_id = %s and attempt = 1 for update", [job_id])
    conn.execute("select prune_jobs()")  # does not wait for the row that is held
    assert (
        one(conn, "select array_agg((job_id, attempt)::text order by attempt, job_id) from attempts").count(
            f"({job_id},1)"
        )
        == 1
    )
    assert one(conn, "select count(*) from attempts") == 2
    holder.rollback()
    conn.execute("select prune_jobs()")
    assert one(conn, "select array_agg(job_id) from attempts") == [kept]


def test_a_new_job_does_not_inherit_the_attempts_of_a_deleted_one(conn: Connection) -> None:
    job_id, claim, _ = start(conn, job_id="nightly")
    one(conn, "select fail_job(%s, %s, 'E: x')", job_id, claim)
    conn.execute("delete from jobs")
    conn.execute("select enqueue_job('x', job_id => 'nightly')")
    assert history(conn, "nightly") == []
