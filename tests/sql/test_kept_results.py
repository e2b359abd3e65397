"""What a handler returned: kept by complete_jobs, read by job_result, and gone with its job."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from helpers.calls import claim, one, register
from helpers.ends import complete_with_result

Connection = psycopg.Connection[Any]
COMPLETE = "select complete_jobs(%s, %s, %s, results => %s::text[]::jsonb[])"


@pytest.fixture
def started(conn: Connection) -> Callable[..., tuple[int, list[str], list[int]]]:
    """Starts jobs of these ids; the arguments of complete_jobs for them."""

    def start(*ids: str) -> tuple[int, list[str], list[int]]:
        for id_ in ids:
            conn.execute("select enqueue_job('t', job_id => %s)", [id_])
        worker = register(conn)
        assert claim(conn, worker, len(ids)) == list(ids)
        claim_id = one(conn, "select claim_id from jobs where id = %s", ids[0])
        return worker, list(ids), [claim_id] * len(ids)

    return start


def kept(conn: Connection) -> dict[str, Any]:
    return dict(conn.execute("select id, job_result(id) from jobs order by id").fetchall())


def test_some_of_a_batch_have_results(conn: Connection, started: Callable[..., Any]) -> None:
    worker, ids, claims = started("a", "b", "c", "d")
    conn.execute(COMPLETE, [worker, ids, claims, ['{"x": [1.50]}', None, "null", "false"]])
    assert kept(conn) == {"a": {"x": [1.5]}, "b": None, "c": None, "d": False}
    assert one(conn, "select count(*) from results") == 2
    assert one(conn, "select count(*) from claims") == 0
    assert one(conn, "select count(*) from jobs where status = 'completed'") == 4
    assert one(conn, "select job_result('unknown')") is None


def test_results_shorter_than_the_batch(conn: Connection, started: Callable[..., Any]) -> None:
    worker, ids, claims = started("a", "b")
    conn.execute(COMPLETE, [worker, ids, claims, ["1"]])
    assert kept(conn) == {"a": 1, "b": None}


def test_result_of_a_start_that_is_over_is_not_kept(conn: Connection, started: Callable[..., Any]) -> None:
    worker, ids, claims = started("a")
    conn.execute("select retry_job('a', claim_id => %s)", claims)
    assert conn.execute(COMPLETE, [worker, ids, claims, ["1"]]).fetchall() == [("a",)]
    assert one(conn, "select count(*) from results") == 0


def test_deleted_job_leaves_no_result(conn: Connection, started: Callable[..., Any]) -> None:
    worker, ids, claims = started("a")
    conn.execute("select complete_jobs(%s, %s, %s, keep => false, results => '{1}')", [worker, ids, claims])
    assert one(conn, "select count(*) from results") == 0


@pytest.mark.parametrize(("setting", "most"), [(None, 1_000_000), ("", 1_000_000), ("10", 10)])
def test_result_that_is_too_large_changes_nothing(
    conn: Connection, started: Callable[..., Any], setting: str | None, most: int
) -> None:
    worker, ids, claims = started("a", "b")
    if setting is not None:
        conn.execute("select set_config('pgjobq.max_result_bytes', %s, false)", [setting])
    fits, large = f'"{"x" * (most - 2)}"', f'"{"x" * (most - 1)}"'
    with pytest.raises(
        psycopg.Error, match=rf"result: has {most + 1} bytes.*max_result_bytes = {most} \(job b\)"
    ) as caught:
        conn.execute(COMPLETE, [worker, ids, claims, [fits, large]])
    assert caught.value.sqlstate == "JQ001"
    assert one(conn, "select count(*) from jobs where status = 'running'") == 2
    conn.execute(COMPLETE, [worker, ids, claims, [fits, fits]])
    assert one(conn, "select count(*) from results") == 2


def test_job_that_runs_again_has_no_result(conn: Connection, started: Callable[..., Any]) -> None:
    conn.execute("select enqueue_job('t', job_id => 'a')")
    complete_with_result(conn)
    conn.execute("update jobs set status = 'pending' where id = 'a'")
    assert kept(conn) == {"a": None}
    worker = register(conn)
    assert claim(conn, worker) == ["a"]
    conn.execute("select complete_jobs(%s, '{a}', array[(select claim_id from jobs)])", [worker])
    assert kept(conn) == {"a": None}  # it returned nothing this time
    conn.execute("update jobs set status = 'pending' where id = 'a'")
    complete_with_result(conn)
    assert kept(conn) == {"a": [1]}


def test_prune_deletes_results_and_those_of_jobs_that_are_gone(conn: Connection, started: Callable[..., Any]) -> None:
    worker, ids, claims = started("a", "b", "c")
    conn.execute(COMPLETE, [worker, ids, claims, ["1", "2", "3"]])
    conn.execute(
        "update jobs set finished_at = now() - interval '9 days', created_at = now() - interval '9 days' where id = 'a'"
    )
    conn.execute("delete from jobs where id = 'b'")
    assert one(conn, "select pruned from prune_jobs()") == 1
    assert kept(conn) == {"c": 3}
    assert one(conn, "select array_agg(job_id) from results") == ["c"]


def test_import_keeps_results_of_completed_jobs(conn: Connection) -> None:
    conn.execute("insert into results (job_id, result) values ('b', '\"of a job that was deleted\"')")
    jobs = """[{"id": "a", "type": "t", "status": "completed", "result": {"n": 1}},
               {"id": "b", "type": "t", "status": "completed"}, {"id": "c", "type": "t", "result": 1},
               {"id": "d", "type": "t", "status": "completed", "result": null}, {"type": "t", "status": "completed"}]"""
    assert one(conn, "select import_jobs(%s::jsonb)", jobs) == 5
    assert {id_: result for id_, result in kept(conn).items() if len(id_) == 1} == {
        "a": {"n": 1},
        "b": None,
        "c": None,
        "d": None,
    }
    assert (
        one(
            conn,
            "select import_jobs(%s::jsonb)",
            jobs.replace('"n": 1', '"n": 2').replace(', {"type": "t", "status": "completed"}', ""),
        )
        == 0
    )
    assert kept(conn)["a"] == {"n": 1}


def test_waiting_in_psql(conn: Connection) -> None:
    assert conn.execute("select * from wait_for_job('a')").fetchall() == []
    conn.execute("select enqueue_job('t', job_id => 'a')")
    with pytest.raises(psycopg.Error, match=r"timeout: the job a has not ended within 00:00:00\.05") as caught:
        conn.execute("select * from wait_for_job('a', '50 ms')")
    assert caught.value.sqlstate == "JQ011"
    complete_with_result(conn)
    query = "select id, status, job_result(id) from wait_for_job('a', '0')"
    assert conn.execute(query).fetchall() == [("a", "completed", [1])]


def test_wait_that_ends_meanwhile(conn: Connection, connect: Callable[..., Connection]) -> None:
    conn.execute("select enqueue_job('t', job_id => 'a')")
    threading.Timer(0.1, connect().execute, ["select cancel_job('a')"]).start()
    assert one(conn, "select status from wait_for_job('a', '20 s')") == "cancelled"


@pytest.mark.parametrize("bad", ["null", "'-1 s'"])
def test_bad_timeouts(conn: Connection, bad: str) -> None:
    with pytest.raises(psycopg.Error, match=r"timeout: .* is not a time to wait"):
        conn.execute(f"select wait_for_job('a', {bad})")


def test_wait_in_a_snapshot_is_refused(conn: Connection) -> None:
    conn.execute("begin isolation level repeatable read")
    with pytest.raises(psycopg.Error, match="a transaction in repeatable read cannot see a job end"):
        conn.execute("select wait_for_job('a')")


def test_steps_of_a_session_that_waits(conn: Connection, connect: Callable[..., Connection]) -> None:
    """As wait_for_jobs describes them, for programs in other languages."""
    waiter = connect()
    conn.execute("select enqueue_jobs('{t,t}', job_ids => '{a,b}')")
    channel = one(waiter, "select wait_for_jobs('{a,b,unknown}')")
    waiter.execute(f'listen "{channel}"')
    assert one(waiter, "select open_transactions('jobs')") == []
    assert waiter.execute("select id, job from ended_jobs('{a,b,unknown}')").fetchall() == [("unknown", None)]
    assert one(waiter, "select wait_for_jobs('{}', '{b,unknown}')") == channel
    conn.execute("select cancel_job('b'), cancel_job('a', 'enough')")
    assert [heard.payload for heard in waiter.notifies(timeout=10, stop_after=1)] == ["a"]
    assert waiter.execute("select id, (job).error from ended_jobs('{a}')").fetchall() == [("a", "enough")]
    waiter.execute("select stop_waiting()")
    assert one(conn, "select count(*) from waits") == 0
    assert not one(conn, "select is_waited()")


def test_wait_that_was_rolled_back_ends_all_the_same(conn: Connection, connect: Callable[..., Connection]) -> None:
    waiter = connect()
    for end in ("rollback", "commit"):
        waiter.execute("begin")
        waiter.execute("select wait_for_jobs('{a}')")
        waiter.execute(end)
    assert one(conn, "select is_waited()")
    waiter.execute("select stop_waiting()")
    assert not one(conn, "select is_waited()")
