"""The worker: it fetches, runs and settles jobs. It knows storages only through BaseStorage.

Worker is imported when it is first used, because modules of handlers need only RunningJob.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgjobq.worker.running import RunningJob

if TYPE_CHECKING:
    from pgjobq.worker.worker import Worker

__all__ = ["RunningJob", "Worker"]


def __getattr__(name: str) -> Any:
    if name != "Worker":
        raise AttributeError(f"module 'pgjobq.worker' has no attribute {name!r}")
    from pgjobq.worker.worker import Worker

    return Worker
