"""enqueue_job, enqueue_jobs, plain inserts and COPY all give jobs a place in line, or change nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from helpers.calls import one

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]

pytestmark = pytest.mark.usefixtures("workers")

SIDE_TABLES = "select (select count(*) from ready), (select count(*) from scheduled), (select count(*) from jobs)"


def test_example_of_the_manual_works(conn: Connection) -> None:
    conn.execute("set search_path = public")
    job_id = one(
        conn, """select enqueue_job('send_email', '{"to": "a@b.c"}', priority => 9, execute_at => now() + '5 min')"""
    )
    row = conn.execute(
        "select type, data, priority, status, attempts, max_retries, queue from pgjobq.get_job(%s)", [job_id]
    )
    assert row.fetchone() == ("send_email", {"to": "a@b.c"}, 9, "pending", 0, 3, "default")
    assert len(one(conn, "select enqueue_job('t')")) == 36


def test_id_is_a_uuid_of_version_7(conn: Connection) -> None:
    ids = [row[0] for row in conn.execute("select new_job_id() from generate_series(1, 50)")]
    assert len(set(ids)) == 50
    assert {id_[14] for id_ in ids} == {"7"}
    assert {id_[19] for id_ in ids} <= set("89ab")
    now = one(conn, "select (extract(epoch from clock_timestamp()) * 1000)::bigint")
    assert abs(int(ids[0].replace("-", "")[:12], 16) - now) < 60_000


def test_every_argument_reaches_its_column(conn: Connection) -> None:
    conn.execute(
        """select enqueue_job(type => 'T', data => '{"d": 1}', priority => -3, execute_at => '2100-01-01Z',
                              max_retries => 8, queue => 'Q', job_id => 'I')"""
    )
    row = conn.execute("select id, type, data, priority, execute_at::text, max_retries, queue from jobs").fetchone()
    assert row == ("I", "T", {"d": 1}, -3, "2100-01-01 00:00:00+00", 8, "Q")
    row = conn.execute("select execute_at::text, queue, lane, job_id from scheduled").fetchone()
    assert row == ("2100-01-01 00:00:00+00", "Q", 3, "I")


def test_bulk_returns_ids_in_order_and_fills_in_defaults(conn: Connection) -> None:
    ids = conn.execute(
        """select enqueue_jobs(types => '{a,b,c}', datas => array['{"n": 1}', null, '{"n": 3}']::jsonb[],
                               priorities => '{7,null,1}', execute_ats => array[null, null, '2100-01-01']::timestamptz[],
                               max_retries => '{0,null,null}', queues => '{q,null,null}', job_ids => '{x,null,z}')"""
    ).fetchall()
    assert [ids[0], ids[2]] == [("x",), ("z",)]
    rows = conn.execute("select id, type, data, priority, max_retries, queue from jobs order by type").fetchall()
    assert rows == [
        ("x", "a", {"n": 1}, 7, 0, "q"),
        (ids[1][0], "b", {}, 5, 3, "default"),
        ("z", "c", {"n": 3}, 1, 3, "default"),
    ]
    assert conn.execute(SIDE_TABLES).fetchone() == (2, 1, 3)


def test_bulk_keeps_the_order_of_its_jobs(conn: Connection) -> None:
    ids = [f"{n:04}" for n in range(500)]
    conn.execute("select enqueue_jobs(array_fill('t'::text, array[500]), job_ids => %s)", [ids])
    assert [row[0] for row in conn.execute("select id from claim_jobs(1, null, 500)")] == ids


def test_plain_insert_and_copy_enqueue_jobs(conn: Connection) -> None:
    conn.execute("insert into jobs (type, execute_at) values ('now', null), ('later', now() + interval '1 day')")
    with conn.cursor().copy("copy jobs (type, data, queue) from stdin") as copy:
        for n in range(3):
            copy.write_row(["copied", f'{{"n": {n}}}', "bulk"])
    assert conn.execute(SIDE_TABLES).fetchone() == (4, 1, 5)
    assert [row[0]["n"] for row in conn.execute("select data from claim_jobs(1, '{bulk}', 5)")] == [0, 1, 2]


def test_inserted_finished_jobs_get_no_place(conn: Connection) -> None:
    conn.execute("insert into jobs (type, status, finished_at) values ('old', 'completed', now())")
    assert conn.execute(SIDE_TABLES).fetchone() == (0, 0, 1)


def test_enqueue_that_is_rolled_back_leaves_nothing(connect: Connect) -> None:
    conn = connect(autocommit=False)
    conn.execute("select enqueue_job('a'), enqueue_job('b', execute_at => now() + '1 day')")
    conn.execute("savepoint s")
    conn.execute("select enqueue_job('c')")
    conn.execute("rollback to savepoint s")
    assert conn.execute(SIDE_TABLES).fetchone() == (1, 1, 2)
    conn.rollback()
    assert conn.execute(SIDE_TABLES).fetchone() == (0, 0, 0)


def test_job_of_an_open_transaction_is_claimed_after_its_commit(connect: Connect) -> None:
    writer, worker = connect(autocommit=False), connect()
    writer.execute("select enqueue_job('t', job_id => 'a')")
    assert worker.execute("select id from claim_jobs(1)").fetchall() == []
    writer.commit()
    assert worker.execute("select id from claim_jobs(1)").fetchall() == [("a",)]


@pytest.mark.parametrize(
    ("arguments", "field", "state"),
    [
        ("''", "type", "JQ001"),
        ("repeat('x', 10000)", "type", "JQ001"),
        ("null", "type", "JQ001"),
        ("'t', queue => ''", "queue", "JQ001"),
        ("'t', queue => repeat('x', 10000)", "queue", "JQ001"),
        ("'t', '[1]'", "data", "JQ001"),
        ("'t', 'null'", "data", "JQ001"),
        ("'t', priority => 3000000000", "priority", "JQ001"),
        ("'t', max_retries => -1", "max_retries", "JQ001"),
        ("'t', job_id => ''", "job_id", "JQ001"),
        ("'t', '{\"a\": \"\\u0000\"}'", "", "22P05"),
        ("'t', '{\"a\": NaN}'", "", "22P02"),
    ],
)
def test_invalid_input_names_the_field_and_changes_nothing(
    conn: Connection, arguments: str, field: str, state: str
) -> None:
    with pytest.raises(psycopg.Error) as error:
        conn.execute(f"select enqueue_job({arguments})")
    assert error.value.sqlstate == state
    if state == "JQ001":
        assert field in str(error.value.diag.message_primary).split(":")[0]
        assert error.value.diag.message_hint
    assert conn.execute(SIDE_TABLES).fetchone() == (0, 0, 0)


@pytest.mark.parametrize("row", ["('', '{}', 'pending')", "('t', '[]', 'pending')", "('t', '{}', 'running')"])
def test_invalid_row_of_a_plain_insert_is_refused(conn: Connection, row: str) -> None:
    with pytest.raises(psycopg.Error) as error:
        conn.execute(f"insert into jobs (type, data, status) values ('good', '{{}}', 'pending'), {row}")
    assert error.value.sqlstate == "JQ001"
    assert conn.execute(SIDE_TABLES).fetchone() == (0, 0, 0)


@pytest.mark.parametrize("moment", ["infinity", "-infinity", "0044-03-15 BC", "10000-01-01"])
def test_time_that_clients_cannot_read_is_refused(conn: Connection, moment: str) -> None:
    for statement in (
        "select enqueue_job('t', execute_at => %s)",
        "insert into jobs (type, execute_at) values ('t', %s)",
    ):
        with pytest.raises(psycopg.errors.CheckViolation, match="execute_at_is_in_the_years_1_to_9999"):
            conn.execute(statement, [moment])
    assert conn.execute(SIDE_TABLES).fetchone() == (0, 0, 0)


@pytest.mark.parametrize("arguments", ["'{a,b}', queues => '{q}'", "array['a', null]", "'{a}', max_retries => '{-1}'"])
def test_invalid_bulk_is_refused(conn: Connection, arguments: str) -> None:
    with pytest.raises(psycopg.Error) as error:
        conn.execute(f"select enqueue_jobs({arguments})")
    assert error.value.sqlstate == "JQ001"
    assert conn.execute(SIDE_TABLES).fetchone() == (0, 0, 0)


def test_duplicate_id_is_refused(conn: Connection) -> None:
    conn.execute("select enqueue_job('t', job_id => 'a')")
    with pytest.raises(psycopg.errors.UniqueViolation) as error:
        conn.execute("select enqueue_job('t', job_id => 'a')")
    assert error.value.diag.constraint_name == "job_id_exists_already"
    assert conn.execute(SIDE_TABLES).fetchone() == (1, 0, 1)
