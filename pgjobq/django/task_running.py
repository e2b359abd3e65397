"""Run tasks as jobs: the handler of a task, and its signals."""

from __future__ import annotations

import inspect
from typing import Any

from asgiref.sync import sync_to_async
from django.utils import timezone

from pgjobq.django.storage import current_queue
from pgjobq.django.task_results import error_of, result_of
from pgjobq.django.tasks_api import api, signals
from pgjobq.errors import BadArguments, Fail, Snooze
from pgjobq.handlers import Handler
from pgjobq.models import Job


def handler_of(task: Any, sender: type, max_retries: int) -> Handler:
    """Return the handler for the jobs of a task. sender: the backend's class, for the signals."""

    async def run_async(data: dict[str, Any], job: Job) -> Any:
        result = await sync_to_async(_start)(task, sender, data, job)
        try:
            value = await task.func(*_arguments(task, result), **result.kwargs)
        except Exception as error:
            await sync_to_async(_fail)(result, sender, job, error)
            raise
        await sync_to_async(_succeed)(result, sender, value)
        return value

    def run(data: dict[str, Any], job: Job) -> Any:
        result = _start(task, sender, data, job)
        try:
            value = task.func(*_arguments(task, result), **result.kwargs)
        except Exception as error:
            _fail(result, sender, job, error)
            raise
        _succeed(result, sender, value)
        return value

    function: Any = run_async if inspect.iscoroutinefunction(task.func) else run
    for name in ("__module__", "__name__", "__qualname__"):  # for messages
        setattr(function, name, getattr(task.func, name))
    return Handler(type=task.module_path, function=function, max_retries=max_retries)


def _start(task: Any, sender: type, data: dict[str, Any], job: Job) -> Any:
    if not (isinstance(data.get("args"), list) and isinstance(data.get("kwargs"), dict)):
        raise BadArguments(
            "data: a task's job has args, a list, and kwargs, an object; enqueue it by task.enqueue(...)"
        )
    attempts = current_queue().attempts(job.id) if job.attempts > 1 else []
    result = result_of(job, task, attempts, task.backend)
    signals.task_started.send(sender, task_result=result)
    return result


def _arguments(task: Any, result: Any) -> list[Any]:
    return [api.TaskContext(task_result=result), *result.args] if task.takes_context else result.args


def _succeed(result: Any, sender: type, value: Any) -> None:
    object.__setattr__(result, "_return_value", value)
    _finish(result, sender, "SUCCESSFUL")


def _fail(result: Any, sender: type, job: Job, error: Exception) -> None:
    """Send task_finished, unless the job will be tried again. A try that only asks for another is no error."""
    if isinstance(error, Snooze):
        return
    result.errors.append(error_of(error))
    if isinstance(error, Fail) or (job.tries > job.max_retries):
        _finish(result, sender, "FAILED")


def _finish(result: Any, sender: type, status: str) -> None:
    object.__setattr__(result, "status", api.TaskResultStatus[status])
    object.__setattr__(result, "finished_at", timezone.now())
    signals.task_finished.send(sender, task_result=result)
