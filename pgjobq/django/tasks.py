"""The backend of Django's Tasks API: TASKS = {"default": {"BACKEND": "pgjobq.django.tasks.PgjobqBackend"}}.

A task is a job whose type is the path of the task's function, and whose data has the keys args and kwargs.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from asgiref.sync import sync_to_async
from django.utils import timezone
from django.utils.module_loading import import_string

from pgjobq.django.storage import current_queue
from pgjobq.django.task_results import new_result, result_of
from pgjobq.django.task_running import handler_of
from pgjobq.django.tasks_api import BaseTaskBackend, api, signals
from pgjobq.errors import InvalidJob
from pgjobq.handlers import Registry, default_registry
from pgjobq.models import Job

DEFAULT_PRIORITY = 5  # of a job; a task's priorities are counted from 0


class PgjobqBackend(BaseTaskBackend):
    """Enqueues tasks on Django's connection, so that a task exists once the transaction of the request commits.

    OPTIONS: max_retries, 3 by default, is how often a task that raised is tried again.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    registry: Registry = default_registry

    def validate_task(self, task: Any) -> None:
        """Check a task when it is declared, and make its function the handler of its jobs.

        A worker therefore knows the tasks of every module that it has imported.
        """
        super().validate_task(task)
        if task.module_path not in self.registry:
            max_retries = self.options.get("max_retries", 3)
            self.registry.register(handler_of(task, type(self), max_retries))

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Add a job in the current transaction. Sends task_enqueued at once, even if the transaction rolls back later.

        Raises InvalidTask for a task or arguments that cannot be stored, and TypeError for those that JSON cannot hold.
        """
        self.validate_task(task)
        result = new_result(task, args, kwargs, self.alias)
        try:
            job_id = current_queue().enqueue(
                task.module_path,
                {"args": result.args, "kwargs": result.kwargs, "backend": self.alias},
                priority=DEFAULT_PRIORITY + task.priority,
                execute_at=_aware(task.run_after),
                queue=task.queue_name,
                max_retries=self.options.get("max_retries", 3),
                job_id=result.id,
            )
        except InvalidJob as error:
            raise api.InvalidTask(str(error)) from error
        assert job_id == result.id
        object.__setattr__(result, "enqueued_at", timezone.now())
        signals.task_enqueued.send(type(self), task_result=result)
        return result

    async def aenqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Do what enqueue does in async code, in the thread in which Django's async ORM works."""
        return await sync_to_async(self.enqueue)(task, args, kwargs)

    def get_result(self, result_id: str) -> Any:
        """Return the state of a task's job. Raises TaskResultDoesNotExist if there is no such job, or it is no task's.

        A cancelled job is FAILED. A job that raised and will be tried again is READY, and has errors.
        """
        queue = current_queue()
        job = queue.get_job(result_id) if isinstance(result_id, str) and result_id else None
        task = None if job is None else self._task_of(job)
        if job is None or task is None:
            raise api.TaskResultDoesNotExist(result_id)
        return result_of(job, task, queue.attempts(job.id), self.alias)

    async def aget_result(self, result_id: str) -> Any:
        """Do what get_result does in async code."""
        return await sync_to_async(self.get_result)(result_id)

    def _task_of(self, job: Job) -> Any:
        """Return the task of a job as it was enqueued; None if the job is no task's."""
        try:
            task = import_string(job.type)
        except (ImportError, ValueError):
            return None
        if not isinstance(task, api.Task) or job.data.keys() != {"args", "kwargs", "backend"}:
            return None
        try:
            priority = max(-100, min(job.priority - DEFAULT_PRIORITY, 100))
            return task.using(priority=priority, queue_name=job.queue, backend=self.alias)
        except api.InvalidTask:  # its queue was taken from the settings meanwhile
            return task


def _aware(moment: datetime | None) -> datetime | None:
    """Return a moment with a time zone, which it may lack if USE_TZ is False."""
    return timezone.make_aware(moment) if moment is not None and timezone.is_naive(moment) else moment
