"""complete_jobs, fail_job, retry_job, release_jobs, cancel_job and lost_jobs: the claim identifies the start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]

pytestmark = pytest.mark.usefixtures("workers")

# The claims in a new database have the ids 1, 2 and so on.
HELD = ["a", 1]  # the job and the claim of the start that `started` creates
STRANGERS = [["a", 2], ["b", 1], ["nobody", 1], ["a", -1]]


@pytest.fixture
def started(conn: Connection) -> Connection:
    """Worker 1 runs job a. Job b is pending."""
    conn.execute("select enqueue_jobs('{t,t}', job_ids => '{a,b}')")
    conn.execute("select from claim_jobs(1)")
    return conn


def value(conn: Connection, query: str, arguments: list[Any]) -> Any:
    row = conn.execute(query, arguments).fetchone()
    return None if row is None else row[0]


def status(conn: Connection, id_: str = "a") -> Any:
    return value(conn, "select status from jobs where id = %s", [id_])


def test_complete_finishes_the_job(started: Connection) -> None:
    assert started.execute("select complete_jobs(1, '{a}', '{1}')").fetchall() == []
    row = started.execute(
        "select status, finished_at is not null, failed_at, error from jobs where id = 'a'"
    ).fetchone()
    assert row == ("completed", True, None, None)


@pytest.mark.parametrize(("id_", "claim"), [*STRANGERS, ("a", None)])
def test_complete_of_a_start_that_is_not_held_changes_nothing(started: Connection, id_: str, claim: int | None) -> None:
    before = started.execute("select * from jobs order by id").fetchall()
    lost = started.execute("select complete_jobs(1, %s, %s)", [[id_], [claim]]).fetchall()
    assert lost == [(id_,)]
    assert started.execute("select * from jobs order by id").fetchall() == before


def test_complete_returns_the_lost_jobs_and_completes_the_rest(conn: Connection) -> None:
    conn.execute("select enqueue_jobs('{t,t,t}', job_ids => '{a,b,c}')")
    conn.execute("select from claim_jobs(1, null, 3)")
    conn.execute("select retry_job('b', 0, null, 1)")
    conn.execute("select from claim_jobs(1)")  # b again, at its second attempt
    assert conn.execute("select complete_jobs(1, '{a,b,c}', '{1,1,1}')").fetchall() == [("b",)]
    assert [status(conn, id_) for id_ in "abc"] == ["completed", "running", "completed"]
    assert conn.execute("select complete_jobs(1, '{a,b,c}', '{1,2,1}')").fetchall() == []
    assert status(conn, "b") == "completed"


def test_complete_deletes_only_finished_claims_of_its_own_worker(started: Connection) -> None:
    started.execute("select from claim_jobs(2)")
    started.execute("select complete_jobs(1, '{a}', '{1}', array(select id from claims))")
    assert started.execute("select worker_id from claims").fetchall() == [(2,)]


def test_complete_notices_which_claims_are_finished(started: Connection) -> None:
    started.execute("select enqueue_jobs('{t,t}', job_ids => '{c,d}')")
    started.execute("select from claim_jobs(1, null, 3)")
    started.execute("select complete_jobs(1, '{a,b,c}', '{1,2,2}')")
    assert started.execute("select id from claims").fetchall() == [(2,)]
    started.execute("select complete_jobs(1, '{d}', '{2}')")
    assert started.execute("select id from claims").fetchall() == []


def complete_and_delete(conn: Connection, ids: str, claims: str) -> Any:
    return conn.execute("select complete_jobs(1, %s, %s, keep => false)", [ids, claims]).fetchall()


def test_complete_without_keeping_deletes_and_can_be_repeated(started: Connection) -> None:
    assert complete_and_delete(started, "{a}", "{1}") == []
    assert started.execute("select id from jobs").fetchall() == [("b",)]
    assert complete_and_delete(started, "{a}", "{1}") == []  # the first answer may have been lost
    assert started.execute("select complete_jobs(1, '{a}', '{1}')").fetchall() == [("a",)]  # the row must exist


@pytest.mark.parametrize(("id_", "claim"), [start for start in STRANGERS if start[0] != "nobody"])
def test_complete_without_keeping_of_a_start_that_is_not_held_changes_nothing(
    started: Connection, id_: str, claim: int
) -> None:
    before = started.execute("select * from jobs order by id").fetchall()
    assert complete_and_delete(started, f"{{{id_}}}", f"{{{claim}}}") == [(id_,)]
    assert started.execute("select * from jobs order by id").fetchall() == before


def test_complete_without_keeping_returns_the_lost_jobs_and_deletes_the_rest(conn: Connection) -> None:
    conn.execute("select enqueue_jobs('{t,t,t,t}', job_ids => '{a,b,c,d}')")
    conn.execute("select from claim_jobs(1, null, 4)")
    conn.execute("select retry_job('b', 0, null, 1)")
    conn.execute("select from claim_jobs(2)")  # b again, for another worker
    conn.execute("select cancel_job('c')")
    assert complete_and_delete(conn, "{a,b,c,d}", "{1,1,1,1}") == [("b",), ("c",)]
    assert conn.execute("select id, status from jobs order by id").fetchall() == [("b", "running"), ("c", "cancelled")]


def test_fail_stores_the_error_and_can_be_repeated(started: Connection) -> None:
    assert value(started, "select fail_job(%s, %s, 'ValueError: x')", HELD) is True
    row = started.execute("select status, error, failed_at = finished_at from jobs where id = 'a'").fetchone()
    assert row == ("failed", "ValueError: x", True)
    assert value(started, "select fail_job(%s, %s, 'again')", HELD) is True
    assert value(started, "select error from jobs where id = 'a'", []) == "ValueError: x"


def test_retry_by_the_worker_can_be_repeated(started: Connection) -> None:
    assert value(started, "select retry_job('a', 60, 'ValueError: x', 1)", []) is True
    row = started.execute(
        "select status, error, round(extract(epoch from execute_at - updated_at)) from jobs where id = 'a'"
    )
    assert row.fetchone() == ("pending", "ValueError: x", 60)
    assert value(started, "select retry_job('a', 60, 'x', 1)", []) is True  # the first answer may have been lost
    assert started.execute("select count(*) from scheduled").fetchone() == (1,)


@pytest.mark.parametrize("call", ["fail_job(%s, %s, 'x')", "retry_job(id => %s, claim_id => %s)"])
@pytest.mark.parametrize("who", STRANGERS)
def test_settling_a_start_that_is_not_held_changes_nothing(started: Connection, call: str, who: list[Any]) -> None:
    before = started.execute("select * from jobs order by id").fetchall()
    assert value(started, f"select {call}", who) is False
    assert started.execute("select * from jobs order by id").fetchall() == before


def test_retry_by_an_operator_needs_a_failed_job(started: Connection) -> None:
    assert value(started, "select retry_job('a')", []) is False  # the job is running
    value(started, "select fail_job(%s, %s, 'boom')", HELD)
    assert value(started, "select retry_job('a')", []) is True
    assert started.execute("select status, error, failed_at, finished_at from jobs where id = 'a'").fetchone() == (
        "pending",
        "boom",
        None,
        None,
    )
    assert [row[0] for row in started.execute("select id from claim_jobs(1, null, 5)")] == ["b", "a"]
    started.execute("select complete_jobs(1, '{a}', '{2}')")
    assert value(started, "select retry_job('a')", []) is False  # the job is completed
    assert value(started, "select retry_job('nobody')", []) is False


@pytest.mark.parametrize("delay", ["-1", "'NaN'", "'Infinity'", "null", "4e9"])
def test_invalid_delay_is_refused(started: Connection, delay: str) -> None:
    with pytest.raises(psycopg.Error, match="delay_seconds") as error:
        started.execute(f"select retry_job('a', {delay}, null, 1)")
    assert error.value.sqlstate == "JQ001"
    assert status(started) == "running"


def test_release_takes_the_start_back_and_can_be_repeated(started: Connection) -> None:
    assert started.execute("select release_jobs('{a,b}', '{1,1}')").fetchall() == [("b",)]
    assert started.execute("select release_jobs('{a}', '{1}')").fetchall() == []  # the first answer may have been lost
    assert started.execute("select status, attempts from jobs where id = 'a'").fetchone() == ("pending", 0)
    assert [row[0] for row in started.execute("select id from claim_jobs(2, null, 5)")] == ["b", "a"]
    assert started.execute("select release_jobs('{a}', '{1}')").fetchall() == [("a",)]


def test_released_start_is_not_mistaken_for_the_next_start_of_the_same_worker(started: Connection) -> None:
    started.execute("select release_jobs('{a}', '{1}')")
    started.execute("select cancel_job('b')")
    again = started.execute("select id, attempts, claim_id from claim_jobs(1)").fetchall()
    assert again == [("a", 1, 2)]
    assert started.execute("select complete_jobs(1, '{a}', '{1}')").fetchall() == [("a",)]
    assert started.execute("select release_jobs('{a}', '{1}')").fetchall() == [("a",)]
    assert value(started, "select fail_job(%s, %s, 'late')", HELD) is False
    assert value(started, "select retry_job('a', 0, 'late', 1)", []) is False
    assert status(started) == "running"


def test_release_with_a_delay_postpones_the_job(started: Connection) -> None:
    started.execute("select release_jobs('{a}', '{1}', 60)")
    assert [row[0] for row in started.execute("select id from claim_jobs(2, null, 5)")] == ["b"]


def test_cancel_ends_pending_and_running_jobs(started: Connection) -> None:
    assert value(started, "select cancel_job('a')", []) is True
    assert value(started, "select cancel_job('b')", []) is True
    assert value(started, "select cancel_job('a')", []) is False
    assert value(started, "select cancel_job('nobody')", []) is False
    assert started.execute("select lost_jobs('{a}', '{1}')").fetchall() == [("a",)]
    assert started.execute("select complete_jobs(1, '{a}', '{1}')").fetchall() == [("a",)]
    assert status(started) == status(started, "b") == "cancelled"


def test_first_of_two_concurrent_settles_wins(connect: Connect, started: Connection) -> None:
    one, two = connect(autocommit=False), connect()
    one.execute("select cancel_job('a')")
    two.execute("set lock_timeout = '100ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        two.execute("select complete_jobs(1, '{a}', '{1}')")
    one.commit()
    assert two.execute("select complete_jobs(1, '{a}', '{1}')").fetchall() == [("a",)]


def test_lost_jobs_returns_the_jobs_that_are_not_held(started: Connection) -> None:
    assert started.execute("select lost_jobs('{a,b,nobody}', '{1,1,1}')").fetchall() == [("b",), ("nobody",)]
    assert started.execute("select lost_jobs('{a}', '{2}')").fetchall() == [("a",)]
