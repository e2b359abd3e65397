"""Unique keys in concurrent transactions: in arranged interleavings, and with many clients."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from pgjobq.storage.postgres_storage import PostgresStorage

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]

pytestmark = pytest.mark.usefixtures("workers")


def add(conn: Connection, job_id: str, more: str = "", key: str = "k") -> tuple[str, str]:
    """Add a job with a key. Return the id in which the call ended, and its outcome."""
    row = conn.execute(f"select id, outcome from add_job('t', job_id => %s, unique_key => %s {more})", [job_id, key])
    found: tuple[str, str] | None = row.fetchone()
    assert found is not None
    return found


def claim(conn: Connection) -> list[str]:
    """Claim all jobs that can be claimed, and return their ids."""
    return [row[0] for row in conn.execute("select id from claim_jobs(1, null, 100)")]


class Waiting:
    """A statement in a thread that must wait for another transaction's lock."""

    def __init__(self, conn: Connection, watcher: Connection, call: Callable[[], Any]) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._result: Future[Any] = self._pool.submit(call)
        query = "select wait_event_type = 'Lock' from pg_stat_activity where pid = %s"
        deadline = time.monotonic() + 30
        while watcher.execute(query, [conn.info.backend_pid]).fetchone() != (True,):
            assert not self._result.done(), self._result.result()
            assert time.monotonic() < deadline, "the statement does not wait"

    def result(self) -> Any:
        """Return the result of the call, after the other transaction has ended."""
        try:
            return self._result.result(30)
        finally:
            self._pool.shutdown()


@pytest.mark.parametrize("unique_while", ["unfinished", "pending"])
@pytest.mark.parametrize("commits", [True, False])
def test_second_call_waits_and_takes_the_key_if_the_first_rolls_back(
    conn: Connection, connect: Connect, unique_while: str, commits: bool
) -> None:
    first, second = connect(autocommit=False), connect()
    more = f", unique_while => '{unique_while}'"
    assert add(first, "a", more) == ("a", "added")
    waiting = Waiting(second, conn, lambda: add(second, "b", more))
    first.commit() if commits else first.rollback()
    assert waiting.result() == (("a", "kept") if commits else ("b", "added"))
    assert claim(conn) == (["a"] if commits else ["b"])


@pytest.mark.parametrize("commits", [True, False])
def test_second_call_waits_while_the_first_takes_the_key_of_an_ended_job(
    conn: Connection, connect: Connect, commits: bool
) -> None:
    add(conn, "ended")
    conn.execute("select cancel_job('ended')")
    first, second = connect(autocommit=False), connect()
    add(first, "a")
    waiting = Waiting(second, conn, lambda: add(second, "b"))
    first.commit() if commits else first.rollback()
    assert waiting.result() == (("a", "kept") if commits else ("b", "added"))


def test_rollback_to_a_savepoint_frees_the_key(conn: Connection, connect: Connect) -> None:
    first, second = connect(autocommit=False), connect()
    first.execute("savepoint s")
    add(first, "a")
    waiting = Waiting(second, conn, lambda: add(second, "b"))
    first.execute("rollback to savepoint s")
    assert waiting.result() == ("b", "added")
    assert add(first, "c") == ("b", "kept")
    first.commit()


def test_bulks_with_the_same_keys_in_opposite_order_do_not_deadlock(conn: Connection, connect: Connect) -> None:
    first, second = connect(autocommit=False), connect()
    bulk = "select id, outcome from add_jobs('{t,t,t}', job_ids => %s, unique_keys => %s)"
    assert len(first.execute(bulk, [["1", "2", "3"], ["x", "y", "z"]]).fetchall()) == 3
    waiting = Waiting(second, conn, lambda: second.execute(bulk, [["4", "5", "6"], ["z", "y", "x"]]).fetchall())
    first.execute(bulk, [["7", "8", "9"], ["y", "x", "z"]])
    first.commit()
    assert waiting.result() == [("3", "kept"), ("2", "kept"), ("1", "kept")]


def test_many_concurrent_bulks_do_not_deadlock(conn: Connection, connect: Connect) -> None:
    def work(number: int) -> None:
        rng, own = random.Random(number), connect()  # noqa: S311  # the seed of an order, not a secret
        for _ in range(30):
            keys = rng.sample("abcdefghij", 6)
            more = rng.choice(["", ", unique_while => 'pending'", ", on_conflict => 'replace'"])
            own.execute(f"select add_jobs('{{t,t,t,t,t,t}}', unique_keys => %s {more})", [keys])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert conn.execute("select count(*), count(distinct unique_key) from jobs").fetchone() == (10, 10)


def test_calls_with_keys_in_opposite_order_deadlock_and_one_continues(conn: Connection, connect: Connect) -> None:
    """Two updates of two rows behave in the same way."""
    first, second = connect(autocommit=False), connect(autocommit=False)
    add(first, "a", key="x")
    add(second, "b", key="y")
    waiting = Waiting(first, conn, lambda: add(first, "c", key="y"))
    outcomes = []
    try:
        outcomes.append(add(second, "d", key="x"))
    except psycopg.errors.DeadlockDetected:
        second.rollback()
    try:
        outcomes.append(waiting.result())
    except psycopg.errors.DeadlockDetected:
        first.rollback()
    assert len(outcomes) == 1
    for each in (first, second):
        each.commit()
    assert conn.execute("select count(*), count(distinct unique_key) from jobs").fetchone() == (2, 2)


@pytest.mark.parametrize("commits", [True, False])
def test_retry_waits_for_an_enqueue_of_its_key(conn: Connection, connect: Connect, commits: bool) -> None:
    add(conn, "a")
    conn.execute("select cancel_job('a')")
    first, second = connect(autocommit=False), connect()
    add(first, "b")
    waiting = Waiting(second, conn, lambda: second.execute("select retry_job('a')").fetchone())
    first.commit() if commits else first.rollback()
    if commits:
        with pytest.raises(psycopg.Error, match="the unfinished job b has the key 'k'"):
            waiting.result()
    else:
        assert waiting.result() == (True,)
    assert claim(conn) == (["b"] if commits else ["a"])


@pytest.mark.parametrize("commits", [True, False])
def test_enqueue_waits_for_a_retry_of_its_key(conn: Connection, connect: Connect, commits: bool) -> None:
    add(conn, "a")
    conn.execute("select cancel_job('a')")
    first, second = connect(autocommit=False), connect()
    first.execute("select retry_job('a')")
    waiting = Waiting(second, conn, lambda: add(second, "b"))
    first.commit() if commits else first.rollback()
    assert waiting.result() == (("a", "kept") if commits else ("b", "added"))


@pytest.mark.parametrize("change", ["delete from jobs where id = 'a'", "select cancel_job('a')"])
@pytest.mark.parametrize("commits", [True, False])
def test_call_waits_for_the_delete_or_cancel_of_the_job_with_the_key(
    conn: Connection, connect: Connect, change: str, commits: bool
) -> None:
    """With unique_while => 'pending' the call waits until the job's status is certain."""
    add(conn, "a")
    first, second = connect(autocommit=False), connect()
    first.execute(change.encode())
    waiting = Waiting(second, conn, lambda: add(second, "b", ", unique_while => 'pending'"))
    first.commit() if commits else first.rollback()
    assert waiting.result() == (("b", "added") if commits else ("a", "kept"))
    assert claim(conn) == (["b"] if commits else ["a"])


@pytest.mark.parametrize("commits", [True, False])
def test_job_that_is_claimed_meanwhile_does_not_keep_its_key_while_pending(
    conn: Connection, connect: Connect, commits: bool
) -> None:
    add(conn, "a")
    first, second = connect(autocommit=False), connect()
    assert claim(first) == ["a"]
    waiting = Waiting(second, conn, lambda: add(second, "b", ", unique_while => 'pending'"))
    first.commit() if commits else first.rollback()
    assert waiting.result() == (("b", "added") if commits else ("a", "kept"))


@pytest.mark.parametrize("more", [", unique_while => 'pending'", ", on_conflict => 'replace'",
                                  ", on_conflict => 'debounce', execute_at => now()"])  # fmt: skip
@pytest.mark.parametrize("commits", [True, False])
def test_job_does_not_start_before_the_call_that_was_folded_into_it_commits(
    conn: Connection, connect: Connect, more: str, commits: bool
) -> None:
    add(conn, "a")
    caller, worker = connect(autocommit=False), connect()
    caller.execute("create table public.documents ()")
    assert add(caller, "b", more)[0] == "a"
    assert claim(worker) == []
    caller.commit() if commits else caller.rollback()
    assert claim(worker) == ["a"]
    seen = worker.execute("select to_regclass('public.documents') is not null").fetchone()
    assert seen == (commits,)


def test_settle_does_not_wait_for_a_call_that_keeps_a_running_job(conn: Connection, connect: Connect) -> None:
    add(conn, "a")
    (claimed,) = conn.execute("select claim_id from claim_jobs(1)").fetchall()
    caller = connect(autocommit=False)
    assert add(caller, "b") == ("a", "kept")
    conn.execute("set lock_timeout = '100ms'")
    assert conn.execute("select complete_jobs(1, '{a}', %s)", [list(claimed)]).fetchall() == []


@pytest.mark.parametrize("asleep", [False, True], ids=["worker polls", "worker sleeps"])
@pytest.mark.parametrize("more", [", unique_while => 'pending'", ", on_conflict => 'replace'",
                                  ", on_conflict => 'replace', priority => 7"])  # fmt: skip
@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
def test_job_is_found_soon_after_the_commit(
    conn: Connection, connect: Connect, make_storage: Callable[..., PostgresStorage], asleep: bool, more: str, isolation: str
) -> None:  # fmt: skip
    """This holds even if no worker has passed over the held job, and all workers sleep."""
    storage = make_storage(poll_interval=3600)
    assert storage.dequeue_many(1) == []
    caller = connect(autocommit=False)
    if asleep:
        while storage.wait(0.3) is not False:
            assert storage.dequeue_many(1) == []
        conn.execute("alter table jobs disable trigger jobs_inserted")
        add(conn, "a")
        conn.execute("insert into ready (queue, lane, job_id) values ('default', -5, 'a')")
        conn.execute("alter table jobs enable trigger jobs_inserted")
    else:
        add(conn, "a")
    caller.execute(f"set transaction isolation level {isolation}")
    assert add(caller, "b", more)[0] == "a"
    if not asleep:
        for _ in range(3):
            assert storage.dequeue_many(1) == []
            storage.wait(0.2)
    threading.Timer(0.3, caller.commit).start()
    began = time.monotonic()
    if asleep:
        storage.wait(10)
        assert time.monotonic() - began < 3, "the worker was not notified"
    while not storage.dequeue_many(1):
        assert time.monotonic() - began < 3, "the job was left to the fallback poll"
        storage.wait(3)


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
@pytest.mark.parametrize("change", [
    "select add_job('t', job_id => 'new', unique_key => 'new')",
    "select complete_jobs(1, '{old}', array(select claim_id from jobs where id = 'old'))",
    "delete from jobs where id = 'old'",
    "select cancel_job('old'), add_job('t', job_id => 'new', unique_key => 'old')",
])  # fmt: skip
def test_old_snapshot_raises_an_error_that_says_what_to_do(
    conn: Connection, connect: Connect, isolation: str, change: str
) -> None:
    """Otherwise the call could be folded into a job that has ended since, or add a second job."""
    add(conn, "old", key="old")
    conn.execute("select claim_jobs(1)")
    caller = connect(autocommit=False)
    caller.execute(f"set transaction isolation level {isolation}")
    caller.execute("select 1 from jobs")
    conn.execute(change.encode())
    key = "new" if "add_job" in change and "old" not in change else "old"
    with pytest.raises(psycopg.errors.SerializationFailure, match=f"unique_key: the key '{key}', or its job") as error:
        add(caller, "b", key=key)
    assert "run the whole transaction again" in str(error.value.diag.message_hint)
    caller.rollback()
    add(caller, "b", key=key)


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_fresh_snapshot_behaves_like_read_committed(conn: Connection, isolation: str) -> None:
    conn.execute(f"set default_transaction_isolation = '{isolation}'")
    assert add(conn, "a") == ("a", "added")
    assert add(conn, "b", ", unique_while => 'pending'") == ("a", "kept")
    assert add(conn, "b", ", on_conflict => 'replace'") == ("a", "replaced")
    assert claim(conn) == ["a"]
    assert add(conn, "b") == ("a", "kept")
    assert add(conn, "b", ", unique_while => 'pending'") == ("b", "added")


def test_sweep_keeps_a_key_that_a_new_job_took_meanwhile(conn: Connection, connect: Connect) -> None:
    add(conn, "a")
    conn.execute("delete from jobs")
    first, second = connect(autocommit=False), connect()
    assert add(first, "b") == ("b", "added")
    assert second.execute("select sweep_unique_keys(1000)").fetchone() == (0,)
    first.commit()
    assert second.execute("select sweep_unique_keys(1000)").fetchone() == (0,)
    assert add(conn, "c") == ("b", "kept")


@pytest.mark.parametrize("more", ["", ", unique_while => 'pending'", ", on_conflict => 'replace'"])
def test_64_clients_with_one_key(conn: Connection, connect: Connect, more: str) -> None:
    """After each commit there is exactly one job with the key, whichever other clients roll back."""
    connections = [connect(autocommit=False) for _ in range(64)]
    faults: list[Any] = []

    def work(number: int) -> None:
        rng, own = random.Random(number), connections[number]  # noqa: S311  # the seed of a schedule, not a secret
        for turn in range(8):
            id_, _ = add(own, f"{number}-{turn}", more)
            if rng.random() < 0.5:
                own.rollback()
                continue
            own.commit()
            found = own.execute("select id from jobs").fetchall()
            own.rollback()
            if found != [(id_,)]:
                faults.append((id_, found))

    with ThreadPoolExecutor(64) as pool:
        list(pool.map(work, range(64)))
    assert faults == []
