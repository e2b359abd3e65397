"""Tests of pgjobq.django.queue: jobs commit, or roll back, with the transaction of Django's connection."""

from __future__ import annotations

from helpers.django_project import Project


def test_request_that_fails_leaves_no_job(project: Project, driver: str) -> None:
    said = project.script(
        """
        from django.db import connection
        from django.test import Client
        from pgjobq.django import queue
        from shop.models import Order
        client = Client(raise_request_exception=False)
        print(client.get("/order/bob?fail=1").status_code, len(queue.list_jobs()), Order.objects.count())
        print(client.get("/order/ann").status_code, len(queue.list_jobs()), Order.objects.count())
        print(type(connection.connection).__module__.split(".")[0])
        """,
        before=driver,
    )
    assert said == ["500 0 0", "200 1 1", "psycopg2" if driver else "psycopg"]


def test_everything_of_the_queue_is_in_the_transaction(project: Project, driver: str) -> None:
    said = project.script(
        """
        from django.db import transaction
        from pgjobq.django import enqueue, queue
        kept = enqueue("ping", {"a": [1, "é"]}, priority=9, delay=60, unique_key="k")
        class Undone(Exception): pass
        try:
            with transaction.atomic():
                assert enqueue("ping", unique_key="k").outcome != "added"
                new = enqueue("pong")
                assert [job.type for job in queue.list_jobs("pending", 5)] == ["pong", "ping"]
                assert queue.get_job(new).created_at.tzinfo is not None
                assert queue.cancel(kept, "because") is True
                queue.retry(kept)
                queue.pause_queue("mail")
                assert queue.counts()["pending"] == 2 and queue.attempts(kept) == []
                raise Undone
        except Undone:
            pass
        job = queue.get_job(kept)
        print(len(queue.list_jobs()), job.status, job.priority, job.data, job.execute_at > job.created_at, queue.pauses())
        """,
        before=driver,
    )
    assert said == ["1 pending 9 {'a': [1, 'é']} True []"]


def test_errors_are_those_of_pgjobq(project: Project, driver: str) -> None:
    said = project.script(
        """
        from django.db import connection, transaction
        from pgjobq.django import enqueue, queue
        from pgjobq import PgjobqError
        def refused(act):
            try:
                with transaction.atomic():
                    act()
            except PgjobqError as error:
                print(type(error).__name__, str(error).split(";")[0])
        enqueue("ping", job_id="x")
        refused(lambda: enqueue("ping", job_id="x"))
        refused(lambda: enqueue("ping", priority="high"))
        refused(lambda: queue.retry("nowhere"))
        refused(lambda: queue.storage.dequeue())
        refused(lambda: (connection.cursor().execute("drop schema pgjobq cascade"), queue.get_job("x")))
        """,
        before=driver,
    )
    kinds = [line.split()[0] for line in said]
    assert kinds == ["DuplicateJob", "InvalidJob", "JobNotFound", "Unsupported", "NotMigrated"], said


def test_lost_connection_is_replaced_by_django(project: Project, driver: str) -> None:
    said = project.script(
        """
        from django.db import close_old_connections, connection
        import psycopg, os
        from pgjobq import StorageUnavailable
        from pgjobq.django import enqueue
        enqueue("ping")
        with connection.cursor() as cursor:
            cursor.execute("select pg_backend_pid()")
            pid, = cursor.fetchone()
        with psycopg.connect(autocommit=True) as other:
            other.execute("select pg_terminate_backend(%s, 5000)", [pid])
        try:
            enqueue("ping")
        except StorageUnavailable:
            print("away")
        close_old_connections()
        print(enqueue("ping") != "")
        """,
        before=driver,
    )
    assert said == ["away", "True"]


def test_test_case_rolls_back_and_sees_its_jobs(project: Project) -> None:
    (project.folder / "test_shop.py").write_text(
        """
from django.test import TestCase
from pgjobq.django import queue

class Orders(TestCase):
    def test_one(self):
        self.client.get("/order/ann")
        self.assertEqual([job.type for job in queue.list_jobs()], ["write_invoice"])

    def test_two(self):
        self.assertEqual(queue.list_jobs(), [])
        self.client.get("/order/ann")
"""
    )
    assert "OK" in project.manage("test", "--noinput", str(project.folder))


def test_async(project: Project) -> None:
    said = project.script(
        """
        import asyncio
        from asgiref.sync import sync_to_async
        from django.db import transaction
        from pgjobq.django import aenqueue, queue
        async def main():
            job_id = await aenqueue("ping")
            job = await queue.get_job_async(job_id)
            jobs = await queue.list_jobs_async("pending")
            cancelled = await queue.cancel_async(job_id)
            await queue.retry_async(job_id)
            print(job.type, len(jobs), cancelled, await sync_to_async(lambda: queue.get_job(job_id).status)())
        asyncio.run(main())
        """
    )
    assert said == ["ping 1 True pending"]


def test_naive_times_of_a_project_without_time_zones(project: Project, driver: str) -> None:
    project.settings('USE_TZ = False; TIME_ZONE = "Asia/Tokyo"')
    said = project.script(
        """
        from datetime import UTC, datetime, timedelta
        from pgjobq.django import enqueue, queue
        job = queue.get_job(enqueue("ping"))
        print(abs(job.created_at - datetime.now(UTC)) < timedelta(minutes=5), job.created_at.tzinfo)
        """,
        before=driver,
    )
    assert said == ["True UTC"]
