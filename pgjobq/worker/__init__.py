"""The worker: it fetches, runs and settles jobs. It knows storages only through BaseStorage."""

from pgjobq.worker.running import RunningJob
from pgjobq.worker.worker import Worker

__all__ = ["RunningJob", "Worker"]
