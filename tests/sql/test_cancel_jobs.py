"""cancel_jobs works in bounded batches, waits for no lock, and notifies each worker once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

Connection = psycopg.Connection[Any]


@pytest.fixture
def line(conn: Connection, workers: None) -> Connection:
    """Jobs a to h. Worker 1 runs a to c, and worker 2 runs d."""
    conn.execute("select enqueue_job('t', job_id => chr(96 + n)) from generate_series(1, 8) n")
    conn.execute("select from claim_jobs(1, null, 3)")
    conn.execute("select from claim_jobs(2, null, 1)")
    return conn


def cancel(conn: Connection, arguments: str) -> Any:
    return conn.execute(f"select cancelled, reached_created_at, reached_id from cancel_jobs({arguments})").fetchone()


def statuses(conn: Connection) -> str:
    """Return the first letter of each job's status, in the order of the ids."""
    row = conn.execute("select string_agg(left(status, 1), '' order by id) from jobs").fetchone()
    assert row is not None
    return str(row[0])


def test_batches_continue_after_the_previous_one(line: Connection) -> None:
    done, at, id_ = cancel(line, "type => 't', max_jobs => 3")
    assert (done, id_, statuses(line)) == (3, "c", "cccrpppp")
    line.execute("select retry_job('a')")  # the job is behind the last batch, so the next one skips it
    done, at, id_ = cancel(line, f"type => 't', max_jobs => 4, after_created_at => '{at}', after_id => '{id_}'")
    assert (done, id_, statuses(line)) == (4, "g", "pccccccp")
    assert cancel(line, f"type => 't', max_jobs => 4, after_created_at => '{at}', after_id => '{id_}'")[0] == 1
    assert cancel(line, "type => 't', max_jobs => 1")[0] == 1
    assert cancel(line, "type => 't'") == (0, None, None)


def test_jobs_locked_by_another_transaction_are_skipped(line: Connection, connect: Callable[[], Connection]) -> None:
    other = connect()
    with other.transaction():
        other.execute("select from jobs where id in ('a', 'e') for update")
        line.execute("set statement_timeout = '5s'")
        assert cancel(line, "queue => 'default'")[0] == 6
    assert statuses(line) == "rcccpccc"
    assert cancel(line, "queue => 'default'")[0] == 2


def test_each_worker_is_notified_once(line: Connection, connect: Callable[[], Connection]) -> None:
    listener = connect()
    for worker in (1, 2, 3):
        row = line.execute("select cancel_channel(%s)", [worker]).fetchone()
        assert row is not None
        listener.execute(f'listen "{row[0]}"')
    cancel(line, "type => 't'")
    heard = [notification.channel.rpartition(":")[2] for notification in listener.notifies(timeout=0.5)]
    assert sorted(heard) == ["1", "2"]
    assert line.execute("select * from lost_jobs('{a,b,c,d}', '{1,1,1,2}')").fetchall() == [
        ("a",),
        ("b",),
        ("c",),
        ("d",),
    ]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ("", "queue"),
        ("reason => 'why', max_jobs => 5", "queue"),
        ("type => 't', max_jobs => 0", "max_jobs"),
        ("type => 't', max_jobs => 10001", "max_jobs"),
        ("type => 't', max_jobs => null", "max_jobs"),
    ],
)
def test_invalid_arguments_are_refused(line: Connection, arguments: str, field: str) -> None:
    with pytest.raises(psycopg.Error, match=rf"^{field}: ") as error:
        cancel(line, arguments)
    assert error.value.sqlstate == "JQ001"
    assert error.value.diag.message_hint
    assert statuses(line) == "rrrrpppp"


def test_jobs_must_match_every_filter(conn: Connection) -> None:
    conn.execute("""select enqueue_job(type, queue => queue, job_id => queue || ' ' || type)
                      from unnest('{x,y}'::text[]) type, unnest('{mail,default}'::text[]) queue""")
    assert cancel(conn, "queue => 'mail', type => 'x', created_before => now() - interval '1 hour'")[0] == 0
    assert cancel(conn, "queue => 'mail', type => 'x', created_before => now() + interval '1 hour'")[0] == 1
    assert conn.execute("select id from jobs where status = 'cancelled'").fetchall() == [("mail x",)]
    assert cancel(conn, "queue => 'mail'")[0] == 1
    assert cancel(conn, "created_before => 'infinity'")[0] == 2


def test_by_unique_key(line: Connection) -> None:
    line.execute("select enqueue_job('t', job_id => 'k', unique_key => 'key')")
    line.execute("select enqueue_job('u', job_id => 'l', unique_key => 'KEY')")
    assert cancel(line, "unique_key => 'key', type => 'u'")[0] == 0
    assert cancel(line, "unique_key => 'key', reason => 'no'")[0] == 1
    assert line.execute("select id, error from jobs where status = 'cancelled'").fetchall() == [("k", "no")]
