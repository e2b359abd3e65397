"""Every claim ends: it is refused, rescued, or released by its own worker."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from helpers.calls import register
from helpers.until import until_row
from psycopg_pool import ConnectionPool

from pgjobq import StorageUnavailable
from pgjobq.devserver import DevServer
from pgjobq.postgres.schema import migrate
from pgjobq.storage.postgres_storage import PostgresStorage

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]
MakeStorage = Callable[..., PostgresStorage]

NOT_REGISTERED = "JQ006"
RESCUE = "select rescued, failed from rescue_jobs('0 s')"


def look_dead(conn: Connection, worker: int) -> None:
    conn.execute("update workers set heartbeat_at = now() - interval '1 hour' where id = %s", [worker])


def job(conn: Connection, id_: str = "a") -> Any:
    return conn.execute("select status, attempts, crashes from jobs where id = %s", [id_]).fetchone()


@pytest.fixture
def worker(conn: Connection) -> int:
    """A worker whose last heartbeat was an hour ago, and a pending job a."""
    conn.execute("select enqueue_job('t', job_id => 'a')")
    worker = register(conn, heartbeat=True)
    look_dead(conn, worker)
    return worker


@pytest.mark.parametrize("giving", [RESCUE, "select retire_worker({})"])
def test_claim_in_an_open_transaction_keeps_its_worker(
    connect: Connect, conn: Connection, worker: int, giving: str
) -> None:
    """The first rescue that sees the claim gives its jobs back."""
    claimer = connect(autocommit=False)
    claimer.execute("select from claim_jobs(%s)", [worker])
    conn.execute("set lock_timeout = '1s'")
    conn.execute(giving.format(worker))
    claimer.commit()
    assert job(conn) == ("running", 1, 0)
    look_dead(conn, worker)
    assert conn.execute(RESCUE).fetchone() == (1, 0)
    assert job(conn) == ("pending", 1, 1)
    assert conn.execute("select from claims").fetchall() == []


@pytest.mark.parametrize("giving", [RESCUE, "select retire_worker({})"])
def test_claim_for_a_worker_that_is_being_given_away_is_refused_at_once(
    connect: Connect, conn: Connection, worker: int, giving: str
) -> None:
    """The claim does not wait, and the job stays in place."""
    giver = connect(autocommit=False)
    giver.execute(giving.format(worker))
    conn.execute("set lock_timeout = '1s'")
    with pytest.raises(psycopg.Error, match="not registered") as error:
        conn.execute("select from claim_jobs(%s)", [worker])
    assert error.value.sqlstate == NOT_REGISTERED
    giver.commit()
    with pytest.raises(psycopg.Error, match="not registered"):
        conn.execute("select from claim_jobs(%s)", [worker])
    assert job(conn) == ("pending", 0, 0)
    assert conn.execute("select id from claim_jobs(%s)", [register(conn, heartbeat=True)]).fetchall() == [("a",)]


def test_claim_with_an_old_snapshot_is_refused(connect: Connect, conn: Connection, worker: int) -> None:
    """The snapshot of a repeatable read transaction still shows a worker that has been given away."""
    claimer = connect(autocommit=False)
    claimer.execute("set transaction isolation level repeatable read")
    claimer.execute("select from workers")
    assert conn.execute(RESCUE).fetchone() == (0, 0)
    with pytest.raises(psycopg.errors.SerializationFailure):
        claimer.execute("select from claim_jobs(%s)", [worker])
    claimer.rollback()
    assert job(conn) == ("pending", 0, 0)


@pytest.mark.parametrize("stranger", [0, -1, 2**31 - 1, None])
def test_claim_for_a_worker_that_never_registered_is_refused(conn: Connection, stranger: int | None) -> None:
    """The error names the remedy."""
    conn.execute("select enqueue_job('t', job_id => 'a')")
    with pytest.raises(psycopg.Error, match=r"worker_id: .* not registered") as error:
        conn.execute("select from claim_jobs(%s)", [stranger])
    assert "register_worker" in str(error.value.diag.message_hint)
    assert job(conn) == ("pending", 0, 0)


def test_claim_whose_worker_has_no_row_and_no_key_is_rescued(conn: Connection, worker: int) -> None:
    """This holds for every way in which the worker's row can disappear."""
    conn.execute("select from claim_jobs(%s)", [worker])
    conn.execute("delete from workers")
    assert conn.execute("select rescued from rescue_jobs('1 hour')").fetchone() == (0,)
    assert conn.execute(RESCUE).fetchone() == (1, 0)
    assert job(conn) == ("pending", 1, 1)


def test_heartbeat_reports_that_the_worker_was_given_away(connect: Connect, conn: Connection, worker: int) -> None:
    """heartbeat_worker returns false only if the worker is gone, not if another transaction has locked its row."""
    holder = connect(autocommit=False)
    conn.execute("set lock_timeout = '1s'")
    holder.execute("select from workers for update")
    assert conn.execute("select heartbeat_worker(%s)", [worker]).fetchone() == (True,)
    holder.rollback()
    assert conn.execute(RESCUE).fetchone() == (0, 0)
    assert conn.execute("select heartbeat_worker(%s)", [worker]).fetchone() == (False,)


def test_heartbeats_and_claims_of_a_worker_do_not_block_each_other(connect: Connect, conn: Connection) -> None:
    """Each of the two works while the other is in an open transaction."""
    conn.execute("select enqueue_jobs('{t,t}', job_ids => '{a,b}')")
    worker, other = register(conn, heartbeat=True), connect(autocommit=False)
    conn.execute("set lock_timeout = '1s'")
    other.execute("select heartbeat_worker(%s)", [worker])
    assert conn.execute("select id from claim_jobs(%s)", [worker]).fetchall() == [("a",)]
    other.rollback()
    other.execute("select from claim_jobs(%s)", [worker])
    before = conn.execute("select heartbeat_at from workers").fetchone()
    assert conn.execute("select heartbeat_worker(%s)", [worker]).fetchone() == (True,)
    assert conn.execute("select heartbeat_at from workers").fetchone() != before


def test_live_worker_can_be_retired_only_by_its_own_session(connect: Connect, conn: Connection) -> None:
    """retire_worker in another session raises an error and changes nothing while the worker holds its key."""
    session = connect()
    worker = register(session)
    conn.execute("select enqueue_job('t', job_id => 'a')")
    conn.execute("select from claim_jobs(%s)", [worker])
    with pytest.raises(psycopg.Error, match="another session"):
        conn.execute("select retire_worker(%s)", [worker])
    assert job(conn) == ("running", 1, 0)
    session.execute("select retire_worker(%s)", [worker])
    assert job(conn) == ("pending", 1, 0)


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("held", [False, True])
def test_worker_that_was_given_away_registers_again(
    conn: Connection, make_storage: MakeStorage, pooled: bool, held: bool
) -> None:
    """The worker's maintenance notices that its row is gone, and its next claim uses a new id."""
    storage = make_storage(pooled=pooled)
    assert storage.dequeue() is None
    if held:
        conn.execute("select enqueue_job('t', job_id => 'held')")
        assert storage.dequeue() is not None
    before = [worker["id"] for worker in storage.workers()]
    conn.execute("delete from workers")
    storage.maintain([])
    assert storage.dequeue() is None
    after = [worker["id"] for worker in storage.workers()]
    assert len(after) == 1
    assert after != before
    storage.maintain([])
    assert [worker["id"] for worker in storage.workers()] == after


@pytest.mark.parametrize("pooled", [False, True])
def test_dequeue_of_a_worker_that_was_given_away_registers_again(
    conn: Connection, make_storage: MakeStorage, pooled: bool
) -> None:
    """A dequeue that finds its worker gone registers again and returns the job under the new id."""
    storage = make_storage(pooled=pooled)
    assert storage.dequeue() is None
    before = [worker["id"] for worker in storage.workers()]
    conn.execute("delete from workers")
    conn.execute("select enqueue_job('t', job_id => 'a')")
    claimed = storage.dequeue()
    assert claimed is not None
    assert claimed.worker_id not in before
    storage.complete("a")
    assert job(conn)[0] == "completed"


@pytest.fixture
def server_without_standby() -> Iterator[str]:
    """The DSN of a server without a standby. A commit with synchronous_commit = on waits for one forever."""
    with DevServer(settings={"synchronous_standby_names": "nowhere", "synchronous_commit": "local"}) as server:
        migrate(server.dsn)
        yield server.dsn


def test_claim_that_becomes_visible_later_is_released_by_its_worker(server_without_standby: str) -> None:
    """The client of the claim loses its connection while the commit waits for a standby."""
    failures: list[BaseException] = []

    def dequeue() -> None:
        try:
            storage.dequeue()
        except StorageUnavailable as error:
            failures.append(error)

    claiming = threading.Thread(target=dequeue)
    with (
        psycopg.connect(server_without_standby, autocommit=True, options="-c search_path=pgjobq") as conn,
        ConnectionPool(server_without_standby, min_size=1, kwargs={"autocommit": True}) as pool,
        closing(PostgresStorage(pool)) as storage,
    ):
        assert storage.dequeue() is None
        conn.execute("select enqueue_job('t', job_id => 'a')")
        with pool.connection() as claimer:
            claimer.execute("set synchronous_commit = on")
        claiming.start()
        pid = until_row(conn, "select pid from pg_stat_activity where wait_event = 'SyncRep'")
        with socket.socket(fileno=os.dup(claimer.fileno())) as network:
            network.shutdown(socket.SHUT_RDWR)
        claiming.join(20)
        assert failures
        assert storage.dequeue() is None  # this tries to release the unknown claim, which is not visible yet
        conn.execute("select pg_terminate_backend(%s)", pid)  # this ends the wait, as the standby would
        until_row(conn, "select from claims")
        assert job(conn) == ("running", 1, 0)
        storage.maintain([])
        assert job(conn) == ("pending", 0, 0)
        assert conn.execute("select from claims").fetchall() == []
