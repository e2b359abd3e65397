"""Unique keys: in which job a call ends, what it changes there, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from helpers.calls import one

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]

pytestmark = pytest.mark.usefixtures("workers")

EVERYTHING = """
select (select jsonb_agg(jobs order by id) from jobs), (select jsonb_agg(ready order by seq) from ready),
       (select jsonb_agg(scheduled order by seq) from scheduled), (select jsonb_agg(unique_keys order by key) from unique_keys)
"""
ENDED = ["completed", "failed", "cancelled"]


def add(conn: Connection, job_id: str, more: str = "") -> tuple[str, str]:
    """Add a job with the key k. Return the id in which the call ended, and its outcome."""
    row = conn.execute(f"select id, outcome from add_job('t', job_id => %s, unique_key => 'k' {more})", [job_id])
    found: tuple[str, str] | None = row.fetchone()
    assert found is not None
    return found


def become(conn: Connection, job_id: str, status: str) -> None:
    """Bring a pending job into a status, with the functions that a worker or an operator calls."""
    if status == "cancelled":
        assert one(conn, "select cancel_job(%s)", job_id)
    elif status != "pending":
        claim = one(conn, "select claim_id from claim_jobs(1) where id = %s", job_id)
        if status == "completed":
            conn.execute("select complete_jobs(1, array[%s], array[%s::bigint])", [job_id, claim])
        elif status == "failed":
            assert one(conn, "select fail_job(%s, %s, 'error')", job_id, claim)
    assert one(conn, "select status from jobs where id = %s", job_id) == status


@pytest.mark.parametrize("unique_while", ["", ", unique_while => 'unfinished'", ", unique_while => 'pending'"])
@pytest.mark.parametrize("status", ["pending", "running", *ENDED])
def test_status_decides_whether_a_job_has_its_key(conn: Connection, unique_while: str, status: str) -> None:
    assert add(conn, "a", unique_while) == ("a", "added")
    become(conn, "a", status)
    taken = status == "pending" or (status == "running" and "pending" not in unique_while)
    assert add(conn, "b", unique_while) == (("a", "kept") if taken else ("b", "added"))
    assert add(conn, "c", unique_while) == (("a", "kept") if taken else ("b", "kept"))
    assert one(conn, "select count(*) from jobs") == 2 - taken


@pytest.mark.parametrize("gone", ["delete from jobs", "update jobs set unique_key = null", "truncate jobs"])
def test_key_of_a_deleted_job_is_free(conn: Connection, gone: str) -> None:
    add(conn, "a")
    conn.execute(gone.encode())
    assert add(conn, "b") == ("b", "added")
    assert add(conn, "c") == ("b", "kept")


@pytest.mark.parametrize("status", ["running", *ENDED])
def test_window_includes_ended_jobs_unless_they_were_cancelled(conn: Connection, status: str) -> None:
    add(conn, "a")
    become(conn, "a", status)
    window = ", unique_while => 'pending', unique_for => '1 hour'"
    if status == "cancelled":
        assert add(conn, "b", window) == ("b", "added")
        return
    assert add(conn, "b", window) == ("a", "kept")
    conn.execute("update jobs set created_at = now() - interval '61 min'")
    assert add(conn, "b", window) == ("b", "added")


def test_unfinished_job_keeps_its_key_after_the_window(conn: Connection) -> None:
    add(conn, "a")
    conn.execute("update jobs set created_at = now() - interval '61 min'")
    assert add(conn, "b", ", unique_for => '1 hour'") == ("a", "kept")


@pytest.mark.parametrize("more", ["", ", unique_while => 'pending'", ", on_conflict => 'replace'"])
def test_expired_pending_job_does_not_keep_its_key(conn: Connection, more: str) -> None:
    """No claim starts the expired job, so a call that ended in it would be lost."""
    add(conn, "a", ", expires_at => '2100-01-01Z'")
    assert add(conn, "b") == ("a", "kept")
    conn.execute("update jobs set expires_at = now() - interval '1 s'")
    assert add(conn, "b", more) == ("b", "added")
    assert [id_ for (id_,) in conn.execute("select id from claim_jobs(1, null, 9)")] == ["b"]


def test_key_is_shared_by_all_queues_and_types(conn: Connection) -> None:
    add(conn, "a")
    assert one(conn, "select enqueue_job('other', queue => 'q', unique_key => 'k')") == "a"
    assert one(conn, "select enqueue_job('t', unique_key => 'K')") != "a"


def test_same_id_and_key_is_the_same_job(conn: Connection) -> None:
    assert [add(conn, "a"), add(conn, "a")] == [("a", "added"), ("a", "kept")]
    become(conn, "a", "cancelled")
    with pytest.raises(psycopg.errors.UniqueViolation):
        add(conn, "a")


def test_kept_job_is_not_changed(conn: Connection) -> None:
    add(conn, "a")
    before = conn.execute(EVERYTHING).fetchall()
    add(conn, "b", ", priority => 9, data => '{\"n\": 1}', unique_while => 'pending'")
    assert conn.execute(EVERYTHING).fetchall() == before


REPLACE = """, on_conflict => 'replace', type => 'new', data => '{"n": 1}', priority => 9, max_retries => 1, queue => 'q',
              execute_at => '2100-01-01Z', expires_at => '2101-01-01Z'"""


def test_replace_gives_a_pending_job_the_values_of_the_call(conn: Connection) -> None:
    add(conn, "a")
    before = one(conn, "select created_at from jobs")
    arguments = REPLACE.removeprefix(", ")
    found = conn.execute(f"select id, outcome from add_job(job_id => 'b', unique_key => 'k', {arguments})").fetchone()
    assert found == ("a", "replaced")
    row = conn.execute("""select type, data, priority, max_retries, queue, execute_at::text, expires_at::text, created_at
                            from jobs""").fetchall()
    assert row == [("new", {"n": 1}, 9, 1, "q", "2100-01-01 00:00:00+00", "2101-01-01 00:00:00+00", before)]
    assert add(conn, "b", ", on_conflict => 'replace'") == ("a", "replaced")
    assert conn.execute("select id, type from claim_jobs(1, null, 9)").fetchall() == [("a", "t")]
    assert conn.execute("select * from scheduled").fetchall() == []


@pytest.mark.parametrize("on_conflict", ["replace", "debounce"])
def test_running_job_is_not_replaced_but_followed_by_another(conn: Connection, on_conflict: str) -> None:
    more = f", on_conflict => '{on_conflict}', execute_at => now()"
    add(conn, "a")
    become(conn, "a", "running")
    before = one(conn, "select jobs from jobs where id = 'a'")
    assert add(conn, "b", f"{more}, unique_while => 'unfinished'") == ("a", "kept")
    assert add(conn, "b", more) == ("b", "added")
    assert add(conn, "c", more) == ("b", "replaced")
    assert one(conn, "select jobs from jobs where id = 'a'") == before


def test_debounce_restarts_the_delay_up_to_its_ceiling(conn: Connection) -> None:
    more = ", on_conflict => 'debounce', execute_at => clock_timestamp() + '20 s', debounce_ceiling => '50 s'"
    waits = """select round(extract(epoch from execute_at - clock_timestamp())),
                      round(extract(epoch from execute_at - created_at)) from jobs"""
    add(conn, "a", more)
    for ago, wait in ((0, 20), (15, 20), (29, 20), (40, 10), (49, 1), (60, -10)):
        conn.execute("update jobs set created_at = clock_timestamp() - make_interval(secs => %s)", [ago])
        assert add(conn, "b", f"{more}, data => '{{\"last\": {ago}}}'") == ("a", "replaced")
        assert conn.execute(waits).fetchone() == (wait, min(ago + 20, 50))
        assert one(conn, "select data from jobs") == {"last": ago}


def test_debounce_without_ceiling_can_postpone_forever(conn: Connection) -> None:
    more = ", on_conflict => 'debounce', execute_at => '2100-01-01Z'"
    add(conn, "a", more)
    conn.execute("update jobs set created_at = '2000-01-01Z'")
    add(conn, "b", more)
    assert one(conn, "select execute_at::text from jobs") == "2100-01-01 00:00:00+00"


def test_repeated_debounce_leaves_one_place(conn: Connection) -> None:
    for _ in range(20):
        add(conn, "a", ", on_conflict => 'debounce', execute_at => clock_timestamp() + '1 s'")
    assert conn.execute("select scheduled.execute_at = jobs.execute_at from scheduled, jobs").fetchall() == [(True,)]


def test_debounce_does_not_advance_the_next_try(conn: Connection) -> None:
    more = ", on_conflict => 'debounce', execute_at => now() + '1 s'"
    add(conn, "a")
    claim = one(conn, "select claim_id from claim_jobs(1)")
    assert one(conn, "select retry_job('a', 3600, 'error', %s)", claim)
    assert add(conn, "b", more) == ("a", "replaced")
    assert one(conn, "select execute_at > now() + '59 min' from jobs") is True


def test_error_names_the_job_that_has_the_key(conn: Connection) -> None:
    add(conn, "a", ", on_conflict => 'error'")
    before = conn.execute(EVERYTHING).fetchall()
    with pytest.raises(psycopg.Error, match="unique_key: job a, which is pending, has the key 'k'") as error:
        add(conn, "b", ", on_conflict => 'error'")
    assert (error.value.sqlstate, bool(error.value.diag.message_hint)) == ("JQ008", True)
    assert conn.execute(EVERYTHING).fetchall() == before


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_retry_is_refused_while_another_unfinished_job_has_the_key(conn: Connection, status: str) -> None:
    add(conn, "a")
    become(conn, "a", status)
    add(conn, "b")
    before = conn.execute(EVERYTHING).fetchall()
    with pytest.raises(psycopg.Error, match="unique_key: the unfinished job b has the key 'k'") as error:
        conn.execute("select retry_job('a')")
    assert (error.value.sqlstate, bool(error.value.diag.message_hint)) == ("JQ008", True)
    assert conn.execute(EVERYTHING).fetchall() == before
    become(conn, "b", "failed")
    assert one(conn, "select retry_job('a')")
    assert add(conn, "c") == ("a", "kept")
    with pytest.raises(psycopg.Error, match="the unfinished job a has the key"):
        conn.execute("select retry_job('b')")


def test_retry_takes_back_a_key_that_was_deleted(conn: Connection) -> None:
    add(conn, "a")
    become(conn, "a", "failed")
    conn.execute("delete from unique_keys")
    assert one(conn, "select retry_job('a')")
    assert add(conn, "b") == ("a", "kept")


def test_retry_by_the_worker_does_not_check_the_key(conn: Connection) -> None:
    """The retry cannot be refused, because the try has failed and the job must get some status."""
    add(conn, "a")
    claim = one(conn, "select claim_id from claim_jobs(1)")
    add(conn, "b", ", unique_while => 'pending'")
    assert one(conn, "select retry_job('a', 0, 'error', %s)", claim)
    assert add(conn, "c", ", unique_while => 'pending'") == ("b", "kept")


def test_bulk_returns_an_id_and_an_outcome_for_each_job(conn: Connection) -> None:
    add(conn, "a")
    found = conn.execute("""select id, outcome from add_jobs('{t,t,t,t,t}', job_ids => '{b,c,d,e,f}',
                                                             unique_keys => '{z,k,null,z,y}')""").fetchall()
    assert found == [("b", "added"), ("a", "kept"), ("d", "added"), ("b", "kept"), ("f", "added")]
    ids = conn.execute("select enqueue_jobs('{t,t}', job_ids => '{g,h}', unique_keys => '{y,x}')").fetchall()
    assert ids == [("f",), ("h",)]
    assert [id_ for (id_,) in conn.execute("select id from claim_jobs(1, null, 9)")] == ["a", "b", "d", "f", "h"]
    keys = conn.execute("select id, unique_key from jobs where id <> 'a' order by 1").fetchall()
    assert keys == [("b", "z"), ("d", None), ("f", "y"), ("h", "x")]


def test_bulk_can_replace_and_set_expiry(conn: Connection) -> None:
    add(conn, "a")
    found = conn.execute("""select id, outcome from add_jobs('{t,t}', array['{"n": 1}', null]::jsonb[], job_ids => '{b,c}',
                                unique_keys => '{k,null}', on_conflict => 'replace',
                                expires_ats => '{2100-01-01Z,null}')""").fetchall()
    assert found == [("a", "replaced"), ("c", "added")]
    rows = conn.execute("select id, data, expires_at::text from jobs order by id").fetchall()
    assert rows == [("a", {"n": 1}, "2100-01-01 00:00:00+00"), ("c", {}, None)]


def test_bulk_without_keys_returns_outcomes(conn: Connection) -> None:
    found = conn.execute("select id, outcome from add_jobs('{t,t}', job_ids => '{a,b}')").fetchall()
    assert found == [("a", "added"), ("b", "added")]
    assert add(conn, "c") == ("c", "added")
    assert conn.execute("select outcome from add_job('t')").fetchall() == [("added",)]


def test_expiry_is_stored(conn: Connection) -> None:
    conn.execute("select enqueue_job('t', job_id => 'a', expires_at => '2100-01-01Z')")
    conn.execute("select enqueue_jobs('{t,t}', job_ids => '{b,c}', expires_ats => '{2100-01-02Z,null}')")
    rows = conn.execute("select id, expires_at::text from jobs order by id").fetchall()
    assert rows == [("a", "2100-01-01 00:00:00+00"), ("b", "2100-01-02 00:00:00+00"), ("c", None)]


BAD = {
    "unique_key => ''": "unique_key",
    "unique_key => repeat('x', 256)": "unique_key",
    "unique_key => repeat('x', 100000)": "unique_key",
    "unique_key => 'new', unique_while => 'running'": "unique_while",
    "unique_key => 'new', on_conflict => 'ignore'": "on_conflict",
    "unique_key => 'new', unique_for => '0 s'": "unique_for",
    "unique_key => 'new', unique_for => '-1 s'": "unique_for",
    "unique_key => 'new', on_conflict => 'debounce'": "execute_at",
    "unique_key => 'new', on_conflict => 'debounce', execute_at => now() + '9 s', debounce_ceiling => '8 s'":
        "debounce_ceiling",
    "unique_key => 'new', on_conflict => 'replace', execute_at => now() + '1 s', debounce_ceiling => '9 s'":
        "debounce_ceiling",
    "unique_while => 'pending'": "unique_while",
    "unique_for => '1 s'": "unique_for",
    "on_conflict => 'keep'": "on_conflict",
    "debounce_ceiling => '1 s'": "debounce_ceiling",
    "expires_at => now() - interval '1 s'": "expires_at",
    "expires_at => 'infinity'": "expires_at",
    "unique_key => 'new', expires_at => now() - interval '1 s'": "expires_at",
    "unique_key => 'new', data => '[1]'": "data",
    "unique_key => 'new', queue => ''": "queue",
    "unique_key => 'new', priority => 3000000000": "priority",
    "unique_key => 'new', max_retries => -1": "max_retries",
    "unique_key => 'k', data => '[1]'": "data",
    "unique_key => 'k', data => '[1]', on_conflict => 'replace'": "data",
    "unique_key => 'k', queue => '', on_conflict => 'replace'": "queue",
}  # fmt: skip


@pytest.mark.parametrize("function", ["enqueue_job", "add_job"])
@pytest.mark.parametrize(("arguments", "field"), BAD.items())
def test_invalid_input_names_the_field_and_changes_nothing(
    conn: Connection, function: str, arguments: str, field: str
) -> None:
    """This holds whether the key is taken or not."""
    add(conn, "a")
    before = conn.execute(EVERYTHING).fetchall()
    with pytest.raises(psycopg.Error) as error:
        conn.execute(f"select {function}('t', {arguments})")
    assert error.value.sqlstate == "JQ001"
    assert str(error.value.diag.message_primary).split(":")[0] == field
    assert error.value.diag.message_hint
    assert conn.execute(EVERYTHING).fetchall() == before


@pytest.mark.parametrize("function", ["enqueue_jobs", "add_jobs"])
@pytest.mark.parametrize(("arguments", "field"), {
    "unique_keys => '{new}'": "types",
    "unique_keys => '{new,\"\"}'": "unique_key",
    "unique_keys => array['new', repeat('x', 100000)]": "unique_key",
    "unique_keys => '{new,null}', on_conflict => 'ignore'": "on_conflict",
    "unique_while => 'pending'": "unique_while",
    "unique_keys => '{new,other}', on_conflict => 'debounce', execute_ats => array[now(), null]": "execute_at",
    "expires_ats => array[null, now() - interval '1 s']": "expires_at",
    "expires_ats => '{2100-01-01Z}'": "types",
    "unique_keys => '{new,other}', expires_ats => array[null, now() - interval '1 s']": "expires_at",
    "unique_keys => '{new,other}', max_retries => '{1,-1}'": "max_retries",
}.items())  # fmt: skip
def test_invalid_bulk_names_the_field_and_changes_nothing(
    conn: Connection, function: str, arguments: str, field: str
) -> None:
    before = conn.execute(EVERYTHING).fetchall()
    with pytest.raises(psycopg.Error) as error:
        conn.execute(f"select {function}('{{t,t}}', {arguments})")
    assert (error.value.sqlstate, str(error.value.diag.message_primary).split(":")[0]) == ("JQ001", field)
    assert error.value.diag.message_hint
    assert conn.execute(EVERYTHING).fetchall() == before


def test_replaced_data_is_limited_in_size(conn: Connection) -> None:
    add(conn, "a")
    conn.execute("set pgjobq.max_data_bytes = 20")
    with pytest.raises(psycopg.Error, match="max_data_bytes"):
        add(conn, "b", ", on_conflict => 'replace', data => '{\"long\": \"0123456789\"}'")


def test_imported_keys_are_kept_and_taken(conn: Connection) -> None:
    jobs = """[{"id": "a", "type": "t", "unique_key": "x"}, {"id": "b", "type": "t", "unique_key": "y", "status": "completed"},
               {"id": "c", "type": "t", "unique_key": "k"}, {"id": "d", "type": "t", "expires_at": "2000-01-01T00:00Z"}]"""
    add(conn, "here")
    assert one(conn, "select import_jobs(%s)", jobs) == 4
    rows = conn.execute("select id, unique_key, expires_at is null from jobs order by id").fetchall()
    assert rows == [("a", "x", True), ("b", "y", True), ("c", "k", True), ("d", None, False), ("here", "k", True)]
    found = conn.execute(
        "select id from add_jobs('{t,t,t}', job_ids => '{1,2,3}', unique_keys => '{x,y,k}')"
    ).fetchall()
    assert found == [("a",), ("2",), ("here",)]
    with pytest.raises(psycopg.Error, match="unique_key: has 0 characters"):
        conn.execute("""select import_jobs('[{"id": "e", "type": "t", "unique_key": ""}]')""")


def test_prune_deletes_only_the_keys_of_deleted_jobs(conn: Connection, connect: Connect) -> None:
    conn.execute("""select add_jobs(array_fill('t'::text, array[3000]), job_ids => array_agg('j' || n), unique_keys => array_agg('k' || n))
                      from generate_series(1, 3000) as n""")
    become(conn, "j1", "completed")
    conn.execute("delete from jobs where id > 'j2'")
    left = one(conn, "select count(*) from jobs")
    holder = connect(autocommit=False)
    holder.execute("select from unique_keys where key = 'k9' for update")
    conn.execute("set lock_timeout = '1s'")
    for _ in range(10):
        conn.execute("select prune_jobs('1 day')")
    assert conn.execute("select count(*) from unique_keys").fetchone() == (left + 1,)
    holder.rollback()
    for _ in range(10):
        conn.execute("select prune_jobs('1 day')")
    assert conn.execute("select count(*) from unique_keys").fetchone() == (left,)
    keys = "select bool_and(jobs.unique_key = unique_keys.key) from unique_keys join jobs on jobs.id = job_id"
    assert one(conn, keys) is True
