"""add_log_lines: what a start has logged, while it is the last one of its job."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

Connection = psycopg.Connection[Any]


def one(conn: Connection, statement: str, *arguments: Any) -> Any:
    row = conn.execute(statement, arguments).fetchone()
    assert row is not None
    return row[0]


def start(conn: Connection, **job: Any) -> tuple[str, int, int]:
    """A job that a worker has just started: its id, its claim, and the worker's id."""
    values = {"type": "x", **job}
    conn.execute(f"select enqueue_job({', '.join(f'{key} => %s' for key in values)})", list(values.values()))
    worker = one(conn, "select register_worker('w')")
    ((claim_id, job_id),) = conn.execute("select claim_id, id from claim_jobs(%s)", [worker]).fetchall()
    return job_id, claim_id, worker


def add(conn: Connection, job_id: str, claim: int, attempt: int, *lines: str, first: int = 1) -> int:
    seqs = [first + number for number in range(len(lines))]
    same = [[value] * len(lines) for value in (job_id, claim, attempt)]
    text = "select add_log_lines(%s, %s::bigint[], %s::integer[], %s::integer[], %s::timestamptz[], %s, %s, %s)"
    return int(
        one(
            conn,
            text,
            *same,
            seqs,
            ["2030-01-01 00:00Z"] * len(lines),
            ["INFO"] * len(lines),
            ["app"] * len(lines),
            list(lines),
        )
    )


def lines(conn: Connection) -> list[Any]:
    return conn.execute("select attempt, line from job_logs order by claim_id, seq").fetchall()


def test_lines_are_kept_in_their_order_and_a_repeated_call_keeps_them_once(conn: Connection) -> None:
    job_id, claim, _ = start(conn)
    assert add(conn, job_id, claim, 1, "a", "b") == 2
    assert add(conn, job_id, claim, 1, "b", "c", first=2) == 1
    assert lines(conn) == [(1, "a"), (1, "b"), (1, "c")]


@pytest.mark.parametrize(
    "end",
    [
        "complete_jobs(%(worker)s, array[%(id)s], array[%(claim)s]::bigint[])",
        "fail_job(%(id)s, %(claim)s, 'E: x')",
        "cancel_job(%(id)s)",
    ],
)
def test_the_last_lines_may_come_after_the_end(conn: Connection, end: str) -> None:
    job_id, claim, worker = start(conn)
    conn.execute(f"select {end}", {"worker": worker, "id": job_id, "claim": claim})
    assert add(conn, job_id, claim, 1, "the end") == 1
    assert lines(conn) == [(1, "the end")]


def test_a_start_that_was_followed_by_another_adds_nothing(conn: Connection) -> None:
    job_id, claim, worker = start(conn)
    assert add(conn, job_id, claim, 1, "first try") == 1
    conn.execute("select retry_job(%s, 0, 'E: x', %s)", [job_id, claim])
    second = one(conn, "select claim_id from claim_jobs(%s)", worker)
    assert add(conn, job_id, claim, 1, "too late", first=2) == 0
    assert add(conn, job_id, second, 2, "second try") == 1
    assert lines(conn) == [(1, "first try"), (2, "second try")]


def test_one_start_that_is_over_does_not_stop_the_others(conn: Connection) -> None:
    job_id, claim, _ = start(conn)
    text = "select add_log_lines(array['none', %s], array[%s, %s]::bigint[], '{1,1}', '{1,1}', array[now(), now()], '{INFO,INFO}', '{a,a}', '{x,y}')"
    assert one(conn, text, job_id, claim, claim) == 1
    assert lines(conn) == [(1, "y")]


def test_lines_of_a_deleted_job_are_not_those_of_a_new_one_with_its_id(conn: Connection) -> None:
    job_id, claim, _ = start(conn, job_id="again")
    add(conn, job_id, claim, 1, "old")
    conn.execute("delete from jobs where id = 'again'")
    _, second, _ = start(conn, job_id="again")
    assert add(conn, job_id, claim, 1, "stale", first=2) == 0
    assert lines(conn) == []
    add(conn, job_id, second, 1, "new")
    assert lines(conn) == [(1, "new")]


def test_prune_jobs_takes_the_lines_along_and_sweeps_those_of_jobs_deleted_manually(conn: Connection) -> None:
    pruned, claim, worker = start(conn)
    add(conn, pruned, claim, 1, "pruned")
    conn.execute("select complete_jobs(%s, %s, %s)", [worker, [pruned], [claim]])
    deleted, other, _ = start(conn)
    add(conn, deleted, other, 1, "deleted")
    conn.execute("delete from jobs where id = %s", [deleted])
    kept, third, _ = start(conn)
    add(conn, kept, third, 1, "kept")
    conn.execute("select from prune_jobs('0')")
    assert conn.execute("select line from log_lines").fetchall() == [("kept",)]


def test_readers_may_read_and_only_workers_may_write(conn: Connection) -> None:
    for name in ("job_logs", "job_progress"):
        assert one(conn, "select has_table_privilege('pgjobq_read', %s, 'select')", name)
        assert not one(conn, "select has_table_privilege('pgjobq_enqueue', %s, 'select')", name)
    for name in ("add_log_lines", "set_progress"):
        may = "select has_function_privilege(%s, oid, 'execute') from pg_proc where proname = %s"
        assert one(conn, may, "pgjobq_work", name)
        assert not one(conn, may, "pgjobq_read", name)
