"""A state machine of three sessions and a worker: every call that is folded into a job is followed by its start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import psycopg
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

Connection = psycopg.Connection[Any]
SESSIONS, KEYS = 3, ["x", "y"]
# In each of these calls a running job does not keep its key.
CALLS = [
    "unique_while => 'pending'",
    "unique_while => 'pending', on_conflict => 'replace', priority => 7",
    "on_conflict => 'replace', data => '{\"n\": 1}'",
    "on_conflict => 'debounce', execute_at => clock_timestamp() - interval '1 s'",
]


class FoldingMachine(RuleBasedStateMachine):
    """Records a clock for each commit and each start. Each call needs a start of its job after the commit."""

    conn: ClassVar[Connection]  # the connection of the worker and the operator
    sessions: ClassVar[list[Connection]]

    def __init__(self) -> None:
        super().__init__()
        self.clock = 0
        self.open: list[list[str]] = [[] for _ in range(SESSIONS)]  # jobs of the calls in each open transaction
        self.committed: list[tuple[int, str]] = []
        self.starts: list[tuple[int, str]] = []
        self.running: dict[str, int] = {}  # job -> claim
        self.again: set[str] = set()  # jobs put back in line by the worker, which does not check the key

    @initialize()
    def empty(self) -> None:
        self.conn.execute("truncate jobs, ready, scheduled, claims, workers, unique_keys restart identity")
        self.conn.execute("insert into workers (name) values ('w')")

    def tick(self) -> int:
        self.clock += 1
        return self.clock

    @rule(number=st.integers(0, SESSIONS - 1), key=st.sampled_from(KEYS), more=st.sampled_from(CALLS))
    def call(self, number: int, key: str, more: str) -> None:
        """Enqueue in the session's transaction, and roll back if the call would have to wait for another one."""
        try:
            row = (
                self.sessions[number]
                .execute(f"select id from add_job('t', unique_key => %s, {more})", [key])
                .fetchone()
            )
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            self.rollback(number)
        else:
            assert row is not None
            self.open[number].append(row[0])

    @rule(number=st.integers(0, SESSIONS - 1))
    def commit(self, number: int) -> None:
        self.sessions[number].commit()
        ids, self.open[number] = self.open[number], []
        self.committed += [(self.tick(), id_) for id_ in ids]
        found = self.conn.execute(
            "select count(*) from jobs where id = any(%s) and status = 'pending'", [ids]
        ).fetchone()
        assert found == (len(set(ids)),), "a call ended in a job that is not pending at its commit"

    @rule(number=st.integers(0, SESSIONS - 1))
    def rollback(self, number: int) -> None:
        self.sessions[number].rollback()
        self.open[number] = []

    @rule(jobs=st.integers(1, 3))
    def claim(self, jobs: int) -> None:
        for id_, claim in self.conn.execute("select id, claim_id from claim_jobs(1, null, %s)", [jobs]).fetchall():
            self.starts.append((self.tick(), id_))
            self.running[id_] = claim

    @precondition(lambda self: self.running)
    @rule(data=st.data(), end=st.sampled_from(["complete", "fail", "retry", "release"]))
    def settle(self, data: st.DataObject, end: str) -> None:
        id_ = data.draw(st.sampled_from(sorted(self.running)))
        claim = self.running.pop(id_)
        calls = {
            "complete": "select complete_jobs(1, array[%(id)s], array[%(claim)s::bigint])",
            "fail": "select fail_job(%(id)s, %(claim)s, 'error')",
            "retry": "select retry_job(%(id)s, 0, 'error', %(claim)s)",
            "release": "select release_jobs(array[%(id)s], array[%(claim)s::bigint])",
        }
        self.conn.execute(calls[end].encode(), {"id": id_, "claim": claim})
        if end == "release":  # a released start does not count
            last = max(index for index, start in enumerate(self.starts) if start[1] == id_)
            del self.starts[last]
        if end in {"retry", "release"}:
            self.again.add(id_)

    @rule()
    def prune(self) -> None:
        self.conn.execute("select prune_jobs('0 s', '{completed,failed,cancelled}')")

    @rule(key=st.sampled_from(KEYS))
    def delete_unused_key(self, key: str) -> None:
        """Delete the row of a key whose job has ended, as prune_jobs may. Calls must work without it."""
        ids = self.conn.execute(
            "select job_id from unique_keys where key = %s for update skip locked", [key]
        ).fetchall()
        ended = "select from jobs where id = %s and status in ('pending', 'running')"
        if ids and self.conn.execute(ended, ids[0]).fetchone() is None:
            self.conn.execute("delete from unique_keys where key = %s and job_id = %s", [key, ids[0][0]])

    @invariant()
    def no_two_pending_jobs_have_one_key(self) -> None:
        query = """select unique_key from jobs where status = 'pending' and id <> all(%s)
                    group by unique_key having count(*) > 1"""
        assert self.conn.execute(query, [list(self.again)]).fetchall() == []

    def teardown(self) -> None:
        for number in range(SESSIONS):
            if self.open[number]:
                self.commit(number)
            self.sessions[number].rollback()
        while self.running:
            id_, claim = self.running.popitem()
            self.conn.execute("select complete_jobs(1, array[%s], array[%s::bigint])", [id_, claim])
        before = -1
        while before != len(self.starts):
            before = len(self.starts)
            self.claim(3)
        missed = [
            (at, id_) for at, id_ in self.committed if not any(id_ == job and at < when for when, job in self.starts)
        ]
        assert missed == [], f"{missed} were not followed by a start: {self.starts}"


def test_every_call_is_followed_by_a_start_of_its_job(conn: Connection, connect: Callable[..., Connection]) -> None:
    FoldingMachine.conn = conn
    conn.execute("set lock_timeout = '1s'")
    FoldingMachine.sessions = [connect(autocommit=False) for _ in range(SESSIONS)]
    for session in FoldingMachine.sessions:
        session.execute("set lock_timeout = '20ms'")
        session.commit()
    run_state_machine_as_test(
        FoldingMachine,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
