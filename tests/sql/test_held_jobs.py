"""Jobs that another transaction holds are skipped. They are found later, without polling all the time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from helpers.calls import claim, enqueue, one

from pgjobq import Registry, Worker
from pgjobq.storage.postgres_storage import PostgresStorage

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]
MakeStorage = Callable[..., PostgresStorage]


def buffers(conn: Connection, me: int, jobs: int = 1, queues: list[str] | None = None) -> int:
    """Return how many pages a claim reads."""
    query = "explain (analyze, buffers, timing off, format json) select from claim_jobs(%s, %s, %s)"
    plan = one(conn, query, me, queues, jobs)[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def fall_due(conn: Connection, ago: float = 0) -> None:
    """Move all places in line to scheduled, as jobs that have been due for this many seconds."""
    due = "select now() - make_interval(secs => %s), seq, queue, lane, job_id from ready"
    conn.execute(f"with due as ({due}), gone as (delete from ready) insert into scheduled select * from due", [ago])


def places(conn: Connection) -> int:
    """Return how many places there are in ready and scheduled."""
    return int(one(conn, "select (select count(*) from ready) + (select count(*) from scheduled)"))


def found_after(storage: PostgresStorage, release: Callable[[], Any], seconds: float) -> float:
    """Dequeue in vain for this many seconds, then call `release`. Return the seconds until a job is found."""
    released_at = None
    deadline = time.monotonic() + seconds
    while not storage.dequeue_many(1):
        if released_at is None and time.monotonic() >= deadline:
            release()
            released_at = time.monotonic()
        storage.wait(max(0.01, deadline - time.monotonic()) if released_at is None else 60)
    assert released_at is not None, "the job was not held"
    return time.monotonic() - released_at


@pytest.mark.parametrize("hold", [
    "select from jobs for update", "update jobs set data = data", "select cancel_job('j000000')",
    "select from scheduled for update",
])  # fmt: skip
@pytest.mark.parametrize("held_for", [0.0, 2.0])
def test_released_job_is_found_within_about_a_second(
    conn: Connection, connect: Connect, make_storage: MakeStorage, hold: str, held_for: float
) -> None:
    """A worker that passed over a held job claims again long before its fallback poll."""
    enqueue(conn, 1)
    if "scheduled" in hold:
        fall_due(conn)
    holder = connect(autocommit=False)
    holder.execute(hold)
    assert found_after(make_storage(poll_interval=3600), holder.rollback, held_for) < 2.5


def test_orphan_after_held_jobs_hides_no_free_jobs(conn: Connection, connect: Connect, me: int) -> None:
    """A thousand held jobs and an orphan are in line before fifty free jobs."""
    held, orphan, free = enqueue(conn, 1000, "held"), enqueue(conn, 1, "orphan"), enqueue(conn, 50, "free")
    conn.execute("delete from jobs where id = any(%s)", [orphan])
    holder = connect(autocommit=False)
    holder.execute("select from jobs where id = any(%s) for update", [held])
    assert claim(conn, me, 10) == free[:10]
    assert claim(conn, me, 100) == free[10:]
    assert places(conn) == 1000
    holder.rollback()
    assert claim(conn, me, 2000) == held


@pytest.mark.parametrize(
    "hold", ["select from scheduled for update", "select from jobs for update", "update jobs set data = data"]
)
def test_idle_workers_rarely_poll_while_jobs_are_held(
    conn: Connection, connect: Connect, make_storage: MakeStorage, registry: Registry, hold: str
) -> None:
    """Two workers together call the database some ten times a second, whatever an open transaction holds."""
    conn.execute("create extension if not exists pg_stat_statements schema public")
    enqueue(conn, 1)
    if "scheduled" in hold:
        fall_due(conn)
    holder = connect(autocommit=False)
    holder.execute(hold)
    calls = """select sum(calls) from pg_stat_statements
                where toplevel and dbid = (select oid from pg_database where datname = current_database())"""
    workers = [Worker(make_storage(), registry=registry) for _ in range(2)]
    for worker in workers:
        worker.start()
    try:
        time.sleep(2)
        before = one(conn, calls)
        time.sleep(3)
        assert one(conn, calls) - before < 200  # each worker checks an open update 20 times a second
    finally:
        for worker in workers:
            worker.stop()


def test_claim_in_an_open_transaction_hides_no_due_jobs_of_other_queues(
    conn: Connection, connect: Connect, me: int
) -> None:
    """The claim moves only due jobs of its own queues from scheduled to ready."""
    for queue in "ab":
        enqueue(conn, 20, queue, queue)
    fall_due(conn)
    other = connect(autocommit=False)
    assert len(claim(other, me, 1, ["a"])) == 1
    assert claim(conn, me, 100, ["b"]) == [f"b{n:06}" for n in range(20)]


def test_due_jobs_of_other_queues_do_not_slow_down_a_claim(conn: Connection, me: int) -> None:
    """No worker serves one of the queues. Any worker's maintenance moves its due jobs to ready, where claims skip them."""
    enqueue(conn, 3000, "b", "b")
    fall_due(conn, 60)
    enqueue(conn, 2, "a", "a")
    conn.execute("select watch_workers(%s, '{a}')", [me])
    claim(conn, me, 1, ["a"])
    assert buffers(conn, me, 1, ["a"]) < 150
    assert len(claim(conn, me, 5000, ["b"])) == 3000


def test_claim_in_an_open_transaction_does_not_block_others(conn: Connection, connect: Connect, me: int) -> None:
    """The open claim passed over a held job. Other claims do not wait, and find the job after the end of the claim."""
    enqueue(conn, 3)
    holder, other = connect(autocommit=False), connect(autocommit=False)
    holder.execute("select from jobs where id = 'j000000' for update")
    assert claim(other, me, 1) == ["j000001"]
    assert claim(other, me, 5) == ["j000002"]
    holder.rollback()
    conn.execute("set lock_timeout = '1s'")
    assert claim(conn, me, 5) == []
    other.commit()
    assert claim(conn, me, 5) == ["j000000"]


@pytest.mark.parametrize("deep", [False, True], ids=["one held job in each queue", "one queue with many held jobs"])
def test_claims_over_many_queues_with_held_jobs_are_not_quadratic(
    conn: Connection, connect: Connect, me: int, deep: bool
) -> None:
    """With four times as many held jobs and queues, a claim reads about four times as many pages, not sixteen times."""
    looked = []
    for number, queues in enumerate((500, 2000)):
        names = [f"{number}-{n:04}" for n in range(queues)]
        conn.execute("truncate jobs, ready")
        held = [names[0]] * queues if deep else names
        for part in (held, names):
            conn.execute("select enqueue_jobs(%s, queues => %s)", [["t"] * queues, part])
        holder = connect(autocommit=False)
        holder.execute("select from jobs order by id limit %s for update", [queues])
        claim(conn, me)
        looked.append(buffers(conn, me))
        holder.rollback()
    assert looked[1] < 8 * looked[0]


@pytest.mark.parametrize("seed", range(12))
def test_claims_take_the_first_free_jobs_in_order(conn: Connection, connect: Connect, me: int, seed: int) -> None:
    """Jobs may be held, orphaned, cancelled or below a floor. Claims take the free jobs, highest priority first."""
    rng = random.Random(seed)  # noqa: S311  # these are jobs, not secrets
    jobs = 400
    names, priorities = [rng.choice("abcd") for _ in range(jobs)], [rng.randint(1, 3) for _ in range(jobs)]
    ids = [f"{n:04}" for n in range(jobs)]
    query = "select enqueue_jobs(%s, priorities => %s, queues => %s, job_ids => %s)"
    conn.execute(query, [["t"] * jobs, priorities, names, ids])
    holder = connect(autocommit=False)
    free = set(range(jobs))

    def some(share: float) -> list[str]:
        chosen = sorted(rng.sample(sorted(free), int(len(free) * share)) + [n for n in free if n < jobs * share / 2])
        free.difference_update(chosen)
        return [ids[n] for n in chosen]

    conn.execute("delete from jobs where id = any(%s)", [some(0.1)])
    conn.execute("update jobs set status = 'cancelled' where id = any(%s)", [some(0.1)])
    holder.execute("select from jobs where id = any(%s) for update", [some(0.3)])
    for queue, lane in rng.sample([(queue, -lane) for queue in "abcd" for lane in (1, 2, 3)], 6):
        conn.execute(
            """insert into floors select %s, %s, coalesce(min(seq), 1), now() from ready where queue = %s and lane = %s""",
            [queue, lane, queue, lane],
        )
    while free:
        queues = rng.choice([None, ["a", "b", "b", "a"], ["c", "zzz", "d", "a"], ["a", "b", "c", "d"]])
        wanted = sorted((n for n in free if queues is None or names[n] in queues), key=lambda n: (-priorities[n], n))
        limit = rng.choice([1, 2, 7, 40])
        assert claim(conn, me, limit, queues) == [ids[n] for n in wanted[:limit]]
        free.difference_update(wanted[:limit])


@pytest.mark.parametrize("held", [False, True])
def test_claim_reports_held_jobs_only_if_it_passed_over_some(
    conn: Connection, connect: Connect, me: int, held: bool
) -> None:
    """A place without a job does not count as held."""
    enqueue(conn, 6)
    conn.execute("delete from jobs where id = 'j000003'")
    holder = connect(autocommit=False)
    holder.execute("select from jobs where id = 'j000004' and %s for update", [held])
    with conn.transaction():
        assert len(claim(conn, me, 10)) == 5 - held
        assert one(conn, "select coalesce(current_setting('pgjobq.skipped', true), '')") == ("held" if held else "")


def test_places_of_cancelled_jobs_are_dropped_in_several_claims(conn: Connection, me: int) -> None:
    """A claim drops some thousand places and reports that there are more. They stay dropped if a later claim is cut off."""
    enqueue(conn, 20_000)
    conn.execute("update jobs set status = 'cancelled'")
    free = enqueue(conn, 1, "free")
    left, claims = [places(conn)], 0
    while (found := claim(conn, me)) == []:
        left.append(places(conn))
        assert 1000 <= left[-2] - left[-1] <= 7000
        claims += 1
        if claims == 2:
            with pytest.raises(psycopg.errors.QueryCanceled):
                conn.execute("set statement_timeout = 1; select id from claim_jobs(1)")
            conn.execute("reset statement_timeout")
            assert places(conn) == left[-1]
    assert found == free
    assert claims >= 3


def test_worker_claims_again_at_once_after_it_dropped_orphans(conn: Connection, make_storage: MakeStorage) -> None:
    """A claim that found no job but dropped orphans is followed by another one without a pause."""
    enqueue(conn, 15_000)
    conn.execute("update jobs set status = 'cancelled'")
    enqueue(conn, 1, "free")
    storage = make_storage(poll_interval=3600)
    while not storage.dequeue_many(1):
        assert storage.wait(0) is not False


def test_places_of_a_postponed_job_do_not_accumulate(conn: Connection, me: int) -> None:
    """Each old place is checked once, when it is due, and the last one is kept."""
    enqueue(conn, 1)
    for n in range(2000):
        conn.execute("select retry_job('j000000', %s)", [3600 + n])
    assert places(conn) == 2001
    conn.execute("update scheduled set execute_at = now() where execute_at <> (select execute_at from jobs)")
    for _ in range(4):
        assert claim(conn, me) == []
    assert places(conn) == 1
    conn.execute("update jobs set execute_at = now() - interval '1 s'")
    assert claim(conn, me) == ["j000000"]


def test_claims_find_the_jobs_after_a_job_with_many_places(conn: Connection, make_storage: MakeStorage) -> None:
    """A claim that meets ten places of one job returns the job once, and the worker claims again for the rest."""
    enqueue(conn, 1)
    for n in range(1, 30):
        conn.execute("update jobs set execute_at = now() - %s * interval '1 s'", [n])
    behind = enqueue(conn, 5, "k")
    storage = make_storage(poll_interval=3600)
    got: list[str] = []
    for _ in range(6):
        got += [job.id for job in storage.dequeue_many(10)]
        if len(got) < 6:
            assert storage.wait(0) is not False
    assert got == ["j000000", *behind]
