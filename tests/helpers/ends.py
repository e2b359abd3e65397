"""The ways in which a job can end, each by SQL on a connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg

from helpers.calls import claim, one, register

Connection = psycopg.Connection[Any]
End = Callable[[Connection], None]


def _started(conn: Connection) -> tuple[int, int]:
    worker = register(conn)
    assert claim(conn, worker) == ["a"]
    return worker, int(one(conn, "select claim_id from jobs where id = 'a'"))


def complete(conn: Connection) -> None:
    conn.execute("select complete_jobs(%s, '{a}', array[%s])", _started(conn))


def complete_with_result(conn: Connection) -> None:
    conn.execute("select complete_jobs(%s, '{a}', array[%s], results => array['[1]'::jsonb])", _started(conn))


def complete_and_delete(conn: Connection) -> None:
    conn.execute("select complete_jobs(%s, '{a}', array[%s], keep => false)", _started(conn))


def fail(conn: Connection) -> None:
    conn.execute("select fail_job('a', %s, 'boom')", _started(conn)[1:])


def cancel(conn: Connection) -> None:
    conn.execute("select cancel_job('a')")


def cancel_many(conn: Connection) -> None:
    conn.execute("select cancel_jobs('default')")


def expire(conn: Connection) -> None:
    conn.execute("update jobs set expires_at = now() - interval '1 s' where id = 'a'")
    assert claim(conn, register(conn)) == []


def crash(conn: Connection) -> None:
    worker, _ = _started(conn)
    conn.execute("update jobs set crashes = 2 where id = 'a'")
    conn.execute("select give_back_claims(%s, '{}', 'crashed', null)", [worker])


ENDS: dict[str, tuple[End, str | None]] = {
    "complete": (complete, "completed"),
    "complete_with_result": (complete_with_result, "completed"),
    "complete_and_delete": (complete_and_delete, None),
    "fail": (fail, "failed"),
    "cancel": (cancel, "cancelled"),
    "cancel_many": (cancel_many, "cancelled"),
    "expire": (expire, "cancelled"),
    "crash": (crash, "failed"),
}
