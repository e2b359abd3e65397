"""Which transaction gives way when two want the same jobs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from helpers.calls import enqueue, one

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]


def test_cancelling_jobs_in_the_order_of_list_jobs_causes_no_deadlock(
    conn: Connection, connect: Connect, me: int
) -> None:
    """A batch that completes the jobs in the other order gives way. Its worker then settles them one by one."""
    ids = enqueue(conn, 2)
    claims = conn.execute("select claim_id from claim_jobs(%s, null, 2)", [me]).fetchall()
    operator, worker = connect(autocommit=False), connect()
    operator.execute("select cancel_job(%s)", [ids[1]])
    failed: list[psycopg.Error] = []

    def complete() -> None:
        try:
            worker.execute("select complete_jobs(%s, %s, %s)", [me, ids, [row[0] for row in claims]])
        except psycopg.Error as error:
            failed.append(error)

    settling = threading.Thread(target=complete)
    settling.start()
    waiting = "select count(*) from pg_locks where not granted and pid = %s"
    while one(conn, waiting, worker.info.backend_pid) == 0 and settling.is_alive():
        time.sleep(0.005)
    assert one(operator, "select cancel_job(%s)", ids[0]) is True
    operator.commit()
    settling.join(5)
    assert [type(error) for error in failed] == [psycopg.errors.LockNotAvailable]


def test_open_maintenance_transaction_blocks_no_worker(conn: Connection, connect: Connect, me: int) -> None:
    """The transaction has locked a worker's row. That worker gets an error when it changes its queues, and can retire."""
    worker, forgotten = connect(), connect(autocommit=False)
    sleeper = one(worker, "select register_worker('sleeper')")
    for _ in range(2):
        worker.execute("select set_worker_state(%s, 'asleep')", [sleeper])
    enqueue(conn, 1)
    forgotten.execute("select watch_workers(%s, null, %s)", [me, [sleeper]])
    worker.execute("set lock_timeout = '2s'")
    worker.execute("select set_worker_state(%s, 'asleep')", [sleeper])
    with pytest.raises(psycopg.Error, match="another transaction has locked the row") as caught:
        worker.execute("select set_worker_state(%s, 'asleep', queues => '{mail}')", [sleeper])
    assert caught.value.sqlstate == "JQ007"
    worker.execute("select retire_worker(%s)", [sleeper])
    assert one(conn, "select count(*) from doorbell") == 1
    forgotten.rollback()
    conn.execute("select watch_workers(%s)", [me])
    assert one(conn, "select count(*) from doorbell") == 0
