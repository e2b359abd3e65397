"""Each role can do what it is for and nothing else. job_stats counts the jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

Connection = psycopg.Connection[Any]


@contextmanager
def acting_as(conn: Connection, role: str) -> Iterator[Connection]:
    conn.execute(f"set role {role}")
    try:
        yield conn
    finally:
        conn.execute("reset role")


MAY = {
    "pgjobq_enqueue": [
        "select enqueue_job('t')",
        "select public.enqueue_job('t')",
        "select enqueue_jobs('{t}')",
        "select add_job('t', unique_key => 'k')",
        "select add_jobs('{t}', unique_keys => '{k}')",
    ],
    "pgjobq_work": [
        "select enqueue_job('t')",
        "select * from claim_jobs(1)",
        "select complete_jobs(1, '{x}', '{1}')",
        "select register_worker('w')",
        "select * from rescue_jobs()",
        "select set_worker_state(1, 'asleep')",
        "select * from job_stats",
        "select * from list_jobs()",
    ],
    "pgjobq_read": [
        "select * from job_stats",
        "select * from worker_status",
        "select * from get_job('x')",
        "select * from export_jobs()",
    ],
    "pgjobq_admin": [
        "select import_jobs('[]')",
        "select * from export_jobs()",
        "select cancel_job('x')",
        "select prune_jobs()",
        "select retry_job('x')",
        "select enqueue_job('t')",
    ],
}
MAY_NOT = {
    "pgjobq_enqueue": ["select * from export_jobs()", "select import_jobs('[]')", "select * from jobs", "select * from list_jobs()", "select * from claim_jobs(1)", "select cancel_job('x')", "select * from job_stats", "insert into jobs (type) values ('t')"],
    "pgjobq_work": ["select * from jobs", "delete from ready", "select cancel_job('x')", "select give_away_worker(1)", "select give_back_claims(1, '{}', 'left', null)", "select import_jobs('[]')"],
    "pgjobq_read": ["select * from jobs", "select enqueue_job('t')", "select * from claim_jobs(1)", "update jobs set status = 'failed'"],
    "pgjobq_admin": ["select * from jobs", "truncate jobs"],
}  # fmt: skip


@pytest.mark.parametrize(("role", "statement"), [(role, one) for role, many in MAY.items() for one in many])
def test_role_is_allowed(conn: Connection, role: str, statement: str) -> None:
    with acting_as(conn, role):
        conn.execute(statement)


@pytest.mark.parametrize(("role", "statement"), [(role, one) for role, many in MAY_NOT.items() for one in many])
def test_role_is_denied(conn: Connection, role: str, statement: str) -> None:
    with acting_as(conn, role), pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute(statement)


def test_other_role_is_denied_everything(connect: Callable[..., Connection]) -> None:
    conn = connect()
    conn.execute("drop role if exists pgjobq_test_stranger")
    conn.execute("create role pgjobq_test_stranger")
    try:
        for statement in ("select pgjobq.enqueue_job('t')", "select public.enqueue_job('t')"):
            with acting_as(conn, "pgjobq_test_stranger"), pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(statement)
    finally:
        conn.execute("drop role pgjobq_test_stranger")


@pytest.mark.usefixtures("workers")
def test_job_stats_counts_by_queue_and_status(conn: Connection) -> None:
    conn.execute(
        "select enqueue_jobs(array_fill('t'::text, array[6]), queues => '{a,a,a,a,b,b}', job_ids => '{1,2,3,4,5,6}')"
    )
    conn.execute("select enqueue_job('t', queue => 'a', execute_at => now() + '1 h')")
    conn.execute("update jobs set created_at = now() - interval '60 s' where id = '4'")
    conn.execute("select from claim_jobs(1, '{a}', 3)")
    conn.execute("select complete_jobs(1, '{1}', '{1}'), fail_job('2', 1, 'x')")
    conn.execute("select cancel_job('6')")
    rows = conn.execute("select queue, status, jobs, estimated, oldest_due_age from job_stats order by 1, 2").fetchall()
    assert [row[:4] for row in rows] == [
        ("a", "completed", 1, False),
        ("a", "failed", 1, False),
        ("a", "pending", 2, False),
        ("a", "running", 1, False),
        ("b", "cancelled", 1, False),
        ("b", "pending", 1, False),
    ]
    ages = {(row[0], row[1]): row[4] for row in rows}
    assert 59 < ages["a", "pending"].total_seconds() < 70
    assert ages["a", "running"] is None


def test_job_stats_counts_many_pending_jobs_exactly(conn: Connection) -> None:
    """The counts are exact while the table is small. test_plans.py has a large table."""
    conn.execute("select enqueue_jobs(array_fill('t'::text, array[12000]))")
    rows = conn.execute("select queue, status, jobs, estimated, oldest_due_age is not null from job_stats").fetchall()
    assert rows == [("default", "pending", 12000, False, True)]


def test_count_jobs_is_exact(conn: Connection) -> None:
    conn.execute("select enqueue_jobs('{t,t}', job_ids => '{a,b}')")
    conn.execute("select cancel_job('b')")
    assert sorted(conn.execute("select status, jobs from count_jobs()").fetchall()) == [
        ("cancelled", 1),
        ("pending", 1),
    ]
