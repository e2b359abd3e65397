"""DynamoDBStorage: the storage on DynamoDB."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any

from pgjobq.arrival import ArrivalOrder, arriving, place_of
from pgjobq.errors import StorageError
from pgjobq.models import Job, JobStatus, NewJob, utc_now
from pgjobq.outcomes import Maintenance, Outcome, Released
from pgjobq.storage.dynamodb.claiming import claim, promote
from pgjobq.storage.dynamodb.connection import PAGE, Table
from pgjobq.storage.dynamodb.enqueueing import add
from pgjobq.storage.dynamodb.expressions import Change, Value
from pgjobq.storage.dynamodb.leases import Leases
from pgjobq.storage.dynamodb.location import Location
from pgjobq.storage.dynamodb.rows import (
    MAX_DATA,
    MAX_RESULT,
    Clock,
    Item,
    arrived_item,
    held_job,
    in_text,
    new_item,
    running,
    seq_text,
    stored_job,
)
from pgjobq.storage.dynamodb.settling import finished, pending_after, settle
from pgjobq.storage.holds import Claimant, claim_of
from pgjobq.storage.leased import LeasedStorage

_WAITING = ("failed", "cancelled", "pending")
PROMOTE_EVERY = 0.05  # seconds between two checks for due scheduled jobs, after a check that found none
UNKNOWN_AFTER = 10.0  # seconds; an unknown start that is older does not belong to a claim in progress
SWEEPS = 60.0  # seconds, after a claim whose answer was lost, in which to search for its starts


class DynamoDBStorage(LeasedStorage):
    """Jobs in a table of DynamoDB, which is created at the first use and billed per request.

    table: the name of the table or a URL: dynamodb://REGION/TABLE, with ?endpoint=URL for your own server and
    profile=NAME for a profile of boto3. A second table, TABLE_meta, is created, too. client: your own boto3 client,
    instead of region and endpoint. timeout: seconds to connect and to wait for an answer; a request is tried four times
    if DynamoDB is busy or away, and the timeout applies to each attempt. create: False if the tables exist and this
    user may not create or describe tables. lease, poll_interval: see LeasedStorage.

    A job's data has at most 350,000 bytes, because an item has at most 400 kB. Costs of a job of up to 1 kB: 3 write
    units to enqueue (4 in a batch, which is a transaction), 5 to start, 4 to complete or fail, and 1 for each start
    that another worker made first. Each further kB costs 1 more unit each time. A poll costs half a read unit for each
    queue, half a unit for scheduled jobs, and one unit to read the queues' names if no queues are given.

    Limits of DynamoDB: there is no server clock, so the order, due times and leases depend on the clocks of the
    processes. Keep them within a second (NTP), and use a much longer lease. Indexes lag some milliseconds behind the
    table, so a new job may start after a job of lower priority, and list_jobs and counts may be a little out of date.
    enqueue_many adds all or none for up to 100 jobs and 3.5 MB. Larger calls use several transactions, and if the
    process dies between them, the jobs added so far stay. A queue takes about 500 jobs a second, the limit of one
    partition of an index. A handler cannot complete its job in its own transaction. Workers poll.
    """

    max_data_bytes = MAX_DATA

    keeps_results = True
    max_result_bytes = MAX_RESULT  # bytes

    def __init__(
        self,
        table: str = "jobs",
        *,
        region: str | None = None,
        endpoint: str | None = None,
        client: Any = None,
        create: bool = True,
        timeout: float = 5.0,
        lease: float = 30.0,
        poll_interval: float = 1.0,
    ) -> None:
        super().__init__(lease=lease, poll_interval=poll_interval)
        location = Location.from_table_or_url(table, region=region, endpoint=endpoint, client=client, timeout=timeout)
        self._table = Table(location, create=create)
        self._leases = Leases(self._table, self.lease)
        self._arrivals = ArrivalOrder()
        self._clock = Clock()
        self._sweep_until = self._promote_at = 0.0

    # -- adding ---------------------------------------------------------------------------------------

    def _add(self, jobs: Sequence[NewJob]) -> None:
        now = utc_now()
        items = [new_item(job, self._clock.next(), now) for job in jobs]
        with self._table.translated():
            self._table.register(job.queue for job in jobs)
            add(self._table, items)

    def import_jobs(self, jobs: Sequence[Job]) -> int:
        """Add jobs with their state, one by one. Return how many were added. Leave jobs whose id exists unchanged.

        If a job is invalid, no job is added. Repeat the call after any other error.
        """
        now = utc_now()
        items = [
            arrived_item(job, encoded, self._arrivals.next(job.created_at), now) for job, encoded in map(arriving, jobs)
        ]
        with self._table.translated():
            self._table.register(job.queue for job in jobs)
            return sum(there is None for there in self._table.each(self._table.put, items))

    # -- working --------------------------------------------------------------------------------------

    def _claim(
        self, worker_id: Claimant, limit: int, queues: Sequence[str] | None, except_types: Sequence[str]
    ) -> list[Job]:
        try:
            with self._table.translated():
                moved = self._promote()
                jobs = claim(self._table, worker_id, limit, queues, except_types)
        except StorageError:
            self._sweep_until = time.monotonic() + SWEEPS
            raise
        if moved and not jobs:
            self.wake()  # the index shows them in a moment
        return jobs

    def _promote(self) -> int:
        now = time.monotonic()
        if now < self._promote_at:
            return 0
        moved = promote(self._table)
        self._promote_at = 0.0 if moved else now + PROMOTE_EVERY
        return moved

    def _settle(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        with self._table.translated():
            kept = self._table.each(lambda outcome: settle(self._table, outcome, self._clock), outcomes)
        return [outcome for outcome, is_kept in zip(outcomes, kept, strict=True) if not is_kept]

    def _put_back(self, job_id: str, delay: float) -> bool:
        with self._table.translated():
            while (found := self._table.get(job_id)) is not None and found["status"] in _WAITING:
                to = pending_after(found["queue"], found["priority"], delay, self._clock)
                seen = {"status": found["status"], "updated_at": found["updated_at"]}
                crashes = found.get("crashes", 0)
                change = Change(to={**to, "crashes": 0}, add={"attempts": -crashes} if crashes else {}, when=seen)
                if self._table.change(job_id, change)[0]:
                    return True
        return False

    def _held_by(self, worker_id: int) -> list[Job]:
        with self._table.translated():
            found = {entry["id"]: held_job(entry) for entry in self._table.lane(running(worker_id))}
            # The index may not show a start yet: those that are known here are looked up in the table.
            known = [job for job in self._holds.all() if job.worker_id == worker_id and job.id not in found]
            for job in known:
                item = self._table.get(job.id)
                if item is not None and _is_start(item, job):
                    found[job.id] = stored_job(item)
            return list(found.values())

    def maintain(self, running: Sequence[Job]) -> Maintenance:
        """Rescue, and report which of these running jobs were lost."""
        found = super().maintain(running)
        if time.monotonic() < self._sweep_until and self._worker_id is not None:
            self._give_back_unknown(self._worker_id)
        return found

    def _give_back_unknown(self, worker_id: int) -> None:
        """Release starts of a lost answer that the index did not show yet at the next claim."""
        known = {job.id for job in self._holds.all()}
        before = in_text(utc_now() - timedelta(seconds=UNKNOWN_AFTER))
        for job in self._held_by(worker_id):
            with self._table.translated():
                item = self._table.get(job.id) if job.id not in known else None
            if item is not None and _is_start(item, job) and item["started_at"] < before:
                self._settle([Released(stored_job(item))])

    # -- the lease ------------------------------------------------------------------------------------

    def _enlist(self, worker_id: int, name: str) -> None:
        with self._table.translated():
            self._leases.enlist(worker_id, name)

    def _renew(self, worker_id: int) -> bool:
        with self._table.translated():
            return self._leases.renew(worker_id)

    def _retire(self, worker_id: int) -> None:
        with self._table.translated():
            self._leases.retire(worker_id)

    def _rescue(self) -> int:
        with self._table.translated():
            return self._leases.rescue()

    # -- reading and maintenance ----------------------------------------------------------------------

    def _get(self, job_id: str) -> Job | None:
        with self._table.translated():
            found = self._table.get(job_id)
        return None if found is None else stored_job(found)

    def _list(self, status: JobStatus | None, limit: int | None, queue: str | None) -> list[Job]:
        statuses = list(JobStatus) if status is None else [status]
        with self._table.translated():
            return list(islice(self._listed(statuses, queue, newest=True), limit))

    def export_jobs(self, batch: int = 1000) -> Iterator[list[Job]]:
        """Yield every job, oldest first, in batches. Only one batch is in memory."""
        with self._table.translated():
            jobs = self._listed(list(JobStatus), None, newest=False)
            while some := list(islice(jobs, batch)):
                yield some

    def _listed(self, statuses: Sequence[JobStatus], queue: str | None, *, newest: bool) -> Iterator[Job]:
        lanes = [self._table.of_status(str(status), newest=newest) for status in statuses]
        entries = heapq.merge(*lanes, key=lambda entry: str(entry["seq"]), reverse=newest)
        seen: set[str] = set()  # one that changes its status meanwhile may come twice
        while some := list(islice(entries, PAGE)):
            names = dict.fromkeys(entry["id"] for entry in some if queue in {None, entry["queue"]})
            new = [name for name in names if name not in seen]
            seen.update(new)
            found = {item["id"]: item for item in self._table.get_many(new)}
            for name in new:
                if name in found and found[name]["status"] in statuses:
                    yield stored_job(found[name])

    def _cancel(self, job_id: str, reason: str | None) -> bool | None:
        error: dict[str, Value | None] = {} if reason is None else {"error": reason}
        with self._table.translated():
            change = Change(to=finished("cancelled") | error, when={"status": ("pending", "running")})
            changed, found = self._table.change(job_id, change)
        return None if found is None else changed

    def _prune(self, older_than: timedelta, statuses: list[str], queues: list[str] | None, batch: int) -> int:
        # This reads the entries of all jobs of these statuses that were enqueued before the cutoff.
        before = utc_now() - older_than
        pruned = 0

        def is_old(entry: Item) -> bool:
            return entry.get("finished_at", "~") <= in_text(before) and (queues is None or entry["queue"] in queues)

        with self._table.translated():
            for status in statuses:
                old = filter(is_old, self._table.of_status(status, until=seq_text(place_of(before))))
                while some := list(islice(old, min(batch, PAGE))):
                    pruned += sum(self._table.each(self._delete, some))
        return pruned

    def _delete(self, entry: Item) -> bool:
        seen = {"status": entry["status"], "finished_at": entry["finished_at"]}
        return self._table.delete(entry["id"], Change(when=seen))

    def counts(self) -> dict[JobStatus, int]:
        """Return the number of jobs of each status. Every status has an entry. This reads a whole index."""
        with self._table.translated():
            return {status: self._table.count(str(status)) for status in JobStatus}

    def ping(self) -> None:
        """Connect, and create the tables. Raises StorageUnavailable, SchemaConflict or SchemaTooNew."""
        with self._table.translated():
            self._table.queues()

    def close(self) -> None:
        """Close every connection. Without leave(), held jobs stay running until the lease expires."""
        super().close()
        self._table.close()


def _is_start(item: Item, job: Job) -> bool:
    return (item["status"], item.get("claim")) == ("running", claim_of(job))
