"""PostgresStorage: the seam on PostgreSQL. It calls the functions of sql/, and does nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from psycopg_pool import ConnectionPool

from pgjobq.checks import check_delay, check_names, check_reason, check_whole_number
from pgjobq.errors import ConfigurationError, JobNotFound, JobsHeld, LostJob
from pgjobq.forks import renew_in_child
from pgjobq.models import Job, JobStatus, NewJob, Which
from pgjobq.postgres import callers
from pgjobq.postgres.cancelling import cancel_matching
from pgjobq.postgres.claiming import Claiming
from pgjobq.postgres.database import Database
from pgjobq.postgres.dsn import connection_parameters
from pgjobq.postgres.errors import translated
from pgjobq.postgres.presence import Presence
from pgjobq.postgres.pruning import Pruning
from pgjobq.postgres.repairing import Repaired, repair
from pgjobq.postgres.rows import check_sizes, enqueue_call, stored_job
from pgjobq.postgres.schema import DEFAULT_SCHEMA
from pgjobq.postgres.settling import settle, settle_free
from pgjobq.postgres.transaction import PostgresTransaction
from pgjobq.postgres.transfer import exported, imported
from pgjobq.storage.base import (
    BaseStorage,
    Completed,
    Failed,
    JobTransaction,
    Maintenance,
    Outcome,
    Pruned,
    Released,
    Retried,
)


class PostgresStorage(BaseStorage):
    """Jobs in PostgreSQL >= 15, in a schema made by `pgjobq migrate`.

    Give a conninfo (or URL), or a psycopg_pool ConnectionPool of your own. Nothing is connected before the first
    call. The first dequeue makes this object a worker: a listener connection holds its session lock, and when
    that falls the jobs go to others.

    schema: where pgjobq was installed. min_size, max_size, timeout: the pool's; a call waits at most timeout
    seconds for a connection, then raises StorageUnavailable. Handlers' transactions add to max_size.
    poll_interval: seconds after which a sleeping worker looks for jobs without having been notified. pooled:
    conninfo leads through a transaction pooler, such as PgBouncer; then listen_dsn names a direct connection for
    notifications and the lock, and without one the worker polls and sends heartbeats. max_data_bytes: refuse
    larger data here, before it is sent. answer_timeout: a call that gets no answer for so many seconds raises
    StorageUnavailable; counts of a huge table may need more.

    Thread-safe; threads that dequeue take turns, and only one that does so alone may wait. What is retried: nothing but
    a settle, by its caller, which is safe to repeat. What is fenced: every settle, by the attempt dequeued.
    """

    def __init__(
        self,
        conninfo: str | ConnectionPool[Any] = "",
        *,
        schema: str = DEFAULT_SCHEMA,
        listen_dsn: str | None = None,
        pooled: bool = False,
        min_size: int = 1,
        max_size: int = 10,
        timeout: float = 10.0,
        poll_interval: float = 30.0,
        application_name: str = "pgjobq",
        max_data_bytes: int | None = None,
        answer_timeout: float = 30.0,
    ) -> None:
        if not poll_interval > 0:
            raise ConfigurationError(f"poll_interval: {poll_interval!r} is not allowed; give seconds above 0")
        self.schema, self.max_data_bytes = schema, max_data_bytes
        self._database = Database(
            conninfo,
            schema=schema,
            pooled=pooled,
            min_size=min_size,
            max_size=max_size,
            timeout=timeout,
            application_name=application_name,
            answer_timeout=answer_timeout,
        )
        self._rows = self._database.rows
        beside = None if pooled else self._database.parameters
        listen = beside if listen_dsn is None else connection_parameters(listen_dsn, application_name)
        presence: dict[str, Any] = {"listen": listen, "schema": schema, "poll_interval": poll_interval}
        self._new_presence = partial(Presence, self._rows, self._database.statements, **presence)
        self.after_fork()
        renew_in_child(self)

    def after_fork(self) -> None:
        """Be no worker yet; and none in a forked child, for the registration and the jobs held are the parent's."""
        self._presence, self._left_types = self._new_presence(), list[str]()
        self._claiming, self._pruning = Claiming(self._rows, self._presence), Pruning(self._rows)

    def enqueue(
        self,
        job_id: str,
        job_type: str,
        data: dict[str, Any],
        max_retries: int = 3,
        priority: int = 5,
        execute_at: datetime | None = None,
        queue: str = "default",
    ) -> None:
        """Add a pending job. Raises DuplicateJob for an id that exists, InvalidJob for a value not allowed."""
        self.enqueue_many([NewJob.from_enqueue(job_id, job_type, data, max_retries, priority, execute_at, queue)])

    def enqueue_many(self, jobs: Sequence[NewJob], connection: Any = None) -> list[str]:
        """Add jobs in one statement: all or none; their ids, in order.

        connection: a psycopg or SQLAlchemy connection; the jobs exist when its transaction commits.
        """
        if not jobs:
            return []
        check_sizes(jobs, self.max_data_bytes)
        if connection is None:
            return [row[0] for row in self._rows(*enqueue_call(jobs))]
        with translated():
            callers.enqueue(connection, self.schema, jobs)
        return [job.id for job in jobs]

    async def enqueue_many_async(self, jobs: Sequence[NewJob], connection: Any = None) -> list[str]:
        """enqueue_many for an event loop; connection is an async one."""
        if not jobs or connection is None:
            return await super().enqueue_many_async(jobs)
        check_sizes(jobs, self.max_data_bytes)
        with translated():
            await callers.enqueue_async(connection, self.schema, jobs)
        return [job.id for job in jobs]

    def dequeue(self) -> Job | None:
        """Claim the next due job of any queue; None when there is none. Makes this object a worker."""
        jobs = self.dequeue_many(1)
        return jobs[0] if jobs else None

    def dequeue_many(self, limit: int, queues: Sequence[str] | None = None) -> list[Job]:
        """Claim up to limit jobs of these queues (None: all), in the order in which they should run.

        When the answer is lost with the connection, StorageUnavailable is raised, and the next call first gives
        back what the lost one may have claimed.
        """
        self._database.open()
        return self._claiming.claim(limit, queues, self._left_types, suspects_alone=self.suspects_alone)

    def wait(self, timeout: float, queues: Sequence[str] | None = None) -> bool:
        """Sleep until notified of a job for these queues, or one falls due; at most timeout seconds.

        False: there is surely nothing to claim. Returns early, for the caller to claim again, while it is
        falling asleep: see the doorbell.
        """
        self._database.open()
        with translated():
            self._presence.join(queues)
            return self._presence.wait(timeout, queues)

    def note_load(self, busy: bool, full: bool) -> None:
        """Tell other workers whether to take what this one might: it is busy, or has no room at all."""
        with translated():
            self._presence.note_load(busy, full)

    def leave_types(self, types: Collection[str]) -> bool:
        """Give out no jobs of these types until the next call, or leave(): they stay in line for other workers."""
        self._left_types = sorted(types)
        return True

    def wake(self) -> None:
        """Make a wait() in another thread return."""
        self._presence.wake()

    def complete(self, job_id: str) -> None:
        """running -> completed, for a job that this object dequeued."""
        self._settle_held(job_id, Completed)

    def fail(self, job_id: str, error: str) -> None:
        """running -> failed for good, for a job that this object dequeued."""
        self._settle_held(job_id, lambda job: Failed(job, error))

    def retry(self, job_id: str, delay_seconds: float) -> None:
        """Make a job pending again: one that this object dequeued, or one that is failed, cancelled or pending."""
        check_delay(delay_seconds)
        if self._claiming.holds.get(job_id) is not None:
            self._settle_held(job_id, lambda job: Retried(job, delay_seconds, None))
        elif not self._rows("retry_job", [job_id, float(delay_seconds)])[0][0]:
            raise self._not_held(job_id)

    def release(self, job_id: str) -> None:
        """Give back a job that was dequeued but not started; the start is not counted."""
        self._settle_held(job_id, Released)

    def settle(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Settle jobs in one transaction; returns the outcomes whose job this worker has lost (unchanged).

        Safe to repeat after an error: what was settled before is not lost, and not settled twice. Raises JobsHeld when
        another transaction holds some of the jobs for half a second; the others are settled.
        """
        claims = self._claiming.holds.about_to_finish([outcome.job for outcome in outcomes])
        held: list[Outcome] = []
        try:
            with self._database.connection() as conn:
                lost = settle(conn, self._database.statements, outcomes, claims, keep=self.keep_completed)
        except JobsHeld as error:
            cause, claims = error, {}
            with self._database.connection() as conn:
                held, lost = settle_free(conn, self._database.statements, outcomes, keep=self.keep_completed)
        self._claiming.holds.drop(outcome.job for outcome in outcomes if outcome not in held)
        self._claiming.holds.forgotten(claims)
        self._claiming.settled()
        if held:
            raise JobsHeld(str(cause), outcomes=held, lost=lost) from cause
        return lost

    def _settle_held(self, job_id: str, outcome: Callable[[Job], Outcome]) -> None:
        held = self._claiming.holds.get(job_id)
        if held is None or self.settle([outcome(held)]):
            raise self._not_held(job_id)

    def _not_held(self, job_id: str) -> JobNotFound | LostJob:
        found = self.get_job(job_id)
        if found is None:
            return JobNotFound(f"there is no job {job_id!r}")
        return LostJob(f"job {job_id!r} is {found.status} and not held by this worker; nothing was changed")

    def transaction(self, job: Job) -> JobTransaction:
        """A transaction of the handler's own, which completes the job as its last act."""
        return PostgresTransaction(job, self._database, lambda job: self._claiming.holds.drop([job]))

    def cancel(self, job_id: str, reason: str | None = None) -> bool:
        """pending or running -> cancelled; False when it was finished already. Raises JobNotFound.

        The worker of a running job is notified at once; what the handler did so far stays done. reason: kept as the
        job's error.
        """
        check_reason(reason)
        if self._rows("cancel_job", [job_id, reason])[0][0]:
            return True
        if self.get_job(job_id) is None:
            raise JobNotFound(f"there is no job {job_id!r}")
        return False

    def cancel_jobs(self, which: Which, max_jobs: int | None = None, reason: str | None = None) -> int:
        """Cancel the pending and running jobs that match, at most max_jobs, the oldest first; returns how many.

        In batches of their own transaction. Jobs that another transaction holds are skipped: one that is just being
        claimed goes on. Call it again for those.
        """
        check_reason(reason)
        if max_jobs is not None:
            check_whole_number("max_jobs", max_jobs, 1, 2**31 - 1)
        return cancel_matching(self._rows, which, max_jobs, reason)

    def prune(
        self,
        older_than: timedelta,
        statuses: Sequence[str] = ("completed", "cancelled"),
        batch: int = 1000,
        *,
        queues: Sequence[str] | None = None,
    ) -> int:
        """Delete jobs that finished longer ago than older_than, of these queues or of all; how many.

        In batches of their own transaction.
        """
        check_names("queues", queues)
        return self._pruning.all(older_than, statuses, batch, queues)

    def prune_some(self, older_than: timedelta, queues: Sequence[str] | None = None) -> Pruned:
        """Delete a batch of completed and cancelled jobs, one worker at a time, and so that claims do not suffer."""
        return self._pruning.some(older_than, queues)

    def rescue(self) -> int:
        """Put the jobs of dead workers back in line; returns how many. A worker does this by itself."""
        return self.maintain([]).rescued

    def repair(self, batch: int = 50_000) -> Repaired:
        """Give jobs that came in without triggers their places in line, in transactions of a batch each."""
        check_whole_number("batch", batch, 1, 2**31 - 1)
        return repair(self._rows, batch)

    def maintain(self, running: Sequence[Job]) -> Maintenance:
        """One round of maintenance: a sign of life, a rescue, and which of these running jobs were lost."""
        self._database.open()
        with translated():
            found, unknown = self._presence.maintain(running, self._claiming.holds.claims())
            self._claiming.holds.drop(found.lost)
            if unknown:
                self._claiming.release_unknown(self._presence.worker_id)
            if running or self._claiming.since_floors:
                self._claiming.advance_floors()
            return found

    def on_watch(self, callback: Callable[[], None]) -> None:
        """Call back, in the waiting thread, when another worker asks to be looked after."""
        self._presence.on_watch(callback)

    def lost(self, running: Sequence[Job]) -> list[Job]:
        """Which of these running jobs were cancelled, rescued or settled by another."""
        with translated():
            found = self._presence.lost(running)
        self._claiming.holds.drop(found)
        return found

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call back, in any thread, when a job that this worker runs was cancelled."""
        self._presence.on_cancel(callback)

    def hear_cancels(self, seconds: float) -> None:
        """Hear of cancels for so many seconds, also if no thread is in wait()."""
        self._presence.hear_cancels(seconds)

    def leave(self) -> None:
        """Stop being a worker: jobs still held go back in line."""
        with translated():
            self._presence.leave()
        self._claiming.forget()
        self._left_types = []

    def close(self) -> None:
        """Close the listener, and the pool if it is this object's own. Without leave(), others find the worker dead."""
        self._presence.close()
        self._database.close()

    def get_job(self, job_id: str) -> Job | None:
        """The job with this id, or None."""
        rows = self._rows("get_job", [job_id], binary=True)
        return stored_job(rows[0]) if rows else None

    def list_jobs(self, status: str | None = None, limit: int | None = None, queue: str | None = None) -> list[Job]:
        """Jobs, newest first, of one status and one queue or of all; at most limit."""
        if limit is not None:
            check_whole_number("limit", limit, 0, 2**31 - 1)
        return [stored_job(row) for row in self._rows("list_jobs", [status, limit, queue], binary=True)]

    def export_jobs(self, batch: int = 1000) -> Iterator[list[Job]]:
        """Every job, oldest first, by pages."""
        return exported(self._rows, batch)

    def import_jobs(self, jobs: Sequence[Job]) -> int:
        """Add jobs with their state, all or none; those whose id exists are left as they are. How many were added."""
        return imported(self._rows, jobs)

    def counts(self) -> dict[JobStatus, int]:
        """How many jobs there are of each status, all statuses named; exact, and so a scan."""
        found = dict.fromkeys(JobStatus, 0)
        return found | {JobStatus(status): jobs for status, jobs in self._rows("count_jobs", [])}

    def stats(self) -> list[dict[str, Any]]:
        """The view job_stats: queue, status, jobs, estimated, oldest_due_age (seconds). Cheap."""
        return self._dicts("job_stats", ("queue", "status", "jobs", "estimated", "oldest_due_age"))

    def workers(self) -> list[dict[str, Any]]:
        """The view worker_status: id, name, queues, started_at, alive, asleep, running."""
        return self._dicts("worker_status", ("id", "name", "queues", "started_at", "alive", "asleep", "running"))

    def unserved_types(self) -> list[dict[str, Any]]:
        """Types of due jobs that no live worker takes: queue, type, jobs. Looks at 10,000 places of each queue."""
        return self._dicts("unserved_types", ("queue", "type", "jobs"))

    def _dicts(self, view: str, keys: Sequence[str]) -> list[dict[str, Any]]:
        return [dict(zip(keys, row, strict=True)) for row in self._rows(view, [])]

    def ping(self) -> None:
        """Connect and check the schema. Raises StorageUnavailable, NotMigrated or SchemaTooNew."""
        self._database.open()
