"""Rare circumstances in which the queue must work as usual."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from helpers.calls import register
from helpers.until import until
from psycopg.conninfo import make_conninfo

from pgjobq.postgres.schema import migrate
from pgjobq.storage.postgres_storage import PostgresStorage

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]
MakeStorage = Callable[..., PostgresStorage]

MOST = 2**31 - 1


def claim(conn: Connection, worker: int, *arguments: Any) -> list[str]:
    places = ", ".join("%s" for _ in arguments)
    query = f"select id from claim_jobs(%s{', ' * bool(arguments)}{places})"
    return [row[0] for row in conn.execute(query, [worker, *arguments])]


def skipped(conn: Connection) -> Any:
    return conn.execute("select coalesce(current_setting('pgjobq.skipped', true), '')").fetchone()


@pytest.mark.parametrize("publication", ["for all tables", "for tables in schema pgjobq"])
def test_publication_of_all_tables_prevents_no_update(conn: Connection, publication: str) -> None:
    """PostgreSQL refuses updates and deletes on published tables without a replica identity."""
    conn.execute(f"set client_min_messages = error; create publication everything {publication}")
    worker = register(conn)
    conn.execute(
        "select enqueue_jobs(array_fill('t'::text, array[1500]), job_ids => array(select generate_series(1, 1500)::text))"
    )
    conn.execute("select enqueue_job('t', job_id => 'later', execute_at => now() + '1 day')")
    conn.execute("update scheduled set execute_at = now(); update jobs set execute_at = now() where id = 'later'")
    safe, open_ = conn.execute("select safe, open from advance_floors()").fetchone() or (0, [])
    rows = conn.execute("select claim_id, id from claim_jobs(%s, null, 2000)", [worker]).fetchall()
    assert len(rows) == 1501
    conn.execute("select enqueue_job('t'), cancel_job('1')")
    conn.execute("select complete_jobs(%s, '{2}', %s), fail_job('3', %s, 'x')", [worker, [rows[0][0]], rows[0][0]])
    conn.execute("select release_jobs('{4}', %s), retry_job('5', 0, 'x', %s)", [[rows[0][0]], rows[0][0]])
    for _ in range(3):
        safe, open_ = conn.execute("select safe, open from advance_floors(%s, %s)", [safe, open_]).fetchone() or (0, [])
    assert conn.execute("select count(*) > 0 from floors").fetchone() == (True,)
    conn.execute("insert into floors select queue, lane, seq + 10000, moved_at from floors; select advance_floors()")
    conn.execute("select prune_jobs('0 s'), watch_workers(%s), retire_worker(%s)", [worker, worker])
    assert conn.execute("select count(*) from jobs where status = 'pending'").fetchone() == (1499,)


def test_settle_gives_way_to_cancels_in_another_order(connect: Connect, conn: Connection) -> None:
    """The settle gives up before the server detects a deadlock with a transaction that cancels in another order."""
    # The check of the server, which would end one of the two, must not run before the settle gives way.
    conn.execute("set deadlock_timeout = '10s'")
    worker = register(conn)
    conn.execute("select enqueue_jobs('{t,t}', job_ids => '{a,b}')")
    claim_id = conn.execute("select claim_id from claim_jobs(%s, null, 2)", [worker]).fetchone()
    assert claim_id is not None
    operator = connect(autocommit=False)
    operator.execute("select cancel_job('b')")
    failures: list[psycopg.Error] = []

    def settle() -> None:
        try:
            conn.execute("select complete_jobs(%s, '{a,b}', %s)", [worker, [claim_id[0], claim_id[0]]])
        except psycopg.Error as error:
            failures.append(error)

    settling = threading.Thread(target=settle)
    settling.start()
    watcher = connect()
    while watcher.execute("select from pg_locks where not granted").fetchone() is None:
        pass
    operator.execute("select cancel_job('a')")
    operator.commit()
    settling.join(20)
    assert [error.sqlstate for error in failures] == ["55P03"]
    assert watcher.execute("select id, status from jobs order by id").fetchall() == [
        ("a", "cancelled"),
        ("b", "cancelled"),
    ]


@pytest.mark.parametrize("most", [MOST, MOST - 1, 2**30])
def test_max_jobs_can_be_any_positive_integer(conn: Connection, most: int) -> None:
    worker = register(conn)
    conn.execute("select enqueue_jobs('{t,t,t}', queues => '{x,y,z}', job_ids => '{a,b,c}')")
    conn.execute("insert into scheduled (execute_at, queue, lane, job_id) values (now(), 'x', -5, 'a')")
    assert conn.execute("select promote_jobs(%s)", [most]).fetchone() == (1,)
    assert conn.execute("select count(*) from list_jobs(null, %s)", [most]).fetchone() == (3,)
    assert conn.execute("select count(*) from export_jobs(%s)", [most]).fetchone() == (3,)
    assert claim(conn, worker, ["x"], most) == ["a"]
    assert claim(conn, worker, ["y", "x"], most) == ["b"]
    assert claim(conn, worker, None, most) == ["c"]
    assert claim(conn, worker, None, most) == []
    conn.execute("select cancel_job(id) from list_jobs()")
    assert conn.execute("select pruned from prune_jobs('0 s', max_jobs => %s)", [most]).fetchone() == (3,)


def test_ids_of_workers_start_again_after_the_highest(connect: Connect, conn: Connection) -> None:
    """A worker can have the highest id. The next worker gets the lowest free id."""
    first = register(connect())
    conn.execute("select setval(pg_get_serial_sequence('workers', 'id'), %s, false)", [MOST])
    last = register(conn)
    assert (first, last) == (1, MOST)
    assert register(connect()) == 2
    conn.execute("select enqueue_job('t', job_id => 'a')")
    for state in ("asleep", "polling", "asleep"):
        conn.execute("select set_worker_state(%s, %s, channel => 'last')", [last, state])
    assert conn.execute("select id from worker_status where alive and asleep").fetchall() == [(MOST,)]
    conn.execute("listen last")
    other = connect()
    for id_ in "bc":  # the turn passes the highest id
        other.execute("select enqueue_job('t', job_id => %s)", [id_])
    assert [heard.payload for heard in conn.notifies(timeout=0.5)] == ["default", "default"]
    assert claim(conn, last) == ["a"]
    conn.execute("select watch_workers(%s), retire_worker(%s)", [last, last])
    assert conn.execute("select status, worker_id from jobs where id = 'a'").fetchone() == ("pending", MOST)


def test_time_advances_for_a_worker_in_a_single_call(conn: Connection) -> None:
    """A procedure that enqueues, claims, settles and commits in a loop finds jobs that become due while it runs."""
    conn.execute("""
        create procedure public.work(id integer) language plpgsql as $$
        declare
          v_job   record;
          v_until timestamptz := clock_timestamp() + interval '20 s';
          v_first timestamptz;
        begin
          perform enqueue_job('later', execute_at => clock_timestamp() + interval '100 ms', job_id => 'later');
          commit;
          loop
            perform enqueue_job('now');
            commit;
            select * from claim_jobs(work.id) order by type into v_job;
            commit;
            v_first := coalesce(v_first, v_job.started_at);
            perform complete_jobs(work.id, array[v_job.id], array[v_job.claim_id]);
            perform watch_workers(work.id), advance_floors();
            commit;
            exit when v_job.id = 'later' or clock_timestamp() > v_until;
          end loop;
          if not v_job.started_at > v_first then
            raise exception 'time stood still';
          end if;
          loop
            exit when (prune_jobs('50 ms', max_jobs => 1)).pruned = 1 or clock_timestamp() > v_until;
            commit;
          end loop;
        end;
        $$""")
    conn.execute("call public.work(%s)", [register(conn)])
    assert conn.execute("select count(*) from jobs where id = 'later' and status = 'completed'").fetchone() == (1,)
    times = "select count(distinct created_at) > 1, count(started_at) = count(distinct started_at) from jobs where type = 'now'"
    assert conn.execute(times).fetchone() == (True, True)
    assert conn.execute("select count(*) from jobs where status = 'running'").fetchone() == (0,)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP"])
def test_database_with_another_encoding(conn: Connection, dsn: str, encoding: str) -> None:
    """Jobs keep their text in a database that is not UTF8, and a sleeping worker is notified of every queue."""
    name = {"EUC_JP": "日本"}.get(encoding, "\u00e9t\u00e9")
    database = f"pgjobq_encoding_{conn.info.backend_pid}_{encoding.lower()}"
    conn.execute(f"create database {database} template template0 encoding '{encoding}' lc_collate 'C' lc_ctype 'C'")
    there = make_conninfo(dsn, dbname=database)
    storage = PostgresStorage(there, schema=f"q {name}")
    try:
        migrate(there, schema=f"q {name}")
        assert storage.dequeue_many(1, [name]) == []
        waited: list[bool] = []
        sleeping = threading.Thread(target=lambda: waited.append(sleep_until_notified(storage, [name])))
        sleeping.start()
        with psycopg.connect(there, autocommit=True, client_encoding="utf8") as other:
            until(lambda: other.execute(f'select from "q {name}".worker_status where asleep').fetchone() is not None)
            other.execute(
                f'select "q {name}".enqueue_job(%s, %s, queue => %s, job_id => %s)',
                [name, f'{{"{name}": 1}}', name, name],
            )
            other.execute(f'select "q {name}".enqueue_job(%s, queue => %s, job_id => %s)', ["plain", name, "plain"])
        sleeping.join(20)
        assert waited == [True]
        jobs = storage.dequeue_many(2, [name])
        assert [(job.id, job.type, job.queue) for job in jobs] == [(name, name, name), ("plain", "plain", name)]
        assert jobs[0].data == {name: 1}
        storage.fail(name, f"{name} and \u2603")
        stored = storage.get_job(name)
        assert stored is not None
        assert str(stored.error).startswith(name)
    finally:
        storage.close()
        conn.execute(f"drop database {database} with (force)")


def sleep_until_notified(storage: PostgresStorage, queues: list[str]) -> bool:
    """Claim and wait in turn as a worker does. Return whether a job arrived well before the fallback poll."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        if storage.list_jobs("pending"):
            return True
        storage.wait(15, queues)
    return False


def test_type_that_one_worker_leaves_can_be_claimed_by_another_at_once(conn: Connection, connect: Connect) -> None:
    """except_types affects only the claim that names it, and is not reported as passed over."""
    one, other = register(conn), register(connect())
    conn.execute("select enqueue_jobs('{x,y,x}', job_ids => '{a,b,c}')")
    before = conn.execute("select * from jobs where type = 'x' order by id").fetchall()
    with conn.transaction():
        assert claim(conn, one, None, 5, ["x"]) == ["b"]
        assert skipped(conn) == ("",)
    assert conn.execute("select * from jobs where type = 'x' order by id").fetchall() == before
    assert claim(conn, other, None, 1) == ["a"]
    assert claim(conn, one, None, 5, ["y"]) == ["c"]


def test_left_types_hide_no_job_after_them(conn: Connection) -> None:
    """A single claim finds the worker's job after thousands that it leaves to others."""
    worker = register(conn)
    conn.execute("select enqueue_jobs(array_fill('x'::text, array[6000]))")
    conn.execute("select enqueue_job('y', job_id => 'own')")
    assert claim(conn, worker, None, 1, ["x"]) == ["own"]


@pytest.mark.parametrize("triggers", ["origin", "replica"])
def test_queue_works_after_a_restore_of_the_data_only(conn: Connection, dsn: str, triggers: str) -> None:
    """A dump of the data is restored into empty tables, with or without triggers."""
    worker = register(conn)
    conn.execute("select enqueue_jobs('{t,t,t}', job_ids => '{a,b,c}')")
    conn.execute("select enqueue_job('t', job_id => 'later', execute_at => now() + '1 hour')")
    if triggers == "replica":  # with triggers, an insert of a running job is refused
        assert claim(conn, worker, None, 1) == ["a"]
    tables = ["claims", "floors", "jobs", "ready", "scheduled", "workers"]
    sequences = {name: conn.execute(f"select last_value from {name}").fetchone() for name in ("place_seq", "claim_seq")}
    dumped: dict[str, list[Any]] = {}
    for table in tables:
        with conn.cursor().copy(f"copy {table} to stdout") as copy:
            dumped[table] = [bytes(block) for block in copy]
    conn.execute(f"truncate {', '.join(tables)}, suspects, doorbell restart identity")
    conn.close()
    with psycopg.connect(
        dsn, autocommit=True, options=f"-c search_path=pgjobq -c session_replication_role={triggers}"
    ) as new:
        for table in tables:
            with new.cursor().copy(f"copy {table} from stdin") as copy:
                for block in dumped[table]:
                    copy.write(block)
        for name, last in sequences.items():
            new.execute("select setval(%s, %s)", [name, *(last or ())])
        new.execute("set session_replication_role = origin; select rescue_jobs('0 s')")
        new.execute("select setval(pg_get_serial_sequence('workers', 'id'), 1)")
        worker = register(new)
        claimed = claim(new, worker, None, 10) + claim(new, worker, None, 10)
        assert sorted(claimed) == ["a", "b", "c"]
        assert new.execute("select count(distinct job_id) from scheduled").fetchone() == (1,)
        new.execute("update jobs set execute_at = now() where id = 'later'")
        assert claim(new, worker, None, 10) == ["later"]
        assert claim(new, worker, None, 10) == []
