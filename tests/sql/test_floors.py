"""The floor: claims begin above the places that were taken, and no pending job is below it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]

pytestmark = pytest.mark.usefixtures("workers")


def enqueue(conn: Connection, jobs: int, *, priority: int = 5, queue: str = "default", name: str = "j") -> list[str]:
    """Enqueue this many jobs in one lane and return their ids in order."""
    ids = [f"{name}-{priority}-{n:06}" for n in range(jobs)]
    conn.execute(
        "select enqueue_jobs(%s, priorities => %s, queues => %s, job_ids => %s)",
        [["t"] * jobs, [priority] * jobs, [queue] * jobs, ids],
    )
    return ids


def claim(conn: Connection, jobs: int, queues: list[str] | None = None, worker: int = 1) -> list[str]:
    """Claim up to this many jobs and return their ids."""
    return [row[0] for row in conn.execute("select id from claim_jobs(%s, %s, %s)", [worker, queues, jobs]).fetchall()]


def advance(conn: Connection, times: int = 3) -> None:
    """Advance the floors as a worker does. The first call reads the sequence, and later calls move the floors."""
    state: list[Any] = [0, []]
    for _ in range(times):
        state = list(
            conn.execute("select safe, open::text[] from advance_floors(%s, %s::xid8[])", state).fetchone() or ()
        )


def floor(conn: Connection, priority: int = 5) -> int | None:
    """Return the floor of a lane."""
    row = conn.execute("select max(seq) from floors where lane = %s", [-priority]).fetchone()
    return None if row is None or row[0] is None else int(row[0])


@pytest.fixture
def busy(conn: Connection) -> Connection:
    """A lane with 2,010 jobs, of which 2,000 are taken, and with its floor above those."""
    enqueue(conn, 2010)
    claim(conn, 2000)
    advance(conn)
    assert floor(conn) == 2001
    return conn


def test_floor_stops_at_the_lowest_place(busy: Connection) -> None:
    assert claim(busy, 100) == [f"j-5-{n:06}" for n in range(2000, 2010)]


def test_claims_skip_the_dead_rows_that_an_old_snapshot_keeps(conn: Connection, connect: Connect) -> None:
    old = connect(autocommit=False)
    old.execute("set transaction isolation level repeatable read")
    old.execute("select count(*) from jobs")
    enqueue(conn, 20_000)
    for _ in range(19):
        claim(conn, 1000)
    buffers = []
    for _ in range(2):
        row = conn.execute(
            """explain (analyze, buffers, format json) select from claim_jobs(1, '{default}', 1)"""
        ).fetchone()
        assert row is not None
        plan = row[0][0]["Plan"]
        buffers.append(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
        advance(conn)
    assert buffers[0] > 200  # the claim reads every dead place and its index entry
    assert buffers[1] < buffers[0] / 3


def test_enqueue_that_commits_late_holds_back_the_floor(conn: Connection, connect: Connect) -> None:
    late = connect(autocommit=False)
    enqueue(late, 1, name="late")
    enqueue(conn, 2000)
    claim(conn, 2000)
    advance(conn)
    assert floor(conn) is None  # no number is safe while the transaction is open
    late.commit()
    advance(conn)
    assert floor(conn) is None  # the lowest place is the first of all
    assert claim(conn, 10) == ["late-5-000000"]
    enqueue(conn, 1, name="next")
    advance(conn)
    assert floor(conn) == 2002
    assert claim(conn, 10) == ["next-5-000000"]


def test_floor_passes_the_gap_of_an_enqueue_that_was_rolled_back(conn: Connection, connect: Connect) -> None:
    writer = connect(autocommit=False)
    enqueue(writer, 500)
    enqueue(conn, 2000, name="k")
    writer.rollback()
    claim(conn, 1990)
    advance(conn)
    assert floor(conn) == 2491
    assert len(claim(conn, 100)) == 10


def test_places_of_a_claim_that_rolls_back_are_found_again(conn: Connection, connect: Connect) -> None:
    enqueue(conn, 2000)
    claimer = connect(autocommit=False)
    taken = claim(claimer, 2000)
    enqueue(conn, 1, priority=4)
    claim(conn, 1)  # this makes the lane busy
    advance(conn)
    assert floor(conn) is None
    claimer.rollback()
    advance(conn)
    assert claim(conn, 5000) == taken


@pytest.mark.parametrize("how", ["retry", "release", "retire", "rescue", "update"])
def test_job_put_back_in_line_is_above_the_floor(busy: Connection, how: str) -> None:
    claim(busy, 10)
    busy.execute("update jobs set status = 'completed' where id <> 'j-5-000000'")
    worker = 1
    match how:
        case "retry":
            busy.execute("select retry_job(id, 0, null, claim_id) from jobs where id = 'j-5-000000'")
        case "release":
            busy.execute("select release_jobs(array[id], array[claim_id]) from jobs where id = 'j-5-000000'")
        case "retire":
            busy.execute("select retire_worker(1)")
            worker = 2
        case "rescue":
            assert busy.execute("select job_ids from rescue_jobs('0')").fetchone() == (["j-5-000000"],)
            (worker,) = busy.execute("select register_worker('w')").fetchone() or (0,)
        case _:
            busy.execute("update jobs set status = 'pending' where id = 'j-5-000000'")
    assert claim(busy, 5000, worker=worker) == ["j-5-000000"]


def test_new_priorities_are_found_above_and_below_the_floors(busy: Connection) -> None:
    enqueue(busy, 2000, priority=2)
    claim(busy, 2000)
    advance(busy)
    assert floor(busy, 2) is not None
    expected = [enqueue(busy, 1, priority=p, name="n")[0] for p in (2**31 - 1, 9, 5, 4, 2, 1, -(2**31))]
    expected = sorted(expected, key=lambda id_: -int(id_.removeprefix("n-").rsplit("-", 1)[0]))
    left = [id_ for id_ in claim(busy, 5000) if id_ in expected]
    assert left == expected


def test_old_snapshot_cannot_move_a_floor(conn: Connection, connect: Connect) -> None:
    """The old snapshot would not see jobs that were enqueued since."""
    enqueue(conn, 2000)
    claim(conn, 1990)
    blind = connect(autocommit=False)
    blind.execute("set transaction isolation level repeatable read")
    blind.execute("select count(*) from jobs")
    enqueue(conn, 10, name="unseen")
    state = conn.execute("select safe, open::text[] from advance_floors()").fetchone()
    assert state is not None
    for _ in range(3):
        moved = blind.execute("select safe, open::text[], moved from advance_floors(%s, %s::xid8[])", list(state))
        assert moved.fetchone() == (*state, 0)
    blind.commit()
    assert len(claim(conn, 5000)) == 20


@pytest.mark.parametrize("how", ["a claim that finds nothing", "advance_floors"])
def test_floor_above_a_place_is_dropped(busy: Connection, how: str) -> None:
    """This can happen only if the sequence was set back."""
    assert len(claim(busy, 10)) == 10
    busy.execute("select setval('place_seq', 10)")
    enqueue(busy, 1, name="low")
    if how == "advance_floors":
        advance(busy, 1)
        assert floor(busy) is None
    assert claim(busy, 10) == ["low-5-000000"]
    assert floor(busy) is None


def test_claims_look_below_the_floors_once_a_minute(busy: Connection) -> None:
    assert len(claim(busy, 10)) == 10
    assert claim(busy, 10) == []
    busy.execute("select setval('place_seq', 10)")
    enqueue(busy, 1, name="low")
    assert claim(busy, 10) == []
    busy.execute(
        "select set_config('pgjobq.floors_checked', (current_setting('pgjobq.floors_checked')::float8 - 61)::text, false)"
    )
    assert claim(busy, 10) == ["low-5-000000"]


def test_floors_of_idle_lanes_do_not_accumulate(busy: Connection) -> None:
    busy.execute(
        "insert into floors select 'q' || n, -5, 1, now() - n * interval '1 s' from generate_series(1, 450) as n"
    )
    enqueue(busy, 2000, name="next")
    advance(busy)
    kept = "select count(*), bool_or(queue = 'default'), bool_or(queue = 'q1'), bool_or(queue = 'q450') from floors"
    advance(busy)
    assert busy.execute(kept).fetchone() == (400, True, True, False)
    # Floors of idle lanes are deleted before those that move.
    busy.execute("insert into floors select 'r' || n, -5, 1, now() from generate_series(1, 400) as n")
    claim(busy, 2000)
    advance(busy)
    advance(busy)
    assert busy.execute(kept).fetchone() == (400, True, False, False)


@pytest.mark.parametrize("seed", range(4))
def test_order_over_many_queues_priorities_and_floors(conn: Connection, seed: int) -> None:
    """Claims follow priority and then enqueue order, whatever the batch size, the queues and the floors."""
    rng = random.Random(seed)  # noqa: S311  # these are jobs, not secrets
    queues = [f"q{n}" for n in range(12)]
    wide = seed % 2 == 1
    priorities = [rng.randint(-(2**31), 2**31 - 1) if wide else rng.randint(1, 5) for _ in range(600)]
    names = [queues[min(int(rng.expovariate(0.4)), 11)] for _ in range(600)]
    ids = [f"{n:04}" for n in range(600)]
    conn.execute(
        "select enqueue_jobs(%s, priorities => %s, queues => %s, job_ids => %s)", [["t"] * 600, priorities, names, ids]
    )
    for queue in queues[::3]:
        for priority in rng.sample(priorities, 4):
            # No place of the lane is below this floor.
            conn.execute(
                """insert into floors select %s, %s, coalesce(min(seq), 1000), now() from ready
                    where queue = %s and lane = %s""",
                [queue, -priority, queue, -priority],
            )
    wanted = None if seed < 2 else rng.sample(queues, 7)
    expected = sorted(
        (n for n in range(600) if wanted is None or names[n] in wanted), key=lambda n: (-priorities[n], n)
    )
    got: list[str] = []
    while batch := claim(conn, rng.choice([1, 7, 40, 200]), wanted):
        got += batch
    assert got == [ids[n] for n in expected]
