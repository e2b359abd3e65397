"""Paused queues and types, and jobs that expire. The claim decides by the database's clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

Connection = psycopg.Connection[Any]
Connect = Callable[[], Connection]
pytestmark = pytest.mark.usefixtures("workers")


def enqueue(conn: Connection, *ids: str, queue: str = "default", type_: str = "t", **more: Any) -> None:
    for id_ in ids:
        conn.execute(
            "select enqueue_job(%s, queue => %s, job_id => %s, execute_at => %s)",
            [type_, queue, id_, more.get("execute_at")],
        )


def claimed(conn: Connection, queues: list[str] | None = None, limit: int = 100) -> list[str]:
    return [row[0] for row in conn.execute("select id from claim_jobs(1, %s, %s)", [queues, limit])]


@pytest.mark.parametrize("queues", [None, ["mail"], ["mail", "other"], ["mail", "mail"]])
def test_no_job_of_a_paused_queue_starts(conn: Connection, queues: list[str] | None) -> None:
    enqueue(conn, "a", queue="mail")
    enqueue(conn, "b", queue="other")
    conn.execute("select pause_queue('mail')")
    wanted = [] if queues in (["mail"], ["mail", "mail"]) else ["b"]
    assert claimed(conn, queues) == wanted
    assert conn.execute("select resume_queue('mail')").fetchone() == (True,)
    assert claimed(conn, queues) == ["a"]
    assert conn.execute("select resume_queue('mail')").fetchone() == (False,)


def test_due_jobs_of_a_paused_queue_keep_their_order(conn: Connection) -> None:
    conn.execute("select pause_queue('mail')")
    enqueue(conn, "a", queue="mail")
    enqueue(conn, "b", queue="mail", execute_at="2001-01-01Z")
    assert claimed(conn) == []
    conn.execute("select resume_queue('mail')")
    assert claimed(conn) == ["a", "b"]


def test_no_job_of_a_paused_type_starts(conn: Connection) -> None:
    enqueue(conn, "a", type_="export")
    enqueue(conn, "b", type_="mail")
    conn.execute("select pause_type('export', null, 'too slow')")
    assert claimed(conn) == ["b"]
    assert conn.execute("select type, reason from paused_types").fetchall() == [("export", "too slow")]
    assert conn.execute("select resume_type('export')").fetchone() == (True,)
    assert claimed(conn) == ["a"]


def test_pause_ends_at_its_time(conn: Connection) -> None:
    enqueue(conn, "a", queue="mail")
    conn.execute("select pause_queue('mail', clock_timestamp() + interval '1 hour')")
    assert claimed(conn) == []
    conn.execute("update pauses set paused_until = clock_timestamp()")
    assert claimed(conn) == ["a"]
    assert conn.execute("select paused from queues where name = 'mail'").fetchone() == (False,)


def test_next_due_includes_the_end_of_a_pause(conn: Connection) -> None:
    assert conn.execute("select next_due()").fetchone() == (None,)
    conn.execute("select pause_queue('mail', clock_timestamp() + interval '1 hour')")
    (due,) = conn.execute("select next_due()").fetchone() or (0.0,)
    assert 3590 < due <= 3600
    conn.execute("update pauses set paused_until = clock_timestamp() - interval '1 second'")
    assert conn.execute("select next_due()").fetchone() == (None,)


def test_maintenance_deletes_a_pause_that_has_ended_and_notifies(conn: Connection, connect: Connect) -> None:
    sleeper = connect()
    (worker,) = sleeper.execute("select register_worker('w')").fetchone() or (0,)
    sleeper.execute("listen pgjobq")
    sleeper.execute("select set_worker_state(%s, 'asleep')", [worker])
    conn.execute("select pause_queue('mail', clock_timestamp() + interval '1 hour')")
    list(sleeper.notifies(timeout=0.2))
    conn.execute("update pauses set paused_until = clock_timestamp()")
    conn.execute("select watch_workers(1)")
    assert [notify.payload for notify in sleeper.notifies(timeout=2, stop_after=1)] == ["mail"]
    assert conn.execute("select count(*) from pauses").fetchone() == (0,)


@pytest.mark.parametrize("call", ["resume_queue('mail')", "pause_queue('mail', clock_timestamp() + interval '1 hour')"])
def test_worker_is_notified_when_a_pause_gets_an_end_or_is_ended(conn: Connection, connect: Connect, call: str) -> None:
    sleeper = connect()
    (worker,) = sleeper.execute("select register_worker('w')").fetchone() or (0,)
    sleeper.execute("listen pgjobq")
    sleeper.execute("select set_worker_state(%s, 'asleep')", [worker])
    conn.execute("select pause_queue('mail')")
    assert list(sleeper.notifies(timeout=0.1)) == []
    conn.execute(f"select {call}")
    assert [notify.payload for notify in sleeper.notifies(timeout=2, stop_after=1)] == ["mail"]


def test_paused_queue_does_not_count_as_waiting(conn: Connection) -> None:
    """Otherwise the watching worker would pass over workers that did not answer."""
    enqueue(conn, "a", queue="mail")
    waiting = "select waiting from watch_workers(1, %s)"
    assert conn.execute(waiting, [None]).fetchone() == (True,)
    conn.execute("select pause_queue('mail')")
    assert conn.execute(waiting, [None]).fetchone() == (False,)
    assert conn.execute(waiting, [["mail"]]).fetchone() == (False,)


def test_pause_takes_effect_at_its_commit(conn: Connection, connect: Connect) -> None:
    enqueue(conn, "a", queue="mail")
    other = connect()
    other.autocommit = False
    other.execute("select pause_queue('mail')")
    assert claimed(conn, limit=1) == ["a"]  # the pause is not committed yet
    enqueue(conn, "b", queue="mail")
    other.commit()
    assert claimed(conn) == []


def test_pause_records_who_paused_and_why(conn: Connection) -> None:
    conn.execute("select pause_queue('mail', null, 'the provider is down')")
    (me,) = conn.execute("select session_user").fetchone() or ("",)
    row = "select paused, paused_until, paused_by, reason from queues where name = 'mail'"
    assert conn.execute(row).fetchone() == (True, None, me, "the provider is down")
    conn.execute("set pgjobq.actor = 'ann'")
    conn.execute("select pause_queue('mail', 'infinity', 'again')")
    assert conn.execute(row).fetchone() == (True, None, "ann", "again")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("pause_queue('mail', now() - interval '1 day')", r"^until: .* has passed"),
        ("pause_type('mail', now() - interval '1 day')", r"^until: .* has passed"),
        ("pause_queue('')", "^queue: '' is not the name of a queue"),
        ("pause_queue(null)", "^queue: NULL is not the name of a queue"),
        ("pause_type(repeat('x', 256))", "^type: 'x+' is not the name of a type"),
    ],
)
def test_invalid_pause_is_refused(conn: Connection, call: str, message: str) -> None:
    with pytest.raises(psycopg.Error, match=message) as caught:
        conn.execute(f"select {call}")
    assert (caught.value.sqlstate, bool(caught.value.diag.message_hint)) == ("JQ001", True)
    assert conn.execute("select count(*) from pauses").fetchone() == (0,)


@pytest.mark.parametrize("queues", [None, ["default"], ["default", "other"]])
def test_expired_job_is_cancelled_at_the_claim(conn: Connection, queues: list[str] | None) -> None:
    enqueue(conn, "old", "new", "none")
    conn.execute("update jobs set expires_at = clock_timestamp() where id = 'old'")
    conn.execute("update jobs set expires_at = clock_timestamp() + interval '1 hour' where id = 'new'")
    assert claimed(conn, queues, limit=3) == ["new", "none"]
    state = "select status, error, attempts, finished_at is not null from get_job('old')"
    assert conn.execute(state).fetchone() == ("cancelled", "expired", 0, True)
    assert conn.execute("select count(*) from ready").fetchone() == (0,)


def test_claim_finds_its_job_after_many_expired_jobs(conn: Connection) -> None:
    conn.execute("select enqueue_jobs(array_fill('t'::text, array[5000]))")
    conn.execute("update jobs set expires_at = clock_timestamp()")
    enqueue(conn, "last")
    found = [claimed(conn, limit=1) for _ in range(5)]
    assert ["last"] in found
    assert conn.execute("select count(*) from jobs where status = 'cancelled'").fetchone() == (5000,)


def test_expired_job_that_another_transaction_holds_is_cancelled_by_a_later_claim(
    conn: Connection, connect: Connect
) -> None:
    enqueue(conn, "a")
    conn.execute("update jobs set expires_at = clock_timestamp()")
    other = connect()
    other.autocommit = False
    other.execute("select from jobs for update")
    assert claimed(conn) == []
    other.rollback()
    assert claimed(conn) == []
    assert conn.execute("select status from get_job('a')").fetchone() == ("cancelled",)


def test_expired_job_does_not_start_again_after_a_retry(conn: Connection) -> None:
    enqueue(conn, "a")
    conn.execute("update jobs set expires_at = clock_timestamp() + interval '1 hour'")
    ((claim,),) = conn.execute("select claim_id from claim_jobs(1)").fetchall()
    conn.execute("select retry_job('a', 0, 'broken', %s)", [claim])
    conn.execute("update jobs set expires_at = clock_timestamp()")
    assert claimed(conn) == []
    assert conn.execute("select status, error from get_job('a')").fetchone() == ("cancelled", "expired")


def test_retry_by_an_operator_removes_the_expiry(conn: Connection) -> None:
    enqueue(conn, "a")
    conn.execute("update jobs set expires_at = clock_timestamp()")
    assert claimed(conn) == []
    assert conn.execute("select retry_job('a')").fetchone() == (True,)
    assert claimed(conn) == ["a"]
