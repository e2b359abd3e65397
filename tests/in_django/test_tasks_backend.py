"""Tests of the backend of Django's Tasks API: django.tasks, or its backport django-tasks for Django 5.2."""

from __future__ import annotations

import pytest
from helpers.django_project import Project

HEAD = """
from pgjobq.django.tasks_api import api, signals
from pgjobq.django.tasks import PgjobqBackend
from pgjobq.django import queue
from shop import tasks
"""
RUN = """
from pgjobq import Worker, open_storage
from pgjobq.django.conf import conninfo
from pgjobq.handlers import default_registry
from django.db import connection
import threading, time
def left():
    return [j for s in ("pending", "running") for j in queue.list_jobs(s) if s == "running" or not j.error]
def run():
    storage = open_storage(conninfo("default"))
    worker = Worker(storage, registry=default_registry)
    def stop():
        deadline = time.monotonic() + 20
        while left() and time.monotonic() < deadline:
            time.sleep(0.02)
        worker.ask_to_stop()
        connection.close()
    thread = threading.Thread(target=stop)
    thread.start()
    worker.run()
    thread.join()
    storage.close()
"""


def test_tasks_run_and_have_results(project: Project) -> None:
    said = project.script(
        HEAD + RUN,
        """
        from shop.models import Order
        Order.objects.create(customer="ann")
        greeted, counted = tasks.greet.enqueue(1, word="Hi"), tasks.count.enqueue()
        print(greeted.status, greeted.enqueued_at is not None, greeted.worker_ids, greeted.args, greeted.kwargs)
        try:
            greeted.return_value
        except ValueError as error:
            print(error)
        run()
        greeted.refresh(); counted.refresh()
        print(greeted.status, greeted.return_value, counted.return_value, greeted.errors, len(greeted.worker_ids))
        print(greeted.enqueued_at <= greeted.started_at <= greeted.finished_at, greeted.task == tasks.greet)
        print(tasks.greet.get_result(greeted.id).is_finished)
        """,
    )
    assert said == [
        "READY True [] [1] {'word': 'Hi'}",
        "Task has not finished yet",
        "SUCCESSFUL Hi, ann 1 [] 1",
        "True True",
        "True",
    ]


def test_task_that_raises_is_tried_again_and_then_failed(project: Project) -> None:
    project.settings("TASKS['default']['OPTIONS'] = {'max_retries': 1}")
    said = project.script(
        HEAD + RUN,
        """
        seen = []
        signals.task_enqueued.connect(lambda sender, task_result, **_: seen.append(("enqueued", sender is PgjobqBackend)), weak=False)
        signals.task_started.connect(lambda task_result, **_: seen.append(("started", task_result.attempts)), weak=False)
        signals.task_finished.connect(lambda task_result, **_: seen.append(("finished", str(task_result.status), len(task_result.errors))), weak=False)
        result = tasks.stumble.enqueue()
        run()
        result.refresh()
        print(result.status, [(e.exception_class, e.traceback.splitlines()[0]) for e in result.errors])
        queue.edit_job(result.id, execute_at=queue.get_job(result.id).created_at)
        with connection.cursor() as cursor:
            cursor.execute("update pgjobq.jobs set error = null")
        run()
        result.refresh()
        print(result.status, result.attempts, [e.traceback.splitlines()[0] for e in result.errors], result.finished_at is not None)
        for line in seen:
            print(*line)
        """,
    )
    assert said == [
        "READY [(<class 'LookupError'>, 'LookupError: attempt 1')]",
        "FAILED 2 ['LookupError: attempt 1', 'LookupError: attempt 2'] True",
        "enqueued True",
        "started 1",
        "started 2",
        "finished FAILED 2",
    ]


def test_options_of_a_task(project: Project) -> None:
    said = project.script(
        HEAD,
        """
        from datetime import timedelta
        from django.utils import timezone
        later = timezone.now() + timedelta(hours=1)
        result = tasks.count.using(priority=100, queue_name="mail", run_after=later).enqueue()
        job = queue.get_job(result.id)
        print(job.type, job.queue, job.priority, job.execute_at == later, job.data)
        back = PgjobqBackend.get_result(tasks.count.get_backend(), result.id)
        print(back.task.priority, back.task.queue_name, back.status)
        backend = tasks.count.get_backend()
        print(backend.supports_defer, backend.supports_async_task, backend.supports_get_result, backend.supports_priority)
        queue.cancel(result.id)
        result.refresh()
        print(result.status, [e.exception_class_path for e in result.errors])
        """,
    )
    assert said == [
        "shop.tasks.count mail 105 True {'args': [], 'kwargs': {}, 'backend': 'default'}",
        "100 mail READY",
        "True True True True",
        "FAILED ['pgjobq.errors.Cancelled']",
    ]


def test_mistakes_raise_the_errors_of_the_api(project: Project) -> None:
    said = project.script(
        HEAD,
        """
        def refused(act):
            try:
                act()
            except Exception as error:
                print(type(error) in (api.InvalidTask, api.TaskResultDoesNotExist), type(error).__name__)
        refused(lambda: tasks.count.using(queue_name="nowhere"))
        refused(lambda: tasks.count.using(priority=101))
        refused(lambda: tasks.greet.enqueue("a\\x00b"))
        refused(lambda: tasks.greet.enqueue(object()))
        refused(lambda: tasks.count.get_result("nowhere"))
        refused(lambda: tasks.count.get_result(queue.enqueue("ping")))
        refused(lambda: tasks.greet.get_result(tasks.count.enqueue().id))
        """,
    )
    assert [line.split()[0] for line in said] == ["True", "True", "True", "False", "True", "True", "False"], said
    assert said[3] == "False TypeError"
    assert said[6] == "False TaskResultMismatch"


def test_task_commits_with_the_request(project: Project, driver: str) -> None:
    said = project.script(
        HEAD,
        """
        import asyncio
        from django.db import transaction
        class Undone(Exception): pass
        try:
            with transaction.atomic():
                result = tasks.count.enqueue()
                print(tasks.count.get_result(result.id).status)
                raise Undone
        except Undone:
            pass
        print(len(queue.list_jobs()))
        async def main():
            result = await tasks.count.aenqueue()
            print((await tasks.count.aget_result(result.id)).status)
        asyncio.run(main())
        """,
        before=driver,
    )
    assert said == ["READY", "0", "READY"]


@pytest.mark.parametrize(("options", "said"), [("{'max_tries': 1}", "E004"), ("{'max_retries': -1}", "E005")])
def test_options_of_the_backend_are_checked(project: Project, options: str, said: str) -> None:
    project.settings(f"TASKS['default']['OPTIONS'] = {options}")
    done = project.call(str(project.manage_py), "check")
    assert f"pgjobq.{said}" in done.stderr, done.stderr
