"""A start is named by its claim, which never comes again: no repeated settle touches a later start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from pgjobq import LostJob
from pgjobq.models import Job
from pgjobq.storage.base import Completed, Failed, Outcome, Released, Retried
from pgjobq.storage.postgres_storage import PostgresStorage

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]
MakeStorage = Callable[..., PostgresStorage]

# Each way to settle a start of job a by worker 1, given the claim: the statement, and what it answers when it has done so.
SETTLES: dict[str, tuple[str, list[Any]]] = {
    "complete": ("select complete_jobs(1, '{{a}}', '{{{0}}}')", []),
    "complete and delete": ("select complete_jobs(1, '{{a}}', '{{{0}}}', keep => false)", []),
    "complete, claim finished": ("select complete_jobs(1, '{{a}}', '{{{0}}}', '{{{0}}}')", []),
    "fail": ("select fail_job('a', {0}, 'x')", [(True,)]),
    "retry": ("select retry_job('a', 0, 'x', {0})", [(True,)]),
    "release": ("select release_jobs('{{a}}', '{{{0}}}')", []),
    "unknown": ("select release_unknown_jobs(1, '{{}}')", [(1,)]),
}


@pytest.fixture(autouse=True)
def two_workers(conn: Connection) -> None:
    """Workers 1 and 2, and job a."""
    assert conn.execute("select register_worker('one'), register_worker('two')").fetchone() == (1, 2)
    conn.execute("select enqueue_job('t', job_id => 'a')")


def claim(conn: Connection, worker: int = 1) -> int:
    row = conn.execute("select claim_id, id from claim_jobs(%s)", [worker]).fetchone()
    assert row is not None
    assert row[1] == "a"
    return int(row[0])


def jobs(conn: Connection) -> Any:
    return conn.execute("select to_jsonb(jobs) from jobs order by id").fetchall()


def make_claimable(conn: Connection) -> None:
    """Whatever became of job a: it waits again."""
    if conn.execute("select from jobs where status <> 'pending'").fetchone() is not None:
        conn.execute("update jobs set status = 'pending', failed_at = null, finished_at = null")
    elif conn.execute("select from jobs").fetchone() is None:
        conn.execute("select enqueue_job('t', job_id => 'a')")


@pytest.mark.parametrize("by", [1, 2])
@pytest.mark.parametrize("first", SETTLES)
def test_settle_of_an_ended_start_leaves_the_next_start_alone(conn: Connection, first: str, by: int) -> None:
    """No settle of a start that has ended, the same or another, by the same worker or not, changes the next one."""
    start = claim(conn)
    query, done = SETTLES[first]
    assert conn.execute(query.format(start)).fetchall() == done
    make_claimable(conn)
    following = claim(conn, by)
    before = jobs(conn)
    for again, (settle, _) in SETTLES.items():
        if again != "unknown":
            conn.execute(settle.format(start))
            assert jobs(conn) == before, again
    assert conn.execute("select id from lost_jobs('{a}', %s) as id", [[start]]).fetchall() == [("a",)]
    assert conn.execute("select from lost_jobs('{a}', %s)", [[following]]).fetchall() == []
    assert conn.execute("select complete_jobs(%s, '{a}', %s)", [by, [following]]).fetchall() == []
    assert jobs(conn)[0][0]["status"] == "completed"
    assert conn.execute("select from claims where id = %s", [following]).fetchall() == []


@pytest.mark.parametrize("settle", [name for name in SETTLES if name != "unknown"])
def test_settle_may_be_repeated(conn: Connection, settle: str) -> None:
    """A settle whose answer was lost has the same answer the second time, and changes nothing then."""
    query, done = SETTLES[settle]
    start = claim(conn)
    assert conn.execute(query.format(start)).fetchall() == done
    before = jobs(conn)
    assert conn.execute(query.format(start)).fetchall() == done
    assert jobs(conn) == before


@pytest.mark.parametrize("ending", ["select cancel_job('a')", "select rescue_jobs('0 s')", "delete from jobs"])
@pytest.mark.parametrize("settle", [name for name in SETTLES if name not in ("unknown", "complete and delete")])
def test_settle_of_a_start_that_another_ended_says_so(
    connect: Connect, conn: Connection, ending: str, settle: str
) -> None:
    """A worker whose start was ended by another is told so by every settle, which changes nothing."""
    query, done = SETTLES[settle]
    start = claim(conn)
    other = connect()
    if "rescue" in ending:
        pid = conn.info.backend_pid
        conn.close()
        while other.execute("select from pg_stat_activity where pid = %s", [pid]).fetchone() is not None:
            other.execute("select pg_stat_clear_snapshot()")
    other.execute(ending)
    before = jobs(other)
    assert other.execute(query.format(start)).fetchall() == ([("a",)] if done == [] else [(False,)])
    assert jobs(other) == before


def test_two_settles_of_one_start_at_once_end_as_one(connect: Connect, conn: Connection) -> None:
    """Of two settles of one start, the one that commits first counts, and the other is told that the start is over."""
    start = claim(conn)
    one = connect(autocommit=False)
    one.execute("select release_jobs('{a}', %s)", [[start]])
    with pytest.raises(psycopg.errors.LockNotAvailable):
        conn.execute("select complete_jobs(1, '{a}', %s)", [[start]])
    one.commit()
    assert conn.execute("select complete_jobs(1, '{a}', %s)", [[start]]).fetchall() == [("a",)]
    assert jobs(conn)[0][0]["attempts"] == 0


def test_ids_of_claims_never_come_again(connect: Connect, conn: Connection) -> None:
    """A claim that is rolled back, and one of another worker, use up their ids."""
    one = connect(autocommit=False)
    seen = [claim(one)]
    one.rollback()
    for worker in (1, 2, 1):
        seen.append(claim(conn, worker))
        conn.execute("select release_jobs('{a}', %s)", [[seen[-1]]])
    assert len(set(seen)) == 4


OUTCOMES: list[Callable[[Job], Outcome]] = [
    Completed,
    lambda job: Failed(job, "x"),
    lambda job: Retried(job, 0.0, "x"),
    Released,
]


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_storage_that_claims_between_settle_and_drop_knows_the_new_start(
    conn: Connection, storage: PostgresStorage, outcome: Callable[[Job], Outcome]
) -> None:
    """A storage that settles a start twice, and has claimed the job again between, still holds the new start."""
    first = storage.dequeue()
    assert first is not None
    assert storage.settle([outcome(first)]) == []
    make_claimable(conn)
    second = storage.dequeue()
    assert second is not None
    storage.settle([outcome(first)])
    assert storage.maintain([second]).lost == []
    assert conn.execute("select status from jobs").fetchone() == ("running",)
    storage.complete("a")
    assert conn.execute("select status from jobs").fetchone() == ("completed",)
    with pytest.raises(LostJob):
        storage.complete("a")
    assert conn.execute("select from claims").fetchall() == []


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_start_of_a_killed_storage_is_rescued_though_an_earlier_start_was_settled_late(
    conn: Connection, make_storage: MakeStorage, outcome: Callable[[Job], Outcome]
) -> None:
    """A claim made between a settle and its end in memory is still in the database when its worker dies."""
    storage = make_storage()
    first = storage.dequeue()
    assert first is not None
    assert storage.settle([outcome(first)]) == []
    make_claimable(conn)
    assert storage.dequeue() is not None
    storage.settle([outcome(first)])
    storage.close()
    deadline = conn.execute("select clock_timestamp() + interval '10 s'").fetchone()
    while conn.execute("select rescued from rescue_jobs('0 s')").fetchone() == (0,):
        assert conn.execute("select clock_timestamp() < %s", deadline).fetchone() == (True,)
    assert conn.execute("select status from jobs").fetchone() == ("pending",)
