"""Waiting for jobs on a PostgresStorage: notified of their ends, or by looking if it has no direct connection."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, wait

from pgjobq.awaited import Awaited, no_such_job
from pgjobq.checks import is_name
from pgjobq.errors import StorageUnavailable
from pgjobq.models import MAX_NAME, Job
from pgjobq.postgres.database import Database
from pgjobq.postgres.wait_calls import WaitCalls
from pgjobq.postgres.waiting import Waiting
from pgjobq.storage.waiting import Waits


class PostgresWaits(Waits):
    """The part of PostgresStorage that waits. All waits of a storage share a connection."""

    keeps_results = True
    _database: Database
    _wait_calls: WaitCalls
    _waiting: Waiting | None  # None behind a transaction pooler, where no session can listen

    def wait_for_many(self, ids: Sequence[str], timeout: float) -> list[Job]:
        """Wait until these jobs have ended, and return them in this order; at most timeout seconds.

        While the database is away, this waits on. Raises JobNotFound for an id that does not exist, also if the job is
        deleted meanwhile, and WaitTimeout if the time is over.
        """
        if self._waiting is None:
            return super().wait_for_many(ids, timeout)
        awaited = self._awaited(ids, timeout)
        wanted = awaited.waiting
        self._database.open()
        futures = self._waiting.expect(wanted)
        try:
            done, _ = wait(futures, timeout=awaited.left, return_when=FIRST_EXCEPTION)
            for job_id, future in zip(wanted, futures, strict=True):
                if future in done:
                    awaited.found(job_id, future.result())
        finally:
            self._waiting.forget(wanted, futures)
        if awaited.waiting and (trouble := self._last_look(awaited)) is not None:
            raise awaited.timed_out(trouble)
        return awaited.jobs

    async def wait_for_many_async(self, ids: Sequence[str], timeout: float) -> list[Job]:  # noqa: ASYNC109
        """Do what wait_for_many does, without blocking the event loop, and without a thread for each wait."""
        if self._waiting is None:
            return await super().wait_for_many_async(ids, timeout)
        awaited = self._awaited(ids, timeout)
        wanted = awaited.waiting
        await asyncio.to_thread(self._database.open)
        futures = self._waiting.expect(wanted)
        try:
            if futures:
                tasks = {asyncio.wrap_future(future): job_id for job_id, future in zip(wanted, futures, strict=True)}
                done, _ = await asyncio.wait(tasks, timeout=awaited.left, return_when=asyncio.FIRST_EXCEPTION)
                for task in done:
                    awaited.found(tasks[task], task.result())
        finally:
            self._waiting.forget(wanted, futures)
        if awaited.waiting and (trouble := await asyncio.to_thread(self._last_look, awaited)) is not None:
            raise awaited.timed_out(trouble)
        return awaited.jobs

    def _awaited(self, ids: Sequence[str], timeout: float) -> Awaited:
        awaited = Awaited(ids, timeout)
        for job_id in awaited.ids:
            if not is_name("job_id", job_id, MAX_NAME):  # a driver would raise errors of its own
                raise no_such_job(job_id)
        return awaited

    def _last_look(self, awaited: Awaited) -> str | None:
        """Look once more when the time is over. Return why some jobs are not known to have ended, or None."""
        try:
            for job_id, job in self._database.run(self._wait_calls.ended_jobs(awaited.waiting)).items():
                awaited.found(job_id, job)
        except StorageUnavailable as error:
            return f"; {error}"
        return "" if awaited.waiting else None
