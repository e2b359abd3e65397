"""The worker: fetch, run, settle. Sees storages through BaseStorage alone."""

from pgjobq.worker.running import RunningJob
from pgjobq.worker.worker import Worker

__all__ = ["RunningJob", "Worker"]
