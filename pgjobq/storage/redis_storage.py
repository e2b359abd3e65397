"""RedisStorage: the storage on Redis and Valkey."""

from __future__ import annotations

import re
import time
import weakref
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import count
from typing import Any

from pgjobq.errors import ConfigurationError, StorageError
from pgjobq.events import EventLog
from pgjobq.models import Job, JobStatus, NewJob
from pgjobq.outcomes import Outcome
from pgjobq.storage.holds import Claimant
from pgjobq.storage.leased import POLL_MIN, LeasedStorage
from pgjobq.storage.redis.bell import Bell
from pgjobq.storage.redis.claiming import claim
from pgjobq.storage.redis.connection import MAX_REPLY, Client, Server
from pgjobq.storage.redis.enqueueing import add, take_in
from pgjobq.storage.redis.leases import Leases
from pgjobq.storage.redis.rows import delay_of, job_of, moment_of, text_of
from pgjobq.storage.redis.settling import settle

log = EventLog("pgjobq.storage")

PAGE = 500  # jobs that one script call lists or prunes


class RedisStorage(LeasedStorage):
    """Jobs in Redis >= 6.2 or Valkey, under keys that begin with {prefix}.

    Pass a URL (redis://, rediss://, unix://), or your own redis.Redis or RedisCluster. timeout: seconds to wait for an
    answer; socket_timeout in the URL overrides it. lease, poll_interval: see LeasedStorage.

    Every change is one Lua script, so it is atomic. Times come from the server's clock. An idle worker is woken when
    any process enqueues a job. If its subscription fails, it polls every poll_interval seconds. All keys contain the
    hash tag {prefix}, so they are in one slot of a cluster. Use a separate prefix for each JobQueue to spread them over
    a cluster. One call accepts at most 256 MB of data and 100,000 jobs.

    Limits of Redis: it keeps all jobs in memory, also finished ones, so prune them. With a maxmemory policy other than
    noeviction it deletes jobs when memory is short. It answers before a job is on disk: without appendonly, a crash
    loses everything since the last snapshot; with it, a crash loses a second or two (appendfsync everysec, the default)
    or nothing (appendfsync always, slower). A replica lags behind, so after a failover jobs may be missing, and
    completed jobs may run again. A handler cannot complete its job in its own transaction.
    """

    keeps_results = True

    def __init__(
        self,
        url: str | Client,
        *,
        prefix: str = "pgjobq",
        timeout: float = 10.0,
        lease: float = 30.0,
        poll_interval: float = 1.0,
    ) -> None:
        super().__init__(lease=lease, poll_interval=poll_interval)
        if not isinstance(prefix, str) or not re.fullmatch(r"[\w.:-]{1,64}", prefix, re.ASCII):
            raise ConfigurationError(f"prefix: {prefix!r} is not allowed; use 1 to 64 of a-z, A-Z, 0-9 and _ . : -")
        self._server = Server(url, prefix, timeout)
        self._leases = Leases(self._server, self.lease)
        self._numbers = count(1)  # numbers of claims, which take turns
        self._bell: Bell | None = None
        self._alarm = 0.0  # when the next scheduled job is due, by the monotonic clock

    def after_fork(self) -> None:
        """See LeasedStorage. The bell's thread exists only in the parent."""
        super().after_fork()
        self._bell = None

    # -- adding ---------------------------------------------------------------------------------------

    def _add(self, jobs: Sequence[NewJob]) -> None:
        add(self._server, jobs)

    def import_jobs(self, jobs: Sequence[Job]) -> int:
        """Add jobs with their state, all or none. Return how many were added. Leave jobs whose id exists unchanged."""
        return take_in(self._server, jobs)

    # -- working --------------------------------------------------------------------------------------

    def _dequeue(self, limit: int, queues: Sequence[str] | None) -> list[Job]:
        with self._claiming:
            if self._may_hold_unknown:  # a claim that is still on its way must not be executed any more
                self._server.call("fence", self._join(), next(self._numbers))
            return super()._dequeue(limit, queues)

    def _claim(
        self, worker_id: Claimant, limit: int, queues: Sequence[str] | None, except_types: Sequence[str]
    ) -> list[Job]:
        if limit < 1 or (queues is not None and not queues):
            return []
        bell = "" if self._bell is None else self._bell.name_if_heard
        turn: dict[str, Any] = {"number": next(self._numbers), "lease": self.lease, "bell": bell}
        jobs, next_due = claim(self._server, worker_id, limit, queues, except_types, **turn)
        # Only a claim that found nothing has registered the bell, so claim again soon after one that found jobs.
        pause = POLL_MIN if jobs else self.poll_interval if next_due is None else next_due
        self._alarm = time.monotonic() + pause
        return jobs

    def _settle(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        return settle(self._server, outcomes)

    def _put_back(self, job_id: str, delay: float) -> bool:
        return bool(self._server.call("put_back", job_id, delay_of(delay)))

    def _held_by(self, worker_id: int) -> list[Job]:
        # The jobs have no data, because no caller uses it.
        return [job_of(row) for row in self._server.call("held", worker_id)]

    # -- the lease ------------------------------------------------------------------------------------

    def _enlist(self, worker_id: int, name: str) -> None:
        self._leases.enlist(worker_id, name)

    def _renew(self, worker_id: int) -> bool:
        return self._leases.renew(worker_id)

    def _retire(self, worker_id: int) -> None:
        self._leases.retire(worker_id)

    def _rescue(self) -> int:
        return self._leases.rescue()

    # -- sleeping -------------------------------------------------------------------------------------

    def wait(self, timeout: float, queues: Sequence[str] | None = None) -> None:
        """Sleep until a job is enqueued or due, or until wake(), at most poll_interval seconds."""
        if self._bell is None:
            self._bell = Bell(self._server, self._woken.set)
            self._bell.start()
            weakref.finalize(self, self._bell.stop)
        until_due = max(self._alarm - time.monotonic(), 0.0)
        if not self._bell.name_if_heard:
            super().wait(min(timeout, max(until_due, 0.001)), queues)
            return
        self._woken.wait(min(timeout, until_due, self.poll_interval))
        self._woken.clear()

    def close(self) -> None:
        """Close this object's own connections. Without leave(), held jobs stay running until the lease expires."""
        super().close()
        bell, self._bell = self._bell, None
        if bell is not None:
            bell.stop()
        self._server.close()

    # -- reading and maintenance ----------------------------------------------------------------------

    def _get(self, job_id: str) -> Job | None:
        row = self._server.call("get", job_id)
        return None if row is None else job_of(row)

    def _list(self, status: JobStatus | None, limit: int | None, queue: str | None) -> list[Job]:
        jobs: list[Job] = []
        for page in self._pages("newest", limit, str(status or ""), queue or ""):
            jobs += page
            if limit is not None and len(jobs) >= limit:
                break
        return jobs[:limit]

    def export_jobs(self, batch: int = 1000) -> Iterator[list[Job]]:
        """Yield every job, oldest first, in batches. Only one batch is in memory."""
        jobs: list[Job] = []
        for page in self._pages("oldest", None, "", ""):
            jobs += page
            while len(jobs) >= batch:
                yield jobs[:batch]
                jobs = jobs[batch:]
        if jobs:
            yield jobs

    def _pages(self, order: str, limit: int | None, status: str, queue: str) -> Iterator[list[Job]]:
        size = PAGE if limit is None else min(limit, PAGE)
        cursor = "" if size else None
        while cursor is not None:
            following, *rows = self._server.call("list", size, MAX_REPLY, order, cursor, status, queue)
            yield [job_of(row) for row in rows]
            cursor = following or None

    def _cancel(self, job_id: str, reason: str | None) -> bool | None:
        done = int(self._server.call("cancel", job_id, reason or ""))
        return None if done < 0 else done == 1

    def _prune(self, older_than: timedelta, statuses: list[str], queues: list[str] | None, batch: int) -> int:
        age, at_once = delay_of(older_than.total_seconds()), min(batch, PAGE)
        there = [row[0] for row in self._counted()]
        served = [queue for queue in there if queues is None or queue in queues]
        return sum(self._prune_one(status, queue, age, at_once) for status in statuses for queue in served)

    def _prune_one(self, status: str, queue: str, age: int, at_once: int) -> int:
        pruned = kept = 0
        seen = at_once
        while seen == at_once:
            seen, deleted = map(int, self._server.call("prune", status, queue, age, at_once, kept))
            pruned += deleted
            kept += seen - deleted
        return pruned

    def counts(self) -> dict[JobStatus, int]:
        """Return the exact number of jobs of each status. Every status has an entry."""
        found = dict.fromkeys(JobStatus, 0)
        for row in self._counted():
            for status, jobs in zip(JobStatus, row[1:6], strict=True):
                found[status] += int(jobs)
        return found

    def stats(self) -> list[dict[str, Any]]:
        """Return the number of jobs by queue and status; see BaseStorage."""
        return [
            {
                "queue": queue,
                "status": str(status),
                "jobs": int(jobs),
                "estimated": False,
                "oldest_due_age": int(due_for) / 1e6 if due_for and status is JobStatus.PENDING else None,
            }
            for queue, *numbers, due_for in sorted(self._counted())
            for status, jobs in zip(JobStatus, numbers, strict=True)
            if int(jobs)
        ]

    def _counted(self) -> list[list[str]]:
        return [text_of(row).split("\0") for row in self._server.call("counts")]

    def workers(self) -> list[dict[str, Any]]:
        """Return the registered workers; see BaseStorage. queues and asleep are unknown, so they are None."""
        rows = [text_of(row).split("\0") for row in self._server.call("workers")]
        return [
            {
                "id": int(worker),
                "name": name,
                "queues": None,
                "started_at": moment_of(started),
                "alive": alive == "1",
                "asleep": None,
                "running": int(running),
            }
            for worker, name, started, alive, running in rows
        ]

    def ping(self) -> None:
        """Connect, and check that the server can store jobs. Raises StorageUnavailable or StorageError."""
        self._server.call("renew", 0, 0)
        with self._server.translated():
            told = dict(line.split(":", 1) for line in text_of(self._server.execute("INFO")).split() if ":" in line)
        version = told.get("redis_version", "")
        if re.match(r"[0-5]\.|6\.[01]\.", version):
            raise StorageError(f"Redis at {self._server.name} has version {version}; use 6.2 or later")
        if told.get("maxmemory", "0") != "0" and (policy := told.get("maxmemory_policy", "")).startswith("allkeys"):
            log.warning("redis.evicts", extra={"maxmemory_policy": policy, "needed": "noeviction"})
