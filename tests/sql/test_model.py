"""A state machine compares the SQL functions with a model of their order, attempts and fencing."""

from __future__ import annotations

from typing import Any, ClassVar

import psycopg
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

Connection = psycopg.Connection[Any]
QUEUES = ["a", "b"]


class QueueMachine(RuleBasedStateMachine):
    """The model has the jobs by id with status, attempts and place. The database must agree after every step."""

    conn: ClassVar[Connection]
    jobs: Bundle[str] = Bundle("jobs")
    starts: Bundle[tuple[str, int]] = Bundle("starts")  # job, claim

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[str, dict[str, Any]] = {}
        self.clock = 0

    @initialize()
    def empty(self) -> None:
        self.conn.execute("truncate jobs, ready, scheduled, claims, workers restart identity")
        self.conn.execute("insert into workers (name) values ('1'), ('2'), ('3')")

    def place(self, id_: str, **changes: Any) -> None:
        self.clock += 1
        self.model[id_].update(changes, place=self.clock)

    @rule(
        target=jobs,
        priority=st.sampled_from([1, 5, 9]),
        queue=st.sampled_from(QUEUES),
        future=st.booleans(),
        retries=st.integers(0, 4),
    )
    def enqueue(self, priority: int, queue: str, future: bool, retries: int) -> str:
        id_ = f"j{len(self.model)}"
        self.conn.execute(
            "select enqueue_job('t', priority => %s, queue => %s, job_id => %s, max_retries => %s, execute_at => %s)",
            [priority, queue, id_, retries, "2100-01-01Z" if future else None],
        )
        self.model[id_] = {
            "status": "pending", "priority": priority, "queue": queue, "attempts": 0, "retries": retries,
            "future": future, "worker": None, "claim": None, "crashes": 0,
        }  # fmt: skip
        self.place(id_)
        return id_

    @rule(
        target=starts,
        worker=st.integers(1, 3),
        queues=st.sampled_from([None, ["a"], ["b"], ["a", "b"]]),
        alone=st.booleans(),
    )
    def claim_one(self, worker: int, queues: list[str] | None, alone: bool) -> Any:
        due = sorted(
            (-job["priority"], job["place"], id_)
            for id_, job in self.model.items()
            if job["status"] == "pending"
            and not job["future"]
            and (queues is None or job["queue"] in queues)
            and (alone or not job["crashes"])
        )
        call = "select id, attempts, crashes, claim_id from claim_jobs(%s, %s, 1, alone => %s)"
        row = self.conn.execute(call, [worker, queues, alone]).fetchone()
        if not due:
            assert row is None
            return ("none", 0)
        id_ = due[0][2]
        job = self.model[id_]
        assert row is not None
        assert row[:3] == (id_, job["attempts"] + 1, job["crashes"])
        job.update(status="running", attempts=job["attempts"] + 1, worker=worker, claim=row[3])
        return (id_, row[3])

    def ended(self, start: tuple[str, int], status: str) -> bool:
        """Return whether this is the job's last start, and the job has this status."""
        job = self.model.get(start[0])
        return job is not None and (job["status"], job["claim"]) == (status, start[1])

    def end_cleanly(self, id_: str) -> None:
        """Note an end without a crash. Starts that ended with a crash do not count as tries."""
        job = self.model[id_]
        job.update(attempts=job["attempts"] - job["crashes"], crashes=0)

    def holds(self, start: tuple[str, int]) -> bool:
        return self.ended(start, "running")

    @rule(start=starts)
    def complete(self, start: tuple[str, int]) -> None:
        id_, claim = start
        lost = self.conn.execute("select complete_jobs(1, %s, %s)", [[id_], [claim]]).fetchall()
        assert lost == ([] if self.holds(start) or self.ended(start, "completed") else [(id_,)])
        if self.holds(start):
            self.model[id_].update(status="completed", crashes=0)

    @rule(start=starts)
    def fail(self, start: tuple[str, int]) -> None:
        row = self.conn.execute("select fail_job(%s, %s, 'boom')", start).fetchone()
        assert row == (self.holds(start) or self.ended(start, "failed"),)
        if self.holds(start):
            self.end_cleanly(start[0])
            self.model[start[0]].update(status="failed")

    @rule(start=starts)
    def retry(self, start: tuple[str, int]) -> None:
        row = self.conn.execute("select retry_job(%s, 0, 'boom', %s)", start).fetchone()
        assert row == (self.holds(start) or self.ended(start, "pending"),)
        if self.holds(start):
            self.end_cleanly(start[0])
            self.place(start[0], status="pending", future=False)

    @rule(start=starts)
    def release(self, start: tuple[str, int]) -> None:
        id_, claim = start
        lost = self.conn.execute("select release_jobs(%s, %s)", [[id_], [claim]]).fetchall()
        assert lost == ([] if self.holds(start) or self.ended(start, "pending") else [(id_,)])
        if self.holds(start):
            self.place(id_, status="pending", attempts=self.model[id_]["attempts"] - 1)

    @rule(start=starts)
    def ask(self, start: tuple[str, int]) -> None:
        lost = self.conn.execute("select lost_jobs(%s, %s)", [[start[0]], [start[1]]]).fetchall()
        assert lost == ([] if self.holds(start) else [(start[0],)])

    @rule(id_=jobs)
    def cancel(self, id_: str) -> None:
        job = self.model[id_]
        row = self.conn.execute("select cancel_job(%s)", [id_]).fetchone()
        assert row == (job["status"] in ("pending", "running"),)
        if row == (True,):
            job.update(status="cancelled", claim=None)

    @rule(id_=jobs)
    def retry_by_operator(self, id_: str) -> None:
        job = self.model[id_]
        row = self.conn.execute("select retry_job(%s)", [id_]).fetchone()
        assert row == (job["status"] in ("pending", "failed", "cancelled"),)
        if row == (True,):
            self.end_cleanly(id_)
            # A pending job also keeps its old place and could be claimed there, but the model knows only the new place.
            self.place(id_, status="pending", future=False)
            self.conn.execute(
                "delete from ready where job_id = %s and seq < (select max(seq) from ready where job_id = %s)",
                [id_, id_],
            )

    @rule(id_=jobs)
    def fall_due(self, id_: str) -> None:
        job = self.model[id_]
        if job["status"] == "pending" and job["future"]:
            self.conn.execute("update jobs set execute_at = now() where id = %s", [id_])
            self.place(id_, future=False)

    @rule(id_=consumes(jobs))
    def delete_job(self, id_: str) -> None:
        self.conn.execute("delete from jobs where id = %s", [id_])
        del self.model[id_]
        self.model[f"gone-{id_}"] = {
            "status": "gone",
            "future": False,
            "queue": "",
            "attempts": 0,
            "crashes": 0,
            "worker": None,
            "claim": None,
            "priority": 0,
        }

    @rule(worker=st.integers(1, 3))
    def die(self, worker: int) -> None:
        self.conn.execute("select give_away_worker(%s), give_back_claims(%s, '{}', 'crashed', null)", [worker, worker])
        self.conn.execute("insert into workers (id, name) overriding system value values (%s, 'again')", [worker])
        mine = [(id_, job) for id_, job in self.model.items() if job["status"] == "running" and job["worker"] == worker]
        places = self.conn.execute("select job_id from ready order by seq desc limit %s", [len(mine)]).fetchall()
        order = [row[0] for row in reversed(places)]
        for id_, job in sorted(mine, key=lambda one: order.index(one[0]) if one[0] in order else -1):
            job.update(crashes=job["crashes"] + 1, claim=None)
            if job["crashes"] == 3:
                job["status"] = "failed"
            else:
                self.place(id_, status="pending")

    @invariant()
    def database_agrees(self) -> None:
        rows = self.conn.execute("select id, status, attempts, crashes, claim_id from jobs").fetchall()
        expected = {
            (id_, job["status"], job["attempts"], job["crashes"], job["claim"])
            for id_, job in self.model.items()
            if job["status"] != "gone"
        }
        assert set(rows) == expected
        placed = {row[0] for row in self.conn.execute("select job_id from ready union select job_id from scheduled")}
        assert {id_ for id_, job in self.model.items() if job["status"] == "pending"} <= placed


def test_functions_agree_with_the_model(conn: Connection) -> None:
    QueueMachine.conn = conn
    run_state_machine_as_test(
        QueueMachine,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
