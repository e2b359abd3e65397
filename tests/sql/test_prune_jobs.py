"""prune_jobs: which jobs are old enough, where the next batch continues, and one caller at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]


pytestmark = pytest.mark.usefixtures("workers")


def add(conn: Connection, id_: str, status: str, created: int, finished: int | None = None) -> None:
    """Add a job that was created and finished this many days ago."""
    conn.execute(
        """insert into jobs (id, type, status, created_at, finished_at, failed_at)
           select %s, 't', s, now() - make_interval(days => %s), at, case s when 'failed' then at end
             from (values (%s, now() - make_interval(days => %s))) as given (s, at)""",
        [id_, created, status, finished],
    )


def ids(conn: Connection) -> str:
    return "".join(row[0] for row in conn.execute("select id from jobs order by id"))


def prune(conn: Connection, *arguments: Any, **more: Any) -> Any:
    named = "".join(f", {name} => %s" for name in more)
    query = f"select * from prune_jobs(%s, %s::text[], %s{named})"
    return conn.execute(query, [*arguments, *more.values()]).fetchone()


def test_only_old_jobs_with_a_given_status_are_deleted(conn: Connection) -> None:
    add(conn, "a", "completed", 9, 8)
    add(conn, "b", "completed", 9, 1)  # finished less than 7 days ago
    add(conn, "c", "cancelled", 9, 8)
    add(conn, "d", "failed", 9, 8)
    add(conn, "e", "pending", 9)
    add(conn, "f", "completed", 1, 1)
    conn.execute("select enqueue_job('t', job_id => 'r', priority => 9)")
    conn.execute("select from claim_jobs(1)")
    assert prune(conn, "7 days", ["completed", "cancelled"], 1000)[0] == 2
    assert ids(conn) == "bdefr"
    assert prune(conn, "7 days", ["failed"], 1000)[0] == 1
    assert prune(conn, "0", ["completed", "cancelled", "failed"], 1000)[0] == 2
    assert ids(conn) == "er"


def test_jobs_of_other_queues_are_kept(conn: Connection) -> None:
    for id_ in "abc":
        add(conn, id_, "completed", 9, 8)
    conn.execute("update jobs set queue = id")
    assert prune(conn, "7 days", ["completed"], 1000, queues=["a", "c", "none"])[0] == 2
    assert ids(conn) == "b"


def test_batches_continue_after_the_previous_one(conn: Connection) -> None:
    for n, id_ in enumerate("abcde"):
        add(conn, id_, "completed", 30 - n, 8)
    pruned, at, id_ = prune(conn, "7 days", ["completed"], 2)
    assert (pruned, id_, ids(conn)) == (2, "b", "cde")
    add(conn, "0", "completed", 40, 8)  # this job is behind the last batch, so the next one skips it
    pruned, at, id_ = prune(conn, "7 days", ["completed"], 2, after_created_at=at, after_id=id_)
    assert (pruned, id_, ids(conn)) == (2, "d", "0e")
    pruned, at, id_ = prune(conn, "7 days", ["completed"], 2, after_created_at=at, after_id=id_)
    assert (pruned, id_, ids(conn)) == (1, "", "0")
    assert conn.execute("select %s between now() - interval '7 days 1 min' and now() - interval '7 days'", [at]).fetchone() == (True,)  # fmt: skip
    assert prune(conn, "7 days", ["completed"], 2, after_created_at=at, after_id=id_)[0] == 0
    assert prune(conn, "7 days", ["completed"], 2)[0] == 1


def test_jobs_with_the_same_created_at_are_ordered_by_id(conn: Connection) -> None:
    conn.execute(
        """insert into jobs (id, type, status, created_at, finished_at)
           select 'n' || n, 't', 'completed', now() - interval '1 day', now() from generate_series(1, 9) as n"""
    )
    at, id_ = None, None
    counts: list[int] = []
    while not counts or counts[-1] == 2:
        pruned, at, id_ = prune(conn, "0", ["completed"], 2, after_created_at=at, after_id=id_)
        counts.append(pruned)
    assert counts == [2, 2, 2, 2, 1]


def test_jobs_locked_by_another_transaction_are_skipped(connect: Connect, conn: Connection) -> None:
    for id_ in "ab":
        add(conn, id_, "completed", 9, 8)
    holder = connect(autocommit=False)
    holder.execute("select from jobs where id = 'a' for update")
    assert prune(conn, "7 days", ["completed"], 1000)[0] == 1
    assert ids(conn) == "a"


def test_only_one_caller_prunes_at_a_time(connect: Connect, conn: Connection) -> None:
    for id_ in "ab":
        add(conn, id_, "completed", 9, 8)
    first = connect(autocommit=False)
    assert prune(first, "7 days", ["completed"], 1)[0] == 1
    # The lock is for the current minute, so that it blocks others no longer. Lock the next minute too, in case it begins now.
    held = "select objid::int from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"
    ((minute,),) = first.execute(held).fetchall()
    now = conn.execute("select extract(epoch from clock_timestamp()) / 60").fetchone() or (0,)
    assert abs(minute - now[0]) < 2
    first.execute("select pg_advisory_xact_lock(lock_class('pruning'), %s)", [minute + 1])
    assert prune(conn, "7 days", ["completed"], 1) == (None, None, None)
    first.commit()
    assert prune(conn, "7 days", ["completed"], 1)[0] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["7 days", ["pending"], 1], "statuses: "),
        (["7 days", None, 1], "statuses: "),
        (["7 days", ["completed"], 0], "max_jobs: "),
        (["7 days", ["completed"], None], "max_jobs: "),
        (["-1 day", ["completed"], 1], "older_than: "),
        ([None, ["completed"], 1], "older_than: "),
    ],
)
def test_invalid_arguments_are_refused(conn: Connection, arguments: list[Any], message: str) -> None:
    add(conn, "a", "completed", 9, 8)
    with pytest.raises(psycopg.Error, match=message) as refused:
        prune(conn, *arguments)
    assert refused.value.sqlstate == "JQ001"
    assert ids(conn) == "a"
