"""Schedules: a tick adds one job, whatever happens; what is missed; what overlaps; what is not allowed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from helpers.schedules import create, jobs, make_due, places, schedule

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]

FUNCTIONS = (
    "next_tick", "next_ticks", "create_schedule", "get_schedule", "list_schedules", "enable_schedule", "delete_schedule",
    "run_schedule", "backfill_schedule",
)  # fmt: skip
PAST = "2020-05-01 09:00:00Z"


def ticks(conn: Connection, id: str = "s") -> list[str]:
    return [job.removeprefix(f"{id}@") for job in jobs(conn)]


def test_tick_adds_a_job_and_the_next_place(conn: Connection, me: int) -> None:
    create(conn, "nightly", data='{"n": 1}', queue="mail", priority=7, max_retries=2, missed="all")
    conn.execute("update schedules set ends_at = '2020-05-02 10:00Z'")
    make_due(conn, "nightly", PAST)
    assert conn.execute("select id from claim_jobs(%s, '{other}', 5)", [me]).fetchall() == []
    row = conn.execute(
        "select id, queue, type, data, priority, max_retries, execute_at from claim_jobs(%s, '{mail}', 1)", [me]
    )
    first = datetime(2020, 5, 1, 9, tzinfo=UTC)
    assert row.fetchall() == [("nightly@2020-05-01T09:00:00Z", "mail", "t", {"n": 1}, 7, 2, first)]
    assert jobs(conn) == ["nightly@2020-05-02T09:00:00Z", "nightly@2020-05-01T09:00:00Z"]
    found = schedule(conn, "nightly")
    assert found["last_job"] == "nightly@2020-05-02T09:00:00Z"
    assert found["last_run"] == "2020-05-02T09:00:00+00:00"
    assert (found["next_run"], places(conn)) == (None, [])


def test_next_run_is_a_place_and_an_alarm(conn: Connection) -> None:
    create(conn, "s", "0 0 1 1 *")
    assert places(conn) == [("s", True)]
    due = conn.execute(
        "select next_due() = extract(epoch from next_run - now()) or next_due() > 0 from schedules"
    ).fetchone()
    assert due == (True,)
    assert conn.execute("select promote_jobs()").fetchone() == (0,)
    assert jobs(conn) == []


HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"missed": "once"}, ["59"]),
        ({"missed": "skip"}, ["59"]),
        ({"missed": "all"}, [f"{minute:02}" for minute in range(60)]),
        ({"missed": "all", "catch_up": 3}, ["57", "58", "59"]),
    ],
)
def test_an_hour_down(conn: Connection, options: dict[str, Any], expected: list[str]) -> None:
    """Every minute, from a full hour on, for an hour; the last tick is now."""
    create(conn, "s", "* * * * *", overlap="allow", **options)
    make_due(conn, "s", "2020-05-01 09:00Z")
    fire(conn, "2020-05-01 09:59:30Z")
    assert ticks(conn) == [f"2020-05-01T09:{minute}:00Z" for minute in expected]
    assert schedule(conn, "s")["next_run"] == "2020-05-01T10:00:00+00:00"


def fire(conn: Connection, now: str) -> None:
    """Promote all places, at a given moment."""
    conn.execute(
        """with place as (select ctid from scheduled where schedule_id is not null for update)
           select fire_schedules(array_agg(place.ctid), %s) from place""",
        [now],
    )


def test_tick_that_is_late_is_skipped(conn: Connection) -> None:
    create(conn, "s", missed="skip")
    make_due(conn, "s", "2020-05-01 09:00Z")
    fire(conn, "2020-05-02 09:01:01Z")
    assert (ticks(conn), schedule(conn, "s")["next_run"]) == ([], "2020-05-03T09:00:00+00:00")
    assert schedule(conn, "s")["last_run"] is None
    fire(conn, "2020-05-03 09:00:59Z")
    assert ticks(conn) == ["2020-05-03T09:00:00Z"]


@pytest.mark.parametrize("expression", ["*/7 9-11 * * 1-5", "30 2 * * *", "0 0 29 2 *", "* * * 1 *"])
def test_last_of_very_many_missed_ticks_is_found(conn: Connection, expression: str) -> None:
    """Twenty years of them, as one after the other gives them."""
    conn.execute("set statement_timeout = '20s'")
    create(conn, "s", expression, time_zone="Europe/Paris", missed="all", catch_up=40)
    first = conn.execute("select next_tick(%s, 'Europe/Paris', '2000-01-01Z')", [expression]).fetchone()
    assert first is not None
    make_due(conn, "s", str(first[0]))
    fire(conn, "2019-11-20 09:30:30Z")
    found = [tick for (tick,) in conn.execute("select execute_at from jobs order by execute_at")]
    after = found[0] - timedelta(minutes=1)
    again = conn.execute("select next_ticks(%s, 'Europe/Paris', %s, 41)", [expression, after]).fetchall()
    assert found == [tick for (tick,) in again if tick < datetime(2019, 11, 20, 9, 30, 30, tzinfo=UTC)]
    assert len(found) == (5 if "29" in expression else 40)


@pytest.mark.parametrize(
    ("status", "added"), [("pending", 0), ("running", 0), ("completed", 1), ("failed", 1), ("cancelled", 1), (None, 1)]
)
def test_overlap(conn: Connection, status: str | None, added: int) -> None:
    for id, overlap in (("skip", "skip"), ("allow", "allow")):
        create(conn, id, overlap=overlap)
        make_due(conn, id, PAST)
    conn.execute("select promote_jobs()")
    conn.execute("update jobs set status = %s" if status else "delete from jobs", [status] if status else None)
    before = len(jobs(conn))
    for id in ("skip", "allow"):
        make_due(conn, id, "2020-06-01 09:00Z")
    fire(conn, "2020-06-01 09:00Z")
    assert len([job for job in jobs(conn) if "2020-06" in job]) == 1 + added
    assert len(jobs(conn)) == before + 1 + added
    assert schedule(conn, "skip")["next_run"] == "2020-06-02T09:00:00+00:00"


def test_paused_queue_does_not_pile_up(conn: Connection, me: int) -> None:
    create(conn, "s", queue="q")
    conn.execute("select pause_queue('q')")
    for month in range(1, 6):
        make_due(conn, "s", f"2020-0{month}-01 09:00Z")
        assert conn.execute("select id from claim_jobs(%s, '{q}', 5)", [me]).fetchall() == []
    assert len(jobs(conn)) == 1


def test_tick_that_has_a_job_gets_no_second(conn: Connection) -> None:
    create(conn, "s", overlap="allow")
    for _ in range(2):
        make_due(conn, "s", PAST)
        fire(conn, PAST)
    assert ticks(conn) == ["2020-05-01T09:00:00Z"]


def test_interval_does_not_drift(conn: Connection) -> None:
    create(conn, "s", "15 minutes", kind="interval", starts_at="2020-05-01 08:50:00Z")
    make_due(conn, "s", "2020-05-01 08:50Z")
    for late in ("08:50:07", "09:05:59", "09:20:00", "09:50:01"):
        fire(conn, f"2020-05-01 {late}Z")
        conn.execute("update jobs set status = 'completed'")
    assert sorted(ticks(conn)) == [f"2020-05-01T{tick}:00Z" for tick in ("08:50", "09:05", "09:20", "09:50")]
    assert schedule(conn, "s")["next_run"] == "2020-05-01T10:05:00+00:00"


@pytest.mark.parametrize(
    ("expression", "seconds"), [("90", 90), ("1.5", 1.5), ("2 hours 5 min", 7500), ("1 day", 86400), ("PT1M", 60)]
)
def test_interval(conn: Connection, expression: str, seconds: float) -> None:
    create(conn, "s", expression, kind="interval")
    assert conn.execute("select extract(epoch from next_run - starts_at)::float8 from schedules").fetchone() == (
        seconds,
    )
    create(conn, "s", expression, kind="interval", starts_at="2100-01-01 00:00:00Z")
    assert schedule(conn, "s")["next_run"] == "2100-01-01T00:00:00+00:00"


def test_starts_and_ends(conn: Connection) -> None:
    create(conn, "s", starts_at="2100-05-01 09:00Z", ends_at="2100-05-02 09:00Z")
    assert schedule(conn, "s")["next_run"] == "2100-05-01T09:00:00+00:00"
    for _ in range(3):
        fire(conn, "2100-05-03Z")
    assert schedule(conn, "s")["next_run"] is None
    assert (ticks(conn), places(conn)) == (["2100-05-02T09:00:00Z"], [])


def test_jitter_delays_the_job_and_keeps_the_tick(conn: Connection) -> None:
    create(conn, "s", "* * * * *", jitter="30 min", overlap="allow", missed="all")
    row = conn.execute("select place_at - next_run between '0' and '30 min', next_run from schedules").fetchone()
    assert row is not None
    assert row[0] is True
    make_due(conn, "s", "2020-05-01 09:00Z")
    fire(conn, "2020-05-01 09:10Z")
    assert ticks(conn) == ["2020-05-01T09:00:00Z"]  # the others wait for their own jitter
    fire(conn, "2020-05-01 09:32Z")
    assert ticks(conn) == [f"2020-05-01T09:0{minute}:00Z" for minute in range(3)]


def test_create_again_keeps_what_does_not_change(conn: Connection) -> None:
    create(conn, "s")
    make_due(conn, "s", PAST)
    before = schedule(conn, "s")
    create(conn, "s")
    assert schedule(conn, "s") == before
    create(conn, "s", priority=9)  # a tick that is due is not lost
    assert schedule(conn, "s") | {"place": 0, "updated_at": 0, "place_at": 0, "priority": 5} == before | {
        "place": 0,
        "updated_at": 0,
        "place_at": 0,
    }
    create(conn, "s", "0 10 * * *")
    assert schedule(conn, "s")["next_run"] > before["updated_at"]
    assert places(conn) == [("s", True)]
    conn.execute("select promote_jobs()")
    assert jobs(conn) == []


def test_enable_and_disable(conn: Connection) -> None:
    create(conn, "s")
    assert conn.execute("select enable_schedule('s', false), enable_schedule('unknown')").fetchone() == (True, False)
    assert (schedule(conn, "s")["next_run"], schedule(conn, "s")["enabled"], places(conn)) == (None, False, [])
    assert conn.execute("select id from list_schedules(true)").fetchall() == []
    assert conn.execute("select id from list_schedules()").fetchall() == [("s",)]
    conn.execute("select enable_schedule('s')")
    assert places(conn) == [("s", True)]
    make_due(conn, "s", PAST)
    conn.execute("select enable_schedule('s')")  # changes nothing
    conn.execute("select promote_jobs()")
    assert len(jobs(conn)) == 1


def test_run_now(conn: Connection) -> None:
    create(conn, "s", enabled=False)
    before = schedule(conn, "s")
    row = conn.execute("select run_schedule('s'), run_schedule('s')").fetchone()
    assert row is not None
    assert sorted(row) == sorted(jobs(conn))
    assert schedule(conn, "s") | {"last_job": None} == before
    assert schedule(conn, "s")["last_job"] == row[0]
    assert conn.execute("select bool_and(execute_at <= clock_timestamp()) from jobs").fetchone() == (True,)


def test_backfill(conn: Connection) -> None:
    create(conn, "s", "0 9 * * *", time_zone="Europe/Berlin", enabled=False)
    fill = "select backfill_schedule('s', '2020-05-01 07:00:00Z', '2020-05-03 07:00:00Z')"
    conn.execute("insert into jobs (id, type) values ('s@2020-05-02T07:00:00Z', 'x')")
    assert [conn.execute(fill).fetchone() for _ in range(2)] == [(2,), (0,)]
    assert sorted(ticks(conn)) == [f"2020-05-0{day}T07:00:00Z" for day in (1, 2, 3)]
    for bad in ("'s', '2020-01-01Z', now() + interval '1 h'", "'s', null, now()", "'s', now(), '2020-01-01Z'"):
        with pytest.raises(psycopg.Error, match=r"^since, until: ") as error:
            conn.execute(f"select backfill_schedule({bad})")
        assert error.value.sqlstate == "JQ009"
    create(conn, "s", "* * * * *")
    with pytest.raises(psycopg.Error, match=r"more than 10000 ticks"):
        conn.execute("select backfill_schedule('s', '2020-01-01Z', '2020-02-01Z')")


@pytest.mark.parametrize("call", ["run_schedule('x')", "backfill_schedule('x', '2020-01-01Z')"])
def test_unknown_schedule(conn: Connection, call: str) -> None:
    with pytest.raises(psycopg.Error, match=r"^id: there is no schedule 'x'") as error:
        conn.execute(f"select {call}")
    assert error.value.sqlstate == "JQ010"


@pytest.mark.parametrize(
    ("arguments", "field", "state"),
    [
        ("null, 't', '@daily'", "id", "JQ009"),
        ("'', 't', '@daily'", "id", "JQ009"),
        ("'a@b', 't', '@daily'", "id", "JQ009"),
        ("E'a\\nb', 't', '@daily'", "id", "JQ009"),
        ("repeat('x', 201), 't', '@daily'", "id", "JQ009"),
        ("'a', null, '@daily'", "type", "JQ009"),
        ("'a', '', '@daily'", "type", "JQ001"),
        ("'a', 't', null", "expression", "JQ009"),
        ("'a', 't', '0 0 30 2 *'", "expression", "JQ009"),
        ("'a', 't', 'x'", "expression", "JQ009"),
        ("'a', 't', '0', kind => 'interval'", "expression", "JQ009"),
        ("'a', 't', '0.5', kind => 'interval'", "expression", "JQ009"),
        ("'a', 't', '1 month', kind => 'interval'", "expression", "JQ009"),
        ("'a', 't', '-1 hour', kind => 'interval'", "expression", "JQ009"),
        ("'a', 't', 'infinity', kind => 'interval'", "expression", "JQ009"),
        ("'a', 't', '0 9 * * *', kind => 'interval'", "expression", "JQ009"),
        ("'a', 't', repeat('9', 90), kind => 'interval'", "expression", "JQ009"),
        ("'a', 't', '@daily', '[]'", "data", "JQ001"),
        ("'a', 't', '@daily', null", "data", "JQ009"),
        ("'a', 't', '@daily', time_zone => 'FOO+3'", "time_zone", "JQ009"),
        ("'a', 't', '@daily', kind => 'x'", "kind", "JQ009"),
        ("'a', 't', '@daily', queue => ''", "queue", "JQ001"),
        ("'a', 't', '@daily', priority => 3000000000", "priority", "JQ009"),
        ("'a', 't', '@daily', max_retries => -1", "max_retries", "JQ009"),
        ("'a', 't', '@daily', missed => 'x'", "missed", "JQ009"),
        ("'a', 't', '@daily', catch_up => 0", "catch_up", "JQ009"),
        ("'a', 't', '@daily', catch_up => 1001", "catch_up", "JQ009"),
        ("'a', 't', '@daily', overlap => 'x'", "overlap", "JQ009"),
        ("'a', 't', '@daily', missed => 'all', overlap => 'skip'", "overlap", "JQ009"),
        ("'a', 't', '@daily', jitter => '-1 s'", "jitter", "JQ009"),
        ("'a', 't', '@daily', jitter => '25 hours'", "jitter", "JQ009"),
        ("'a', 't', '@daily', starts_at => 'infinity'", "starts_at", "JQ009"),
        ("'a', 't', '@daily', starts_at => '2030-01-02Z', ends_at => '2030-01-01Z'", "ends_at", "JQ009"),
        ("'a', 't', '@daily', enabled => null", "enabled", "JQ009"),
    ],
)
def test_value_is_refused(conn: Connection, arguments: str, field: str, state: str) -> None:
    with pytest.raises(psycopg.Error) as error:
        conn.execute(f"select create_schedule({arguments})")
    assert error.value.sqlstate == state
    assert (error.value.diag.message_primary or "").startswith(field)
    assert error.value.diag.message_hint
    assert conn.execute("select count(*) from schedules").fetchone() == (0,)


def test_place_that_was_deleted_manually_is_repaired(conn: Connection) -> None:
    for id in ("s", "kept"):
        create(conn, id)
    create(conn, "paused", enabled=False)
    conn.execute("delete from scheduled where schedule_id = 's'")
    kept = schedule(conn, "kept")
    conn.execute("select repair_jobs()")
    assert places(conn) == [("kept", True), ("s", True)]
    assert schedule(conn, "kept") == kept


def test_views_and_lists_of_jobs_do_not_count_schedules(conn: Connection) -> None:
    create(conn, "s", queue="q")
    make_due(conn, "s", PAST)
    assert conn.execute("select * from job_stats").fetchall() == []
    assert conn.execute("select * from list_jobs('pending')").fetchall() == []
    assert conn.execute("select * from misplaced_jobs()").fetchall() == []
    assert conn.execute("select * from unserved_types()").fetchall() == []
    assert conn.execute("select name from queues").fetchall() == [("q",)]
    assert conn.execute("select next_due() <= 0").fetchone() == (True,)


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("pgjobq_enqueue", set()),
        ("pgjobq_read", {"next_tick", "next_ticks", "get_schedule", "list_schedules"}),
        ("pgjobq_work", {"next_tick", "next_ticks", "get_schedule", "list_schedules", "create_schedule"}),
        ("pgjobq_admin", set(FUNCTIONS)),
    ],
)
def test_rights(conn: Connection, role: str, may: set[str]) -> None:
    """A worker declares schedules and fires them. To pause, delete, run or backfill one is for operators."""
    query = "select proname from pg_proc where proname = any (%s) and has_function_privilege(%s, oid, 'execute')"
    assert {name for (name,) in conn.execute(query, [list(FUNCTIONS), role])} == may
