"""The listener: no notification is lost, and the session holds the keys of the worker's state."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from helpers.calls import one
from helpers.until import until

from pgjobq.errors import PgjobqError
from pgjobq.postgres.pool import readable
from pgjobq.storage.postgres_storage import PostgresStorage

Connection = psycopg.Connection[Any]
MakeStorage = Callable[..., PostgresStorage]


def test_call_to_watch_that_arrives_during_a_statement_is_handled(conn: Connection, make_storage: MakeStorage) -> None:
    """The notification arrives with the answer to a statement of the listener, so its socket stays silent afterwards."""
    storage, asked = make_storage(poll_interval=3600), list[float]()
    storage.on_watch(lambda: asked.append(time.monotonic()))
    until(lambda: storage.dequeue_many(1) == [] and storage.wait(0.2) is False, seconds=10)
    listener = storage._presence._listener
    assert listener is not None
    assert listener._conn is not None
    socket = listener._conn.fileno()
    conn.execute("select pg_notify(%s, '17')", [f"{listener.channel}?"])
    until(lambda: readable(socket), seconds=10)
    storage._presence._value(storage._database.calls.next_due())
    assert not asked
    began = time.monotonic()
    storage.wait(3)
    assert asked
    assert asked[0] - began < 1


def test_keys_that_outlive_a_failed_statement_are_released(conn: Connection, make_storage: MakeStorage) -> None:
    """A rollback does not release session locks, so the worker opens a new session with the keys of its state."""
    storage = make_storage(poll_interval=3600)
    until(lambda: storage.dequeue_many(1) == [] and storage.wait(0.2) is False, seconds=10)
    storage.note_load(busy=True, full=True)
    made = one(conn, "select pg_get_functiondef('open_transactions'::regproc)")
    conn.execute("""create or replace function open_transactions(relation regclass, among xid8[] default null)
        returns xid8[] language plpgsql as 'begin raise exception $$broken$$; end'""")
    for _ in range(4):
        storage.dequeue_many(1)
        with pytest.raises(PgjobqError, match="broken"):
            storage.wait(1)
    conn.execute(made)
    until(lambda: storage.dequeue_many(1) == [] and storage.wait(0.2) is False, seconds=10)
    storage.note_load(busy=True, full=True)
    held = "select array_agg(objid::integer) from pg_locks where locktype = 'advisory' and database > 0 and granted"
    until(lambda: one(conn, held) == [storage._presence.worker_id], seconds=10)
