"""export_jobs returns every job once, in pages. import_jobs adds jobs with their state."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

Connection = psycopg.Connection[Any]

pytestmark = pytest.mark.usefixtures("workers")

FINISHED = "2024-02-01T00:00:00+00:00"


def imported(conn: Connection, *jobs: dict[str, Any]) -> int:
    row = conn.execute("select import_jobs(%s)", [json.dumps(jobs)]).fetchone()
    assert row is not None
    return int(row[0])


def pages(conn: Connection, size: int) -> list[list[str]]:
    """Return the ids of each page of the export."""
    found, last = [], (None, None)
    while rows := conn.execute("select created_at, id from export_jobs(%s, %s, %s)", [size, *last]).fetchall():
        found.append([row[1] for row in rows])
        last = rows[-1]
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_export_returns_every_job_once_oldest_first(conn: Connection, size: int) -> None:
    # The jobs of one transaction have the same created_at. Here their ids are in reverse order.
    conn.execute("insert into jobs (id, type, created_at) values ('z', 't', '2020-01-01Z'), ('a', 't', '2021-01-01Z')")
    conn.execute("select enqueue_jobs('{t,t,t,t}', job_ids => '{e,d,c,b}')")
    found = pages(conn, size)
    assert [name for page in found for name in page] == ["z", "a", "b", "c", "d", "e"]
    assert all(len(page) == size for page in found[:-1])


def test_export_of_no_jobs_is_empty_and_an_invalid_page_size_is_refused(conn: Connection) -> None:
    assert pages(conn, 10) == []
    for size in ("0", "-1", "null"):
        with pytest.raises(psycopg.Error, match=r"max_jobs: .* is not a positive number") as raised:
            conn.execute(f"select from export_jobs({size})")
        assert raised.value.sqlstate == "JQ001"


def test_import_keeps_every_given_value(conn: Connection) -> None:
    given = {
        "id": "a",
        "queue": "mail",
        "type": "send",
        "data": {"to": "Ünal", "n": [1, None]},
        "status": "failed",
        "priority": -3,
        "attempts": 4,
        "max_retries": 3,
        "execute_at": "2024-01-01T00:00:00+00:00",
        "error": "ValueError: x\nTraceback",
        "created_at": "2023-12-31T23:00:00.123456+00:00",
        "updated_at": FINISHED,
        "started_at": "2024-01-31T23:59:00+00:00",
        "finished_at": FINISHED,
        "failed_at": FINISHED,
        "worker_id": 7,
        "claim_id": 8,
        "unique_key": "k",
        "expires_at": FINISHED,
    }
    assert imported(conn, given) == 1
    conn.execute("set timezone = 'UTC'")
    kept = conn.execute("select to_jsonb(jobs) from jobs").fetchone()
    assert kept == (given | {"worker_id": None, "claim_id": None, "crashes": 0, "fingerprint": None},)
    assert conn.execute("select count(*) from ready").fetchone() == (0,)


def test_import_does_not_change_existing_jobs(conn: Connection) -> None:
    conn.execute("select enqueue_job('mine', job_id => 'a')")
    assert imported(conn, {"id": "a", "type": "theirs"}, {"id": "b", "type": "theirs"}) == 1
    assert imported(conn, {"id": "a", "type": "theirs"}, {"id": "b", "type": "theirs"}) == 0
    assert imported(conn) == 0
    assert conn.execute("select import_jobs(null)").fetchone() == (0,)  # jsonb_agg returns null if there are no rows
    assert conn.execute("select id, type from jobs order by id").fetchall() == [("a", "mine"), ("b", "theirs")]
    assert conn.execute("select job_id from ready order by seq").fetchall() == [("a",), ("b",)]


def test_pending_jobs_are_imported_in_the_given_order(conn: Connection) -> None:
    jobs = [{"id": name, "type": "t", "attempts": 1} for name in "cab"]
    assert imported(conn, *jobs, {"id": "later", "type": "t", "execute_at": "2090-01-01T00:00:00Z"}) == 4
    assert conn.execute("select job_id from scheduled").fetchall() == [("later",)]
    claimed = conn.execute("select id, attempts from claim_jobs(1, max_jobs => 10)").fetchall()
    assert claimed == [("c", 2), ("a", 2), ("b", 2)]


def test_import_wakes_a_sleeping_worker(conn: Connection, connect: Callable[..., Connection]) -> None:
    sleeper = connect()
    sleeper.execute("listen pgjobq")
    sleeper.execute("select set_worker_state(register_worker('w'), 'asleep')")
    imported(conn, {"type": "t", "queue": "mail"})
    assert [notify.payload for notify in sleeper.notifies(timeout=5, stop_after=1)] == ["mail"]


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_finished_job_without_finish_times_gets_the_time_of_its_last_update(conn: Connection, status: str) -> None:
    imported(conn, {"id": "a", "type": "t", "status": status, "updated_at": FINISHED})
    query = "select finished_at = %s, failed_at is not distinct from %s::timestamptz, created_at = updated_at from jobs"
    found = conn.execute(query, [FINISHED, FINISHED if status == "failed" else None]).fetchone()
    assert found == (True, True, True)
    assert conn.execute("select pruned from prune_jobs('1 day', array[%s])", [status]).fetchone() == (1,)


@pytest.mark.parametrize(
    ("jobs", "state", "message"),
    [
        ('\'{"type": "t"}\'', "JQ001", "jobs: is not a JSON array"),
        ('\'[{"type": "t"}, {"type": "t", "status": "running"}]\'', "JQ001", "status: a new job cannot be running"),
        ('\'[{"type": "t"}, {"type": "t", "data": []}]\'', "JQ001", "data: is a JSON array"),
        ('\'[{"type": "t"}, {"type": "t", "status": "done"}]\'', "23514", "status_is_pending"),
        ('\'[{"type": "t"}, {"type": "t", "attempts": -1}]\'', "23514", "attempts_is_not_negative"),
        ("'[{}]'", "23502", "type"),
        ("'[1]'", "22023", "jsonb_populate_recordset"),
    ],
)
def test_import_of_an_invalid_job_changes_nothing(conn: Connection, jobs: str, state: str, message: str) -> None:
    with pytest.raises(psycopg.Error, match=message) as raised:
        conn.execute(f"select import_jobs({jobs})")
    assert raised.value.sqlstate == state
    assert conn.execute("select count(*) from jobs").fetchone() == (0,)
