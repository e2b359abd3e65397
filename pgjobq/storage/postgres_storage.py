"""PostgresStorage: the storage on PostgreSQL. It only calls the functions of sql/."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

from psycopg_pool import ConnectionPool

from pgjobq.checks import check_seconds
from pgjobq.errors import JobsHeld
from pgjobq.forks import renew_in_child
from pgjobq.models import Job, JobStatus, NewJob, Which
from pgjobq.outcomes import JobTransaction, Maintenance, Outcome, Pruned
from pgjobq.postgres import callers
from pgjobq.postgres.cancelling import cancel_matching
from pgjobq.postgres.claiming import Claiming
from pgjobq.postgres.database import Database
from pgjobq.postgres.dsn import connection_parameters, ends_with_client
from pgjobq.postgres.errors import translated
from pgjobq.postgres.operations import PostgresOperations
from pgjobq.postgres.pausing import Pauses
from pgjobq.postgres.presence import Presence
from pgjobq.postgres.pruning import Pruning
from pgjobq.postgres.rows import check_sizes
from pgjobq.postgres.scheduling import PostgresSchedules, Schedules
from pgjobq.postgres.schema import DEFAULT_SCHEMA
from pgjobq.postgres.settling import settle, settle_free
from pgjobq.postgres.transaction import PostgresTransaction
from pgjobq.postgres.transfer import imported
from pgjobq.postgres.wait_calls import WaitCalls
from pgjobq.postgres.waiting import Waiting
from pgjobq.schedules import Declared, Schedule
from pgjobq.storage.fenced import FencedStorage
from pgjobq.storage.postgres_waits import PostgresWaits

SOON = 0.3  # seconds until a worker that has just started is registered


class PostgresStorage(PostgresOperations, PostgresWaits, PostgresSchedules, FencedStorage):
    """Jobs in PostgreSQL >= 15, in a schema created by `pgjobq migrate`.

    conninfo is a DSN or a psycopg_pool ConnectionPool. Nothing is connected before the first call. The first dequeue
    makes this object a worker. Its listener connection holds a session lock, and when the server releases that lock,
    other workers rescue the jobs.

    schema: where pgjobq is installed. min_size, max_size, timeout: of the pool; a call waits at most timeout seconds
    for a connection and then raises StorageUnavailable. Handlers' transactions add to max_size. poll_interval: seconds
    after which a sleeping worker checks for jobs without a notification. pooled: conninfo leads through a transaction
    pooler such as PgBouncer. In that case listen_dsn is a direct DSN for notifications and the lock; without it, the
    worker polls and sends heartbeats. max_data_bytes: refuse larger data before sending it. answer_timeout: seconds
    after which a call without an answer raises StorageUnavailable; counting the jobs of a huge table may need more.

    Thread-safe. Threads that dequeue take turns, and at most one thread may dequeue and wait. The storage retries
    nothing itself; the caller may safely repeat a settle. Every settle is fenced by the start that was dequeued.
    """

    database_class = Database  # a subclass may run the calls on other connections

    max_result_bytes = None  # complete_jobs checks it, by the setting pgjobq.max_result_bytes

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
        super().__init__()
        check_seconds("poll_interval", poll_interval)
        self.schema, self.max_data_bytes = schema, max_data_bytes
        self._database = self.database_class(
            conninfo,
            schema=schema,
            pooled=pooled,
            min_size=min_size,
            max_size=max_size,
            timeout=timeout,
            application_name=application_name,
            answer_timeout=answer_timeout,
        )
        self._run, self._calls = self._database.run, self._database.calls
        options = {"schema": schema, "pooled": pooled, "timeout": timeout, "answer_timeout": answer_timeout}
        self._to_reopen: tuple[Any, dict[str, Any]] = conninfo, options | {"application_name": application_name}
        beside = None if pooled else self._database.parameters
        listen = beside if listen_dsn is None else connection_parameters(listen_dsn, application_name)
        presence: dict[str, Any] = {"listen": listen, "schema": schema, "poll_interval": poll_interval}
        self._wait_calls = WaitCalls(schema)
        self._waiting = None if listen is None else Waiting(listen, self._wait_calls)
        self._new_presence = partial(Presence, self._database, **presence)
        self.after_fork()
        renew_in_child(self)

    def after_fork(self) -> None:
        """Set up the worker's part, again in a forked child, where the registration and held jobs are the parent's."""
        self._presence, self._left_types = self._new_presence(), []
        self._claiming, self._pruning = Claiming(self._database, self._presence), Pruning(self._database)
        self._pauses = Pauses(self._database, self.schema)
        self._schedules = Schedules(self._database, self.schema)

    # -- adding ---------------------------------------------------------------------------------------

    def enqueue_many(self, jobs: Sequence[NewJob], connection: Any = None) -> list[str]:
        """Add jobs in one statement, all or none, and return their ids in order.

        connection: one that JobQueue.enqueue takes. The jobs exist once its transaction commits. If a job has a unique
        key or an expiry, the ids are JobIds, whose outcome distinguishes a new job from one that has the key already.
        The options of the keys must be the same for all jobs of a call.
        """
        if not jobs:
            return []
        check_sizes(jobs, self.max_data_bytes)
        if connection is None:
            return self._run(self._calls.enqueue_jobs(jobs))
        with translated():
            return callers.enqueue(connection, self.schema, jobs)

    async def enqueue_many_async(self, jobs: Sequence[NewJob], connection: Any = None) -> list[str]:
        """Do what enqueue_many does, without blocking the event loop. connection: an async connection."""
        if not jobs or connection is None:
            return await super().enqueue_many_async(jobs)
        check_sizes(jobs, self.max_data_bytes)
        with translated():
            return await callers.enqueue_async(connection, self.schema, jobs)

    def _add(self, jobs: Sequence[NewJob]) -> None:
        self.enqueue_many(jobs)

    def import_jobs(self, jobs: Sequence[Job]) -> int:
        """Add jobs with their state, all or none. Return how many were added. Leave jobs whose id exists unchanged."""
        return imported(self._database, jobs)

    # -- working --------------------------------------------------------------------------------------

    def _dequeue(self, limit: int, queues: Sequence[str] | None) -> list[Job]:
        self._database.open()
        return self._claiming.claim(limit, queues, self._left_types, suspects_alone=self.suspects_alone)

    def wait(self, timeout: float, queues: Sequence[str] | None = None) -> bool:
        """Sleep until notified of a job for these queues or until a job is due, at most timeout seconds.

        Return False only if there is certainly no job to claim. While the worker is falling asleep, return True early,
        so that the caller claims; see docs/discussions/doorbell.md.
        """
        self._database.open()
        with translated():
            self._presence.join(queues)
            return self._presence.wait(timeout, queues)

    def note_load(self, busy: bool, full: bool) -> None:
        """Tell other workers whether this one is busy or has no room, so that they take the jobs."""
        with translated():
            self._presence.note_load(busy, full)

    def wake(self) -> None:
        """Make a wait() in another thread return."""
        self._presence.wake()

    def _held(self, job_id: str) -> Job | None:
        return self._claiming.holds.get(job_id)

    def _settle(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        claims = self._claiming.holds.about_to_finish([outcome.job for outcome in outcomes])
        held: list[Outcome] = []
        try:
            with self._database.connection() as conn:
                lost = settle(conn, self._calls, outcomes, claims, keep=self.keep_completed)
        except JobsHeld as error:
            cause, claims = error, {}
            with self._database.connection() as conn:
                held, lost = settle_free(conn, self._calls, outcomes, keep=self.keep_completed)
        self._claiming.holds.drop(outcome.job for outcome in outcomes if outcome not in held)
        self._claiming.holds.forgotten(claims)
        self._claiming.settled()
        if held:
            raise JobsHeld(str(cause), outcomes=held, lost=lost) from cause
        return lost

    def _put_back(self, job_id: str, delay: float) -> bool:
        return self._run(self._calls.retry_job(job_id, delay))

    def transaction(self, job: Job) -> JobTransaction:
        """Return a transaction for the handler. Its last statement completes the job."""
        return PostgresTransaction(job, self._database, lambda job: self._claiming.holds.drop([job]))

    def reopener(self) -> Callable[[], PostgresStorage] | None:
        """Return a function that opens this storage in another process. None if it uses a pool of the caller."""
        conninfo, options = self._to_reopen
        if not isinstance(conninfo, str):
            return None
        return partial(PostgresStorage, conninfo if options["pooled"] else ends_with_client(conninfo), **options)

    def rescue(self) -> int:
        """Put the jobs of dead workers back in line. Return how many. A running Worker calls this by itself."""
        return self.maintain([]).rescued

    def maintain(self, running: Sequence[Job]) -> Maintenance:
        """Do one round of maintenance: show that this worker is alive, rescue, and report the lost jobs of running."""
        self._database.open()
        with translated():
            found, unknown = self._presence.maintain(running, self._claiming.holds.claims())
            self._claiming.holds.drop(found.lost)
            if unknown:
                self._claiming.release_unknown(self._presence.worker_id)
            self._schedules.declare_again(self._presence.worker_id)
            if self._schedules.waits_for_worker:
                found = replace(found, again_in=min(found.again_in, SOON))
            if running or self._claiming.since_floors:
                self._claiming.advance_floors()
            return found

    def declare_schedules(self, declarations: Mapping[str, Schedule]) -> list[Declared]:
        """Create the schedules that this program declares; return what became of each. A Worker calls this."""
        return self._schedules.declare(declarations, self._presence.worker_id)

    def on_watch(self, callback: Callable[[], None]) -> None:
        """Register a callback, run in the waiting thread, for when another worker has a job or asks to be watched."""
        self._presence.on_watch(callback)

    def lost(self, running: Sequence[Job]) -> list[Job]:
        """Which of these running jobs were cancelled, rescued or settled by another."""
        with translated():
            found = self._presence.lost(running)
        self._claiming.holds.drop(found)
        return found

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call back, in any thread, when a job that this worker runs was cancelled."""
        if not self._presence.on_cancel(callback):
            super().on_cancel(callback)

    def hear_cancels(self, seconds: float) -> None:
        """Listen for cancels for this many seconds, even if no thread is in wait()."""
        self._presence.hear_cancels(seconds)

    def leave(self) -> None:
        """Stop being a worker, and put the jobs that are still held back in line."""
        with translated():
            self._presence.leave()
        self._claiming.forget()
        self._left_types = []

    def close(self) -> None:
        """Close the listener, and the pool unless it is the caller's. Without leave(), the worker is taken for dead."""
        if self._waiting is not None:
            self._waiting.close()
        self._presence.close()
        self._database.close()

    # -- reading and maintenance ----------------------------------------------------------------------

    def _get(self, job_id: str) -> Job | None:
        return self._run(self._calls.get_job(job_id))

    def _list(self, status: JobStatus | None, limit: int | None, queue: str | None) -> list[Job]:
        return self._run(self._calls.list_jobs(status, limit, queue))

    def _cancel(self, job_id: str, reason: str | None) -> bool | None:
        if self._run(self._calls.cancel_job(job_id, reason)):
            return True
        return None if self._get(job_id) is None else False

    def _cancel_jobs(self, which: Which, max_jobs: int | None, reason: str | None) -> int:
        # In batches of their own transaction, which skip jobs that another transaction holds.
        return cancel_matching(self._database, which, max_jobs, reason)

    def _prune(self, older_than: timedelta, statuses: list[str], queues: list[str] | None, batch: int) -> int:
        return self._pruning.all(older_than, statuses, batch, queues)

    def _prune_some(self, older_than: timedelta, queues: list[str] | None, statuses: list[str]) -> Pruned:
        # Only one worker prunes at a time, in small batches, so that claims do not slow down.
        return self._pruning.some(older_than, queues, statuses)

    def ping(self) -> None:
        """Connect and check the schema. Raises StorageUnavailable, NotMigrated or SchemaTooNew."""
        self._database.open()
