"""Arguments may come from a column with another collation. Each function compares them with the queue's own."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

Connection = psycopg.Connection[Any]

# The arguments of each function that takes text. The columns of the row `words` have another collation.
CALLS = {
    "add_log_lines": "words.ids, array[1, 2], array[1, 1], array[1, 2], array[now(), now()], words.types, words.types, words.types",
    "add_job": "words.word, job_id => words.id, unique_key => words.word, unique_while => words.status, on_conflict => words.keep",
    "add_jobs": "words.types, job_ids => words.ids, unique_keys => words.types, on_conflict => words.keep",
    "call_workers": "1, words.help",
    "advance_floors": "1, '{}', words.queues, array[1, 2]",
    "cancel_job": "words.id, words.word",
    "cancel_jobs": "words.queue, words.word, words.word, null, 1, words.word, null, words.id",
    "pause_queue": "words.word, null, words.word",
    "resume_queue": "words.word",
    "pause_type": "words.word, null, words.word",
    "resume_type": "words.word",
    "claim_jobs": "1, words.queues, 1, words.types",
    "complete_jobs": "1, words.ids, array[1, 2], results => '{1,2}'",
    "ended_jobs": "words.ids",
    "create_schedule": "words.id, words.word, words.daily, time_zone => words.zone, kind => words.cron, queue => words.queue",
    "enable_schedule": "words.id, false",
    "delete_schedule": "words.id",
    "move_schedule": "words.id, now()",
    "get_schedule": "words.id",
    "run_schedule": "words.nightly",
    "backfill_schedule": "words.nightly, now() - interval '3 days'",
    "enqueue_job": "words.word, queue => words.queue, job_id => words.word, unique_key => words.word, on_conflict => words.keep",
    "enqueue_jobs": "words.types, queues => words.queues, job_ids => words.types, unique_keys => words.types",
    "edit_job": "words.word, null, words.queue, reason => words.word",
    "error_class": "words.word",
    "error_line": "words.word",
    "fingerprint": "words.word, words.id",
    "retry_jobs": "words.queue, words.word, words.id, reason => words.word, after_id => words.id",
    "export_jobs": "1, now(), words.id",
    "fail_job": "words.id, 1, words.word, words.raised",
    "get_job": "words.id",
    "held_jobs": "words.ids",
    "job_result": "words.id",
    "leave_types": "1, words.types",
    "list_attempts": "words.id",
    "list_jobs": "words.status, 1, words.queue",
    "live_workers": "words.alive",
    "lost_jobs": "words.ids, array[1, 2]",
    "next_tick": "words.daily, words.zone",
    "next_ticks": "words.daily, words.zone, now(), 2",
    "promote_jobs": "1, words.queues",
    "prune_jobs": "'1 s', words.statuses, 1, now(), words.id, words.queues",
    "register_worker": "words.word, words.queues",
    "release_jobs": "words.ids, array[1, 2]",
    "retry_job": "words.id, 1, words.word, 1, words.raised, words.word",
    "set_progress": "words.id, 1, 0.5, words.word",
    "set_worker_state": "1, words.asleep, false, words.queues, 30, words.word",
    "wait_for_job": "words.word",
    "wait_for_jobs": "words.ids, words.types",
    "watch_workers": "1, words.queues",
    "why_job": "words.id",
}
WORDS = {
    "id": "a", "word": "w", "queue": "default", "status": "pending", "asleep": "asleep", "alive": "alive", "raised": "raised", "help": "help",
    "keep": "keep", "cron": "cron", "nightly": "nightly", "daily": "@daily", "zone": "Europe/Berlin",
    "ids": ["a", "b"], "types": ["x", "y"], "queues": ["default", "other"], "statuses": ["completed", "failed"],
}  # fmt: skip


@pytest.fixture(params=["POSIX", "loose"])
def words(conn: Connection, request: pytest.FixtureRequest) -> Connection:
    """A connection with the table words; ready and scheduled jobs, floors, a sleeping and a polling worker."""
    try:
        loose = "provider = icu, locale = 'und-u-ks-level2', deterministic = false"
        conn.execute(f"create collation public.loose ({loose})")
    except psycopg.errors.FeatureNotSupported:  # this server has no ICU
        conn.execute('create collation public.loose from "POSIX"')
    kinds = {name: "text[]" if isinstance(value, list) else "text" for name, value in WORDS.items()}
    columns = ", ".join(f'{name} {kind} collate "{request.param}"' for name, kind in kinds.items())
    conn.execute(f"create table public.words ({columns})")
    conn.execute(f"insert into public.words values ({', '.join('%s' for _ in WORDS)})", list(WORDS.values()))
    conn.execute("select enqueue_jobs('{x,x,y}', queues => '{default,other,default}', job_ids => '{a,b,c}')")
    conn.execute("insert into scheduled (execute_at, queue, lane, job_id) values (now(), 'default', -5, 'c')")
    conn.execute("select add_jobs('{x,x,x}', job_ids => '{d,e,f}', unique_keys => '{w,x,y}')")
    conn.execute("select create_schedule('nightly', 'x', '@daily'), create_schedule('a', 'x', '@daily')")
    conn.execute("update scheduled set execute_at = now() where schedule_id is not null")
    conn.execute("insert into floors values ('default', -5, 1, now()), ('other', -5, 1, now())")
    conn.execute("select set_worker_state(register_worker('w'), 'polling', queues => '{default}')")
    conn.execute("select set_worker_state(register_worker('w'), 'asleep', queues => '{default}')")
    return conn


def test_every_function_that_takes_text_is_tested(conn: Connection) -> None:
    taking = conn.execute("""
        select distinct proname
          from pg_proc
         where pronamespace = 'pgjobq'::regnamespace
           and proargtypes::oid[] && array['text'::regtype, 'text[]'::regtype]::oid[]
           and has_function_privilege('pgjobq_admin', oid, 'execute')""")
    assert {name for (name,) in taking} == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("started", [False, True])
def test_function_accepts_arguments_with_the_collation_of_a_column(words: Connection, name: str, started: bool) -> None:
    """Every function accepts values from a column with another collation, whether or not it finds jobs."""
    if started:
        words.execute("select from claim_jobs(1, null, 2)")
    words.execute(f"select result from public.words, {name}({CALLS[name]}) as result")
