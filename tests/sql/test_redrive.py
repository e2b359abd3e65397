"""failures, retry_jobs and edit_job."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]


def one(conn: Connection, statement: str, *arguments: Any) -> Any:
    row = conn.execute(statement, arguments).fetchone()
    assert row is not None
    return row[0]


def fail(conn: Connection, error: str = "ValueError: no", name: str = "", **job: Any) -> str:
    """Enqueue a job, start it and fail it. Its id."""
    values = {"type": "x", **({"job_id": name} if name else {}), **job}
    names = ", ".join(f"{key} => %s" for key in values)
    conn.execute(f"select enqueue_job({names})", list(values.values()))
    worker = one(conn, "select coalesce((select min(id) from workers), register_worker('alpha'))")
    ((claim_id, job_id),) = conn.execute("select claim_id, id from claim_jobs(%s)", [worker]).fetchall()
    assert one(conn, "select fail_job(%s, %s, %s)", job_id, claim_id, error)
    return str(job_id)


def ids(conn: Connection, status: str) -> list[str]:
    return one(conn, "select array(select id from jobs where status = %s order by id)", status)  # type: ignore[no-any-return]


# -- fingerprints -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "found"),
    [
        ("ValueError: no such order\n  File x", "ValueError"),
        ("shop.errors.Broken: x", "shop.errors.Broken"),
        ("KeyError", "KeyError"),
        ("no such order: 5", None),
        ("Ошибка: нет", "Ошибка"),
        ("\n\n  \r\nValueError: x", "ValueError"),
        ("ValueError: x\rmore", "ValueError"),
        (": x", None),
        ("", None),
        (None, None),
        ("worker 12 stopped or died while it held this job (try 1 of 4, crash 3 of 3)", "WorkerDied"),
        ("x" * 1_000_000, None),
        ('{"code": 5}', None),
    ],
)
def test_the_class_of_an_error(conn: Connection, error: str | None, found: str | None) -> None:
    assert one(conn, "select error_class(%s)", error) == found


@pytest.mark.parametrize(
    ("one_error", "another"),
    [
        ("ValueError: order 17 is not payable", "ValueError: order 9 is not payable\n  File"),
        ("KeyError: 'anna'", "KeyError: 'bert'"),
        ('no user "anna"', 'no user "b\'ert"'),
        ("no row 01a21465-5678-71dc-936c-8e0e0c930441", "no row deadbeef-0000-7000-8000-0123456789ab"),
        ("at 2026-01-05 10:00:07", "at 2026-11-15 10:20:30"),
        ("commit 0a1b2c", "commit 99ffee1"),
        ('"' + "a" * 1000, '"' + "b" * 900),
        ("  E: x", "\nE: x\r\ny"),
        ("E: " + "1" * 1_000_000, "E: " + "1" * 450),
    ],
)
def test_what_differs_between_failures_of_one_kind_does_not_count(
    conn: Connection, one_error: str, another: str
) -> None:
    assert one(conn, "select fingerprint('x', %s)", one_error) == one(conn, "select fingerprint('x', %s)", another)


def test_other_types_and_errors_have_other_fingerprints(conn: Connection) -> None:
    errors = [
        "ValueError: a",
        "TypeError: a",
        "ValueError: b",
        "Ошибка: нет",
        "Ошибка: да",
        "\\",
        "\\\\",
        "\\x41",
        "",
        "'",
    ]
    found = [one(conn, "select fingerprint(%s, %s)", type, error) for type in ("x", "y") for error in errors]
    assert len(set(found)) == len(found)
    assert one(conn, "select fingerprint('x', null)") == one(conn, "select fingerprint('x', '')")


def test_a_fingerprint_never_changes(conn: Connection) -> None:
    # People keep fingerprints in alerts and tickets: these values are promises.
    for settings in ("set standard_conforming_strings = on", "set standard_conforming_strings = off"):
        conn.execute(settings)
        assert (
            one(conn, "select fingerprint('send_email', %s)", "ValueError: order 17 of 'anna' \\ é") == "21b2e1b58f27"
        )


# -- failures ---------------------------------------------------------------------------------------


def test_failures_are_grouped(conn: Connection) -> None:
    first = fail(conn, "ValueError: order 1 is bad\n  File")
    last = fail(conn, "ValueError: order 2 is bad")
    fail(conn, "OSError: full")
    fail(conn, "OSError: full", type="y")
    groups = conn.execute(
        "select type, error_class, message, jobs, sample_id from failures order by jobs desc, type, message"
    ).fetchall()
    assert groups[0] == ("x", "ValueError", "ValueError: order 2 is bad", 2, last)
    assert [group[:4] for group in groups[1:]] == [
        ("x", "OSError", "OSError: full", 1),
        ("y", "OSError", "OSError: full", 1),
    ]
    times = "select first_failed_at = (select failed_at from jobs where id = %s) and last_failed_at = (select failed_at from jobs where id = %s) from failures where jobs = 2"
    assert one(conn, times, first, last)


def test_jobs_that_failed_in_another_way_have_their_group(conn: Connection) -> None:
    job_id = fail(conn, "ValueError: order 1")
    conn.execute("update jobs set fingerprint = null")  # as an earlier version, an import or a rescue leaves it
    fail(conn, "ValueError: order 2")
    ((fingerprint, jobs),) = conn.execute("select fingerprint, jobs from failures").fetchall()
    assert jobs == 2
    assert one(conn, "select retried from retry_jobs(fingerprint => %s)", fingerprint) == 2
    assert job_id in ids(conn, "pending")
    assert one(conn, "select count(*) from failures") == 0


# -- retry_jobs -------------------------------------------------------------------------------------


def test_retried_jobs_get_a_fresh_try(conn: Connection) -> None:
    job_id = fail(conn, max_retries=0)
    conn.execute("update jobs set crashes = 1, attempts = 2, expires_at = now() - interval '1 s'")
    assert one(conn, "select retried from retry_jobs(type => 'x')") == 1
    row = conn.execute(
        "select status, attempts, crashes, error, failed_at, finished_at, expires_at, fingerprint from jobs"
    ).fetchone()
    assert row == ("pending", 1, 0, "ValueError: no", None, None, None, None)
    assert one(conn, "select id from claim_jobs((select min(id) from workers))") == job_id


@pytest.mark.parametrize(
    ("which", "retried"),
    [
        ("queue => 'mail'", ["b"]),
        ("type => 'y'", ["c"]),
        ("fingerprint => fingerprint('x', 'OSError: full')", ["d"]),
        ("failed_since => '2020-01-01 12:00'", ["b", "c", "d"]),
        ("failed_until => '2020-01-02'", ["a", "b"]),
        ("queue => 'default', type => 'x', failed_until => '2021-01-01'", ["a", "d"]),
        ("type => 'x', max_jobs => 2", ["a", "b"]),
        ("type => 'none'", []),
    ],
)
def test_all_that_is_given_must_match(conn: Connection, which: str, retried: list[str]) -> None:
    fail(conn, name="a")
    fail(conn, name="b", queue="mail")
    fail(conn, name="c", type="y")
    fail(conn, name="d", error="OSError: full")
    for day, name in enumerate("abcd"):
        conn.execute(
            "update jobs set failed_at = '2020-01-01 00:00Z'::timestamptz + %s * interval '18 hours' where id = %s",
            [day, name],
        )
    assert one(conn, f"select retried from retry_jobs({which}, dry_run => true)") == len(retried)
    assert ids(conn, "pending") == []
    assert one(conn, f"select retried from retry_jobs({which})") == len(retried)
    assert ids(conn, "pending") == retried
    if "max_jobs" not in which:
        assert one(conn, f"select retried from retry_jobs({which})") == 0


@pytest.mark.parametrize(
    ("which", "says"),
    [
        ("", "queue: queue, type, fingerprint, failed_since and failed_until are all null"),
        ("type => 'x', max_jobs => 0", "max_jobs: 0 is not a positive number"),
        ("type => 'x', spread => '-1 s'", "spread: -00:00:01 is not a duration"),
        ("type => 'x', spread => null", "spread: null is not a duration"),
        ("type => 'x', data_patch => '[]'", "data_patch: is a JSON array, not an object"),
    ],
)
def test_bad_arguments_are_refused(conn: Connection, which: str, says: str) -> None:
    with pytest.raises(psycopg.Error, match=says) as caught:
        conn.execute(f"select retry_jobs({which})")
    assert caught.value.sqlstate == "JQ001"


def many(conn: Connection, jobs: int) -> None:
    conn.execute(
        """insert into jobs (type, data, status, error, failed_at, finished_at, attempts)
           select 'x', jsonb_build_object('n', n, 'to', 'a'), 'failed', 'ValueError: order ' || n, now(), now(), 4
             from generate_series(1, %s) as n""",
        [jobs],
    )


@pytest.mark.parametrize("batch", [None, 700])
def test_a_spread_is_uniform(conn: Connection, batch: int | None) -> None:
    many(conn, 12_000)
    start = one(conn, "select clock_timestamp()")
    after: list[Any] = [None, None]
    while True:
        ((_, *after),) = conn.execute(
            "select retried, reached_created_at, reached_id from retry_jobs(type => 'x', spread => '1 h', max_jobs => %s, starting_at => %s, after_created_at => %s, after_id => %s)",
            [batch, start, *after],
        ).fetchall()
        if after[1] is None:
            break
    counts = conn.execute(
        "select count(*) from scheduled group by floor(extract(epoch from execute_at - %s) / 300) order by 1", [start]
    ).fetchall()
    assert [count for (count,) in counts] == pytest.approx([1000] * 12, rel=0.01)
    assert one(conn, "select count(*) from actions") == 1
    assert one(conn, "select jobs from actions") == 12_000


def test_a_data_patch_replaces_keys(conn: Connection) -> None:
    many(conn, 2)
    conn.execute("""select retry_jobs(type => 'x', data_patch => '{"to": "b", "more": null}')""")
    found = conn.execute("select data from jobs order by data ->> 'n'").fetchall()
    assert found == [({"n": n, "to": "b", "more": None},) for n in (1, 2)]


def test_a_patch_that_makes_data_too_large_changes_nothing(conn: Connection) -> None:
    many(conn, 2)
    conn.execute("set pgjobq.max_data_bytes = 100")
    with pytest.raises(psycopg.Error, match=r"data: has .* bytes, more than pgjobq.max_data_bytes = 100"):
        conn.execute("select retry_jobs(type => 'x', data_patch => %s)", ['{"a": "' + "b" * 100 + '"}'])
    assert len(ids(conn, "failed")) == 2


def test_a_held_job_is_skipped(connect: Connect) -> None:
    conn, holder = connect(), connect(autocommit=False)
    held, free = fail(conn, name="a"), fail(conn, name="b")
    holder.execute("select from jobs where id = %s for update", [held])
    conn.execute("set statement_timeout = '10 s'")
    assert one(conn, "select retried from retry_jobs(type => 'x')") == 1
    assert ids(conn, "pending") == [free]
    holder.rollback()
    assert one(conn, "select retried from retry_jobs(type => 'x')") == 1


def test_two_at_once_retry_each_job_once(connect: Connect) -> None:
    conn, first, second = connect(), connect(autocommit=False), connect()
    many(conn, 100)
    assert one(first, "select retried from retry_jobs(type => 'x', max_jobs => 60)") == 60
    second.execute("set statement_timeout = '10 s'")
    assert one(second, "select retried from retry_jobs(type => 'x')") == 40  # skips what the first holds
    first.commit()
    assert one(conn, "select retried from retry_jobs(type => 'x')") == 0
    assert one(conn, "select count(*) from ready") == 100
    assert one(conn, "select sum(jobs) from actions") == 100


def test_beside_a_worker_each_job_runs_once_more(connect: Connect) -> None:
    conn, working = connect(), connect()
    many(conn, 400)
    worker = one(working, "select register_worker('beside')")
    ran: list[str] = []
    done = threading.Event()

    def work() -> None:
        while not done.is_set() or one(working, "select exists (select from ready)"):
            starts = working.execute("select id, claim_id from claim_jobs(%s, max_jobs => 7)", [worker]).fetchall()
            ran.extend(id for id, _ in starts)
            for job_id, claim in starts:
                working.execute("select complete_jobs(%s, %s, %s)", [worker, [job_id], [claim]])

    thread = threading.Thread(target=work)
    thread.start()
    retried = sum(one(conn, "select retried from retry_jobs(type => 'x', max_jobs => 23)") for _ in range(20))
    done.set()
    thread.join(30)
    assert retried == len(ran) == len(set(ran)) == 400
    assert len(ids(conn, "completed")) == 400


def test_a_key_that_is_taken_or_held_is_skipped(connect: Connect) -> None:
    conn, holder = connect(), connect(autocommit=False)
    taken, free = fail(conn, name="a", unique_key="k"), fail(conn, name="b", unique_key="free")
    older, newer = fail(conn, name="c", unique_key="twice"), fail(conn, name="d", unique_key="twice")
    held = fail(conn, name="e", unique_key="held")
    unfinished = one(conn, "select enqueue_job('x', unique_key => 'k')")
    holder.execute("select enqueue_job('x', unique_key => 'held')")
    conn.execute("set statement_timeout = '10 s'")
    assert one(conn, "select retried from retry_jobs(type => 'x')") == 2
    assert ids(conn, "failed") == sorted([taken, older, held])
    assert ids(conn, "pending") == sorted([free, newer, unfinished])
    holder.rollback()
    assert one(conn, "select retried from retry_jobs(type => 'x')") == 1
    assert ids(conn, "failed") == sorted([taken, older])


# -- edit_job ---------------------------------------------------------------------------------------


def test_edit_changes_what_is_given(conn: Connection) -> None:
    job_id = one(conn, "select enqueue_job('x', '{\"a\": 1}', priority => 5)")
    assert one(conn, "select edit_job(%s, priority => 9)", job_id)
    assert conn.execute("select data, queue, priority, max_retries from jobs").fetchone() == ({"a": 1}, "default", 9, 3)
    assert one(conn, "select edit_job(%s, '{\"b\": 2}', 'mail', 1, '2999-01-01Z', 7)", job_id)
    row = conn.execute("select data, queue, priority, execute_at::text, max_retries from jobs").fetchone()
    assert row == ({"b": 2}, "mail", 1, "2999-01-01 00:00:00+00", 7)
    assert conn.execute("select queue, lane from scheduled where job_id = %s", [job_id]).fetchall() == [("mail", -1)]
    assert not one(conn, "select edit_job('none', priority => 9)")


def test_edit_refuses_a_job_that_is_not_pending(conn: Connection) -> None:
    failed = fail(conn)
    running = one(conn, "select enqueue_job('x')")
    conn.execute("select claim_jobs((select min(id) from workers))")
    for job_id, status in ((failed, "failed"), (running, "running")):
        with pytest.raises(
            psycopg.Error, match=f"job {job_id} is {status}; only a pending job can be edited"
        ) as caught:
            conn.execute("select edit_job(%s, priority => 9)", [job_id])
        assert caught.value.sqlstate == "JQ012"
    assert one(conn, "select count(*) from actions") == 0


@pytest.mark.parametrize("bad", ["data => '[]'", "queue => ''", "max_retries => -1", "execute_at => 'infinity'"])
def test_edit_refuses_what_an_enqueue_refuses(conn: Connection, bad: str) -> None:
    job_id = one(conn, "select enqueue_job('x')")
    with pytest.raises(psycopg.Error):
        conn.execute(f"select edit_job(%s, {bad})", [job_id])
    assert one(conn, "select count(*) from actions") == 0


# -- actions ----------------------------------------------------------------------------------------


def test_what_operators_do_is_recorded(conn: Connection) -> None:
    conn.execute("set pgjobq.actor = 'anna'")
    failed = fail(conn)
    pending = one(conn, "select enqueue_job('x', execute_at => '2999-01-01Z', job_id => 'p')")
    conn.execute("select retry_job(%s, reason => 'fixed')", [failed])
    conn.execute("select retry_job(%s)", [pending])
    conn.execute("select edit_job(%s, priority => 1, reason => 'urgent')", [pending])
    conn.execute("select cancel_job(%s, 'wrong')", [pending])
    conn.execute("select cancel_jobs(queue => 'default', reason => 'all wrong')")
    conn.execute("select pause_queue('mail', reason => 'down')")
    conn.execute("select resume_queue('mail'), resume_queue('mail'), cancel_job('none')")
    conn.execute("select pause_type('x')")
    rows = conn.execute("select role, actor, action, target, jobs, reason from actions").fetchall()
    me = one(conn, "select session_user")
    assert rows == [
        (me, "anna", *row)
        for row in [
            ("pause", "type x", None, None),
            ("resume", "queue mail", None, None),
            ("pause", "queue mail", None, "down"),
            ("cancel", "jobs: queue default", 1, "all wrong"),
            ("cancel", "job p", 1, "wrong"),
            ("edit", "job p", 1, "urgent"),
            ("run now", "job p", 1, None),
            ("retry", f"job {failed}", 1, "fixed"),
        ]
    ]


def test_settles_are_no_actions(conn: Connection) -> None:
    fail(conn)
    assert one(conn, "select count(*) from actions") == 0


def test_old_actions_are_pruned(connect: Connect) -> None:
    conn, holder = connect(), connect(autocommit=False)
    for name in ("a", "b", "c"):
        conn.execute("select pause_queue(%s)", [name])
    conn.execute("update action_log set at = at - interval '91 days' where target <> 'queue c'")
    holder.execute("select from action_log where target = 'queue a' for update")
    conn.execute("select prune_jobs()")  # does not wait
    assert one(conn, "select array_agg(target) from actions") == ["queue c", "queue a"]
    holder.rollback()
    conn.execute("set pgjobq.keep_actions = '100 days'")
    conn.execute("select prune_jobs()")
    assert one(conn, "select count(*) from actions") == 2
    conn.execute("reset pgjobq.keep_actions")
    conn.execute("select prune_jobs()")
    assert one(conn, "select array_agg(target) from actions") == ["queue c"]


def test_a_batch_that_another_holds_does_not_wait_for_the_row_of_its_action(connect: Connect) -> None:
    conn, other = connect(), connect(autocommit=False)
    many(conn, 40)
    conn.execute("set statement_timeout = '10 s'")
    after: list[Any] = [None, None]
    for runner in (conn, other, conn, conn):
        ((retried, *after),) = runner.execute(
            "select * from retry_jobs(type => 'x', max_jobs => 10, after_created_at => %s, after_id => %s)", after
        ).fetchall()
        assert retried == 10
    other.commit()
    assert conn.execute("select jobs from actions order by id").fetchall() == [(20,), (20,)]
