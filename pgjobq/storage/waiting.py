"""Waiting until jobs have ended, by looking at them again and again. Every storage can do that."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence

from pgjobq.awaited import Awaited
from pgjobq.models import Job


class Waits(ABC):
    """The part of BaseStorage that waits. A storage whose database notifies overrides it."""

    keeps_results = False  # whether the jobs that it completes keep their results

    @abstractmethod
    def get_job(self, job_id: str) -> Job | None:
        """Return the job with this id, or None."""

    def wait_for_many(self, ids: Sequence[str], timeout: float) -> list[Job]:
        """Wait until these jobs have ended, and return them in this order; at most timeout seconds.

        A job ends when it is completed, failed or cancelled. Raises JobNotFound for an id that does not exist, also if
        it is deleted meanwhile, and WaitTimeout if the time is over.
        """
        awaited = Awaited(ids, timeout)
        while self._look(awaited):
            time.sleep(awaited.pause())
        return awaited.jobs

    async def wait_for_many_async(self, ids: Sequence[str], timeout: float) -> list[Job]:  # noqa: ASYNC109
        """Do what wait_for_many does, without blocking the event loop; a thread is used only while it looks."""
        import asyncio  # imported here, because `import pgjobq` does not need it

        awaited = Awaited(ids, timeout)
        while await asyncio.to_thread(self._look, awaited):  # noqa: ASYNC110  # there is no event: it polls
            await asyncio.sleep(awaited.pause())
        return awaited.jobs

    def _look(self, awaited: Awaited) -> bool:
        """Look at the jobs that have not ended. Return whether there are still any."""
        for job_id in awaited.waiting:
            awaited.found(job_id, self.get_job(job_id))
        return bool(awaited.waiting)
