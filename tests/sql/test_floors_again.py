"""Floors: no place stays hidden below a floor, and floors move with the places that are taken."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from helpers.calls import claim, enqueue, one

from pgjobq.devserver import DevServer
from pgjobq.postgres.schema import migrate
from pgjobq.storage.postgres_storage import PostgresStorage

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]


def advance(conn: Connection, times: int = 3, safe: int = 0) -> None:
    """Advance the floors as a worker does."""
    state: tuple[Any, Any] = (safe, [])
    for _ in range(times):
        row = conn.execute("select safe, open from advance_floors(%s, %s::xid8[])", state).fetchone()
        assert row is not None
        state = row[0], row[1]


def floor(conn: Connection, queue: str = "default") -> int | None:
    """Return the floor of a queue."""
    found = one(conn, "select max(seq) from floors where queue = %s", queue)
    return None if found is None else int(found)


def look_ago(conn: Connection, seconds: float) -> None:
    """Make the session believe that it looked below the floors this many seconds ago."""
    conn.execute("select set_config('pgjobq.floors_checked', %s::text, false)", [time.time() - seconds])


@pytest.fixture
def busy(conn: Connection, me: int) -> Connection:
    """A line of 2,010 jobs, of which 2,000 are taken, and with its floor above those."""
    enqueue(conn, 2010)
    claim(conn, me, 2000)
    advance(conn)
    assert floor(conn) == 2001
    return conn


def test_claim_that_finds_nothing_finds_a_place_below_a_floor(busy: Connection, me: int) -> None:
    """The test sets the sequence back. A session looks below the floors once a minute."""
    claim(busy, me, 10)
    busy.execute("select setval('place_seq', 10)")
    low = enqueue(busy, 1, "low")
    look_ago(busy, 50)
    assert claim(busy, me, 10) == []
    look_ago(busy, 61)
    assert claim(busy, me, 10) == low
    assert floor(busy) is None


def test_round_of_maintenance_looks_below_the_floors(busy: Connection, me: int) -> None:
    """While a worker sleeps, it calls watch_workers and claims nothing."""
    claim(busy, me, 10)
    busy.execute("select setval('place_seq', 10)")
    low = enqueue(busy, 1, "low")
    waiting = "select waiting from watch_workers(%s)"
    look_ago(busy, 50)
    assert one(busy, waiting, me) is False
    look_ago(busy, 61)
    assert one(busy, waiting, me) is True
    look_ago(busy, 0)
    assert claim(busy, me, 10) == low


def test_clock_that_was_set_back_does_not_delay_the_look_below_the_floors(busy: Connection, me: int) -> None:
    """The last look appears to be in the future."""
    claim(busy, me, 10)
    busy.execute("select setval('place_seq', 10)")
    low = enqueue(busy, 1, "low")
    look_ago(busy, -3600)
    assert claim(busy, me, 10) == low


def test_advance_floors_finds_a_place_below_a_floor_while_claims_find_jobs(busy: Connection, me: int) -> None:
    """Every claim finds jobs, so advance_floors must notice that the sequence was set back."""
    claim(busy, me, 10)
    busy.execute("select setval('place_seq', 10)")
    low = enqueue(busy, 1, "low")
    enqueue(busy, 1995, "more")  # the sequence has passed the floor again, but not the number that was read last
    advance(busy, 1, safe=2011)
    assert claim(busy, me, 10)[0] == low[0]


@pytest.mark.parametrize("how", ["claim", "advance"])
def test_floors_without_their_sequence_hide_no_jobs(conn: Connection, me: int, how: str) -> None:
    """Logical replication copies the tables but not the sequences, so a failover can cause this."""
    conn.execute("insert into floors values ('default', -5, 1000000, now()), ('other', -5, 2000, now())")
    ids = enqueue(conn, 3)
    if how == "advance":
        advance(conn, 1)
        assert one(conn, "select count(*) from floors") == 0
        look_ago(conn, 0)
    assert claim(conn, me, 10) == ids


@pytest.mark.parametrize("how", ["", "savepoint", "repeatable read", "postponed", "promoted"])
def test_no_floor_passes_an_uncommitted_place(conn: Connection, connect: Connect, me: int, how: str) -> None:
    """This holds for every way in which an open transaction can get a place."""
    late = connect(autocommit=False)
    match how:
        case "savepoint":
            late.execute("savepoint a")
            enqueue(late, 1, "late")
            late.execute("release savepoint a")
        case "postponed":
            enqueue(conn, 1, "late", "else")
            late.execute("update jobs set queue = 'default'")
        case "promoted":
            conn.execute("select enqueue_job('t', job_id => 'late000000', execute_at => now() + '50 ms')")
            time.sleep(0.1)
            assert one(late, "select promote_jobs()") == 1
        case _:
            late.execute(f"set transaction isolation level {how or 'read committed'}")
            enqueue(late, 1, "late")
    enqueue(conn, 2000)
    claim(conn, me, 2000)
    advance(conn, 5)
    assert floor(conn) is None
    late.commit()
    advance(conn)
    look_ago(conn, 0)
    assert claim(conn, me, 10) == ["late000000"]


def test_prepared_transaction_holds_back_the_floors_across_a_restart() -> None:
    """The transaction has another virtual transaction id after a restart of the server."""
    folder = Path(tempfile.mkdtemp(prefix="pgjobq-"))  # the server may run as a user without access to pytest's folders
    folder.chmod(0o755)
    server = DevServer(folder / "server", settings={"max_prepared_transactions": "2"})
    with server:
        migrate(server.dsn)
        with psycopg.connect(server.dsn, options="-c search_path=pgjobq") as late:
            enqueue(late, 1, "late")
            late.execute("prepare transaction 'late'")
        for restart in (False, True):
            if restart:
                server.stop()
                server.start()
            with psycopg.connect(server.dsn, autocommit=True, options="-c search_path=pgjobq") as conn:
                me = one(conn, "select register_worker('test')")
                assert len(one(conn, "select open_transactions('jobs')")) == 1
                enqueue(conn, 2000, str(restart))
                assert len(claim(conn, me, 2000)) == 2000
                advance(conn, 5)
                assert floor(conn) is None
        with psycopg.connect(server.dsn, autocommit=True, options="-c search_path=pgjobq") as conn:
            conn.execute("commit prepared 'late'")
            advance(conn)
            look_ago(conn, 0)
            assert claim(conn, me, 10) == ["late000000"]


@pytest.fixture
def old_snapshot(connect: Connect) -> Iterator[None]:
    """A transaction with an old snapshot, such as a dump. Vacuum removes nothing meanwhile."""
    old = connect(autocommit=False)
    old.execute("set transaction isolation level repeatable read")
    old.execute("select count(*) from jobs")
    yield
    old.rollback()


def buffers(conn: Connection, me: int, jobs: int) -> int:
    """Return how many pages a claim over all queues reads. The claim is rolled back."""
    query = "explain (analyze, buffers, timing off, format json) select from claim_jobs(%s, null, %s)"
    conn.execute("begin")
    plan = one(conn, query, me, jobs)[0]["Plan"]
    conn.execute("rollback")
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


@pytest.mark.usefixtures("old_snapshot")
@pytest.mark.parametrize("kind", ["one queue", "100 queues", "cancelled", "trickle"])
def test_claims_do_not_become_slower_under_an_old_snapshot(
    conn: Connection, make_storage: Callable[..., PostgresStorage], me: int, kind: str
) -> None:
    """A claim reads hardly more pages for the last quarter of 40,000 jobs than for the first."""
    storage, looked = make_storage(), list[int]()
    for _ in range(40):
        queues = [f"q{n % 100:02}" if kind == "100 queues" else "q" for n in range(1000)]
        conn.execute("select enqueue_jobs(%s, queues => %s)", [["t"] * 1000, queues])
        if kind == "cancelled":
            conn.execute("update jobs set status = 'cancelled' where status = 'pending' and right(id, 1) < 'c'")
            storage.maintain([])  # as a worker does once a second
        looked.append(buffers(conn, me, 10))
        for _ in range(60):
            jobs = storage.dequeue_many(20 if kind == "trickle" else 200)
            if not jobs:
                break
            storage.complete_many(jobs)
    first, last = sum(looked[:10]), sum(looked[-10:])
    assert last < 1.3 * first


def test_floors_of_idle_lanes_do_not_accumulate(conn: Connection) -> None:
    """There may be a queue for each customer, or priorities from the clock, and each claim reads every floor."""
    conn.execute("select setval('place_seq', 10000)")
    conn.execute(
        "insert into floors select 'q' || n, -5, 1, now() - n * interval '1 s' from generate_series(1, 1500) as n"
    )
    advance(conn, 1)
    kept = one(conn, "select array_agg(substr(queue, 2)::integer order by 1) from floors")
    assert sorted(kept) == list(range(1, 401))
