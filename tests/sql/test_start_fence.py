"""A claim id identifies a start and is never used again, so that no repeated settle affects a later start."""

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

# The ways to settle a start of job a by worker 1 with this claim: the statement, and its result on success.
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
    """Workers 1 and 2, and the pending job a."""
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
    """Make job a pending again, whatever happened to it."""
    if conn.execute("select from jobs where status <> 'pending'").fetchone() is not None:
        conn.execute("update jobs set status = 'pending', failed_at = null, finished_at = null")
    elif conn.execute("select from jobs").fetchone() is None:
        conn.execute("select enqueue_job('t', job_id => 'a')")


@pytest.mark.parametrize("by", [1, 2])
@pytest.mark.parametrize("first", SETTLES)
def test_settle_of_an_ended_start_does_not_affect_the_next_start(conn: Connection, first: str, by: int) -> None:
    """No settle of the ended start changes the next one, by whichever worker it is."""
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
def test_settle_can_be_repeated(conn: Connection, settle: str) -> None:
    """The answer to the first call may have been lost. The second call has the same result and changes nothing."""
    query, done = SETTLES[settle]
    start = claim(conn)
    assert conn.execute(query.format(start)).fetchall() == done
    before = jobs(conn)
    assert conn.execute(query.format(start)).fetchall() == done
    assert jobs(conn) == before


@pytest.mark.parametrize("ending", ["select cancel_job('a')", "select rescue_jobs('0 s')", "delete from jobs"])
@pytest.mark.parametrize("settle", [name for name in SETTLES if name not in ("unknown", "complete and delete")])
def test_settle_of_a_start_that_another_session_ended_reports_it(
    connect: Connect, conn: Connection, ending: str, settle: str
) -> None:
    """Every kind of settle reports the lost start and changes nothing."""
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


def test_first_of_two_concurrent_settles_of_one_start_wins(connect: Connect, conn: Connection) -> None:
    """The settle that commits first counts, and the other one reports that the start is over."""
    start = claim(conn)
    one = connect(autocommit=False)
    one.execute("select release_jobs('{a}', %s)", [[start]])
    with pytest.raises(psycopg.errors.LockNotAvailable):
        conn.execute("select complete_jobs(1, '{a}', %s)", [[start]])
    one.commit()
    assert conn.execute("select complete_jobs(1, '{a}', %s)", [[start]]).fetchall() == [("a",)]
    assert jobs(conn)[0][0]["attempts"] == 0


def test_claim_ids_are_never_used_again(connect: Connect, conn: Connection) -> None:
    """A claim that is rolled back uses up its id, and so does a claim of another worker."""
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
def test_storage_still_holds_a_new_start_after_it_settles_the_old_one_again(
    conn: Connection, storage: PostgresStorage, outcome: Callable[[Job], Outcome]
) -> None:
    """The storage settles a start twice and claims the job again in between."""
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
def test_new_start_is_rescued_after_the_storage_settled_the_old_one_again(
    conn: Connection, make_storage: MakeStorage, outcome: Callable[[Job], Outcome]
) -> None:
    """The new claim must still be in the database when its worker dies."""
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
