"""pgjobq in a Django project: 'pgjobq.django' in INSTALLED_APPS. See docs/howto/django.md.

`queue` is a JobQueue on Django's own connection: what is enqueued there commits, or rolls back, with the request.
"""

from __future__ import annotations

from typing import Any, Unpack, cast

from django.utils.functional import SimpleLazyObject

from pgjobq.django.storage import DjangoQueue, current_queue
from pgjobq.ids import JobId
from pgjobq.options import JobOptions, JobType

__all__ = ["DjangoQueue", "aenqueue", "enqueue", "queue"]

# It follows the settings, which a test may override, so it is looked up at each use.
queue = cast("DjangoQueue", SimpleLazyObject(current_queue))


def enqueue(job: JobType, data: dict[str, Any] | None = None, **options: Unpack[JobOptions]) -> JobId:
    """Add a job in the current transaction of Django's connection, and return its id. See JobQueue.enqueue."""
    return current_queue().enqueue(job, data, **options)


async def aenqueue(job: JobType, data: dict[str, Any] | None = None, **options: Unpack[JobOptions]) -> JobId:
    """Do what enqueue does in async code, on the connection that Django's async ORM uses there."""
    return await current_queue().enqueue_async(job, data, **options)
