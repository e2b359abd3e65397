"""Typed methods for the SQL functions that pgjobq calls. Each method has the name of its function.

A method returns a FunctionCall, which any connection can execute: a pooled connection (Database.run), a given
connection (fetch), the listener, an async connection or a pipeline. Each function is documented in the file of the same
name in sql/functions.

Lists are sent in the binary format (%b), because that costs the client and the server a quarter of the text format.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from pgjobq.models import Job, NewJob, Which
from pgjobq.postgres import answers
from pgjobq.postgres.adding import ADD, added, arguments_to_add, told
from pgjobq.postgres.answers import Dicts
from pgjobq.postgres.rows import arguments_of, claimed_jobs, lists_of, stored_job
from pgjobq.postgres.statements import FunctionCall, Rows
from pgjobq.postgres.worker_calls import WorkerCalls, as_list

LARGE_BATCH, LARGE_TEXT = 10_000, 1_000_000  # jobs; characters


def _job(rows: Rows) -> Job | None:
    return stored_job(rows[0]) if rows else None


def _jobs(rows: Rows) -> list[Job]:
    return [stored_job(row) for row in rows]


class Calls(WorkerCalls):
    """The functions of one schema."""

    # -- adding -----------------------------------------------------------------------------------------

    def enqueue_jobs(self, jobs: Sequence[NewJob]) -> FunctionCall[list[str]]:
        """Add jobs and return their ids in order. A single job uses the faster function enqueue_job."""
        if told(jobs):
            return FunctionCall(self._sql[ADD], arguments_to_add(jobs), added, large=len(jobs) > LARGE_BATCH)
        if len(jobs) == 1:
            text = """select {schema}.enqueue_job(%s, %s::jsonb, %s, coalesce(%s::timestamptz,
                clock_timestamp() + make_interval(secs => %s)), %s, %s, %s)"""
            return FunctionCall(self._sql[text], arguments_of(jobs[0]), answers.values)
        text = """select {schema}.enqueue_jobs(%b::text[], %b::text[]::jsonb[], %b::integer[],
            array(select coalesce(given.at, clock_timestamp() + make_interval(secs => given.delay))
                    from unnest(%b::timestamptz[], %b::float8[]) as given (at, delay)),
            %b::integer[], %b::text[], %b::text[])"""
        return FunctionCall(self._sql[text], lists_of(jobs), answers.values, large=len(jobs) > LARGE_BATCH)

    def import_jobs(self, jobs: str) -> FunctionCall[int]:
        """Add jobs with their state, given as a JSON array. Return the number of jobs that did not exist before."""
        statement = self._sql["select {schema}.import_jobs(%s::jsonb)"]
        return FunctionCall(statement, [jobs], answers.value, large=len(jobs) > LARGE_TEXT)

    # -- claiming and settling --------------------------------------------------------------------------

    def claim_jobs(
        self,
        worker_id: int,
        queues: Sequence[str] | None,
        max_jobs: int,
        except_types: Sequence[str] = (),
        alone: bool | None = None,
    ) -> FunctionCall[tuple[list[Job], str]]:
        """Start jobs. Return them, and the kind of jobs that the claim skipped."""
        # The last row has no id and names what the claim skipped. PostgreSQL evaluates its condition after the claim.
        text = """select claim_id, id, queue, type, data::text, priority, attempts, max_retries, execute_at, error,
            created_at, started_at, crashes from {schema}.claim_jobs(%s, %b::text[], %s, %b::text[], %s)
            union all
            select null, null, current_setting('pgjobq.skipped'), null, null, null, null, null, null, null, null, null,
                   null
             where current_setting('pgjobq.skipped', true) <> ''"""
        arguments = [worker_id, as_list(queues), max_jobs, list(except_types), alone]
        return FunctionCall(self._sql[text], arguments, lambda rows: claimed_jobs(rows, worker_id), binary=True)

    def complete_jobs(
        self,
        worker_id: int | None,
        job_ids: list[str],
        claim_ids: list[int | None],
        finished: list[int],
        keep: bool,
        results: list[str | None] | None = None,
    ) -> FunctionCall[set[str]]:
        """Complete jobs and forget the finished claims. Return the ids of the jobs that were lost.

        results: as JSON; None if no job has one.
        """
        if results is not None:
            text = """select {schema}.complete_jobs(%s, %b::text[], %b::bigint[], %b::bigint[], %s,
                %b::text[]::jsonb[])"""
            arguments = [worker_id, job_ids, claim_ids, finished, keep, results]
            return FunctionCall(self._sql[text], arguments, answers.value_set)
        statement = self._sql["select {schema}.complete_jobs(%s, %b::text[], %b::bigint[], %b::bigint[], %s)"]
        return FunctionCall(statement, [worker_id, job_ids, claim_ids, finished, keep], answers.value_set)

    def fail_job(
        self, job_id: str, claim_id: int | None, error: str | None, ended: str = "raised"
    ) -> FunctionCall[bool]:
        """Fail a start for good. Return False if it was not held any more. ended: how the try ended."""
        statement = self._sql["select {schema}.fail_job(%s, %s, %s, %s)"]
        return FunctionCall(statement, [job_id, claim_id, error, ended], answers.value)

    def retry_held_job(
        self, job_id: str, delay: float, error: str | None, claim_id: int | None, ended: str = "raised"
    ) -> FunctionCall[bool]:
        """Call retry_job for a start. Return True if the start was still held, so that the job is pending now."""
        statement = self._sql["select {schema}.retry_job(%s, %s, %s, %s, %s)"]
        return FunctionCall(statement, [job_id, float(delay), error, claim_id, ended], answers.value)

    def retry_job(self, job_id: str, delay: float) -> FunctionCall[bool]:
        """Make a failed, cancelled or pending job pending. Return False if it had another status."""
        return FunctionCall(self._sql["select {schema}.retry_job(%s, %s)"], [job_id, float(delay)], answers.value)

    def release_job(self, job_id: str, claim_id: int | None, delay: float, ran: bool = False) -> FunctionCall[bool]:
        """Call release_jobs for one start. Return True if the start was still held, so that the job is pending now."""
        statement = self._sql["select {schema}.release_jobs(%b::text[], %b::bigint[], %s, %s)"]
        return FunctionCall(statement, [[job_id], [claim_id], float(delay), ran], lambda lost: not lost)

    def release_unknown_jobs(self, worker_id: int | None, known: list[int]) -> FunctionCall[Rows]:
        """Release the starts of a worker that belong to none of the known claims."""
        statement = self._sql["select {schema}.release_unknown_jobs(%s, %b::bigint[])"]
        return FunctionCall(statement, [worker_id, known], answers.rows)

    def held_jobs(self, job_ids: list[str]) -> FunctionCall[set[str]]:
        """Lock the rows of these jobs. Return the ids of the jobs whose rows another transaction has locked."""
        return FunctionCall(self._sql["select {schema}.held_jobs(%b::text[])"], [job_ids], answers.value_set)

    def lost_jobs(self, job_ids: list[str], claim_ids: list[int | None]) -> FunctionCall[set[str]]:
        """Return the ids of the jobs whose start is not held any more."""
        statement = self._sql["select {schema}.lost_jobs(%b::text[], %b::bigint[])"]
        return FunctionCall(statement, [job_ids, claim_ids], answers.value_set)

    def cancel_job(self, job_id: str, reason: str | None) -> FunctionCall[bool]:
        """Cancel a pending or running job. Return False if it had another status."""
        return FunctionCall(self._sql["select {schema}.cancel_job(%s, %s)"], [job_id, reason], answers.value)

    def cancel_jobs(
        self, which: Which, batch: int, reason: str | None, after: tuple[str | None, str | None]
    ) -> FunctionCall[tuple[int, str | None, str | None]]:
        """Cancel a batch of jobs. Return how many, and the created_at and id that it reached."""
        text = """select cancelled, reached_created_at::text, reached_id
            from {schema}.cancel_jobs(%s, %s, %s, %s::timestamptz, %s, %s, %s::timestamptz, %s)"""
        arguments = [which.queue, which.type, which.unique_key, which.created_before, batch, reason, *after]
        return FunctionCall(self._sql[text], arguments, answers.row)

    # -- reading ----------------------------------------------------------------------------------------

    def get_job(self, job_id: str) -> FunctionCall[Job | None]:
        """Return the job with this id, or None."""
        return FunctionCall(self._sql["select {columns} from {schema}.get_job(%s)"], [job_id], _job, binary=True)

    def list_jobs(self, status: str | None, limit: int | None, queue: str | None) -> FunctionCall[list[Job]]:
        """Return jobs, newest first."""
        statement = self._sql["select {columns} from {schema}.list_jobs(%s, %s, %s)"]
        return FunctionCall(statement, [status, limit, queue], _jobs, binary=True)

    def export_jobs(
        self, batch: int, after_created_at: datetime | None, after_id: str | None
    ) -> FunctionCall[list[Job]]:
        """Return a page of jobs, oldest first."""
        statement = self._sql["select {columns} from {schema}.export_jobs(%s, %s, %s)"]
        return FunctionCall(statement, [batch, after_created_at, after_id], _jobs, binary=True)

    def count_jobs(self) -> FunctionCall[Rows]:
        """Return a row for each status: the status and the number of its jobs."""
        return FunctionCall(self._sql["select status, jobs from {schema}.count_jobs()"], [], answers.rows)

    def job_stats(self) -> FunctionCall[Dicts]:
        """Read the view job_stats: jobs by queue and status."""
        text = """select queue, status, jobs, estimated, extract(epoch from oldest_due_age)::float8
            from {schema}.job_stats"""
        return FunctionCall(
            self._sql[text], [], answers.dicts("queue", "status", "jobs", "estimated", "oldest_due_age")
        )

    def worker_status(self) -> FunctionCall[Dicts]:
        """Read the view worker_status: the registered workers."""
        text = """select id, name, queues, started_at, alive, asleep, running
            from {schema}.worker_status order by id"""
        names = ("id", "name", "queues", "started_at", "alive", "asleep", "running")
        return FunctionCall(self._sql[text], [], answers.dicts(*names))

    def unserved_types(self) -> FunctionCall[Dicts]:
        """Return the types of due jobs that no live worker takes."""
        text = "select queue, type, jobs from {schema}.unserved_types()"
        return FunctionCall(self._sql[text], [], answers.dicts("queue", "type", "jobs"))

    def why_job(self, job_id: str) -> FunctionCall[str]:
        """Return a sentence that says why a job is not running."""
        return FunctionCall(self._sql["select {schema}.why_job(%s)"], [job_id], answers.value)

    # -- maintenance ------------------------------------------------------------------------------------

    def prune_jobs(
        self,
        older_than: timedelta,
        statuses: Sequence[str],
        batch: int,
        after: tuple[str | None, str | None],
        queues: Sequence[str] | None,
    ) -> FunctionCall[tuple[int | None, str | None, str | None]]:
        """Delete a batch of jobs. Return how many, and the created_at and id that the batch reached.

        The number is None when another session is pruning.
        """
        text = """select pruned, reached_created_at::text, reached_id
            from {schema}.prune_jobs(%s, %s::text[], %s, %s::timestamptz, %s, %s::text[])"""
        arguments = [older_than, list(statuses), batch, *after, as_list(queues)]
        return FunctionCall(self._sql[text], arguments, answers.row)

    def repair_jobs(self, batch: int) -> FunctionCall[tuple[int, int, int, int]]:
        """Repair a batch. Return how many jobs were placed, given back, failed, and locked by other transactions."""
        text = "select placed, given_back, failed, held from {schema}.repair_jobs(%s)"
        return FunctionCall(self._sql[text], [batch], answers.row)
