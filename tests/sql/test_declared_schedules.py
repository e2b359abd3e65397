"""Tests of declare_schedules: what a program declares is created, and what an operator changes stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from helpers.schedules import schedule
from psycopg.types.json import Jsonb

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]

NIGHTLY = {"type": "t", "expression": "0 9 * * *", "time_zone": "Europe/Berlin", "data": {"a": [1, 2]}}


def declare(conn: Connection, worker_id: int | None = None, **declarations: Any) -> dict[str, tuple[str, str | None]]:
    query = "select id, outcome, error from declare_schedules(%s, %s)"
    return {row[0]: row[1:] for row in conn.execute(query, [Jsonb(declarations), worker_id])}


def test_created_then_kept_then_changed(conn: Connection) -> None:
    assert declare(conn, nightly=NIGHTLY) == {"nightly": ("created", None)}
    there = schedule(conn, "nightly")
    assert (there["type"], there["time_zone"], there["data"], there["declared"]) == (
        "t",
        "Europe/Berlin",
        {"a": [1, 2]},
        NIGHTLY,
    )
    assert declare(conn, nightly=NIGHTLY) == {"nightly": ("kept", None)}
    assert schedule(conn, "nightly") == there
    assert declare(conn, nightly=NIGHTLY | {"expression": "0 8 * * *"}) == {"nightly": ("changed", None)}
    assert schedule(conn, "nightly")["expression"] == "0 8 * * *"


def test_what_an_operator_changed_stays_until_the_declaration_changes(conn: Connection) -> None:
    declare(conn, a=NIGHTLY, b=NIGHTLY)
    conn.execute("select enable_schedule('a', false), create_schedule('b', 't', '0 3 * * *')")
    assert declare(conn, a=NIGHTLY, b=NIGHTLY) == {"a": ("kept", None), "b": ("kept", None)}
    assert (schedule(conn, "a")["enabled"], schedule(conn, "b")["expression"]) == (False, "0 3 * * *")
    changed = NIGHTLY | {"priority": 9}
    declare(conn, a=changed, b=changed)
    assert (schedule(conn, "a")["enabled"], schedule(conn, "b")["expression"]) == (True, "0 9 * * *")


def test_deletes_none(conn: Connection) -> None:
    declare(conn, a=NIGHTLY, b=NIGHTLY)
    declare(conn, b=NIGHTLY)
    assert schedule(conn, "a")["next_run"] is not None


def test_refused_declaration_does_not_stop_the_others(conn: Connection) -> None:
    found = declare(
        conn, a=NIGHTLY | {"expression": "99 * * * *"}, b={"type": "t"}, c=NIGHTLY | {"tz": "UTC"}, d=NIGHTLY,
        e=NIGHTLY | {"priority": "high"}, f=NIGHTLY | {"data": None},
    )  # fmt: skip
    assert {id for id, (outcome, _) in found.items() if outcome == "refused"} == {"a", "b", "c", "e"}
    assert found["d"] == found["f"] == ("created", None)
    assert "tz: create_schedule has no such argument" in (found["c"][1] or "")


def test_locked_schedule_is_held(conn: Connection, connect: Connect) -> None:
    declare(conn, a=NIGHTLY, b=NIGHTLY)
    second = connect()
    with second.transaction():
        second.execute("select enable_schedule('a', false)")
        changed = NIGHTLY | {"priority": 9}
        assert declare(conn, a=changed, b=changed) == {"a": ("held", None), "b": ("changed", None)}


def test_declared_by_live_workers(conn: Connection, connect: Connect) -> None:
    second = connect()
    (worker_id,) = second.execute("select register_worker('w')").fetchone() or (0,)
    declare(conn, worker_id, a=NIGHTLY, b=NIGHTLY | {"expression": "wrong"})
    assert conn.execute("select declared_schedules()").fetchall() == [("a",), ("b",)]
    declare(conn, worker_id, c=NIGHTLY)
    assert conn.execute("select declared_schedules()").fetchall() == [("c",)]
    second.execute("select retire_worker(%s)", [worker_id])
    assert conn.execute("select declared_schedules()").fetchall() == []


def test_moved(conn: Connection) -> None:
    declare(conn, a=NIGHTLY)
    before = schedule(conn, "a")
    conn.execute("select move_schedule('a', '2030-01-01Z', '2020-01-01Z')")
    moved = schedule(conn, "a")
    assert moved["next_run"].startswith("2030-01-01")
    assert moved["last_run"].startswith("2020-01-01")
    conn.execute("select move_schedule('a', null)")
    assert schedule(conn, "a")["next_run"] == before["next_run"]
    conn.execute("select enable_schedule('a', false), move_schedule('a', '2030-01-01Z')")
    assert schedule(conn, "a")["next_run"] is None
    assert conn.execute("select move_schedule('b', now())").fetchone() == (False,)
