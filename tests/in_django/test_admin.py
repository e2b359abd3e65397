"""Tests of the jobs in Django's admin."""

from __future__ import annotations

from helpers.django_project import Project

HEAD = """
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.test.utils import setup_test_environment
from pgjobq.django import enqueue, queue
setup_test_environment()
def client(name, *rights):
    user = User.objects.create_user(name, password="x", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=rights))
    made = Client(); made.force_login(user)
    return made
def act(client, action, *ids):
    page = client.post("/admin/pgjobq/job/", {"action": action, "_selected_action": ids}, follow=True)
    return page.status_code, [str(message) for message in page.context["messages"]]
"""


def test_list_and_detail(project: Project, driver: str) -> None:
    said = project.script(
        HEAD,
        """
        reader = client("reader", "view_job")
        job_id = enqueue("ping", {"a": "<b>"})
        page = reader.get("/admin/pgjobq/job/?status__exact=pending&q=ping").content.decode()
        print(job_id in page, "retry_jobs" in page)
        page = reader.get(f"/admin/pgjobq/job/{job_id}/change/").content.decode()
        print("ping" in page, "<b>" in page, 'name="_save"' in page, "Tries that did not succeed" in page)
        print(reader.get("/admin/pgjobq/job/add/").status_code, reader.get(f"/admin/pgjobq/job/{job_id}/delete/").status_code)
        print(client("nobody").get("/admin/pgjobq/job/").status_code)
        """,
        before=driver,
    )
    assert said == ["True False", "True False False True", "403 403", "403"]


def test_retry_and_cancel(project: Project, driver: str) -> None:
    said = project.script(
        HEAD,
        """
        editor = client("editor", "view_job", "change_job")
        one, two = enqueue("ping"), enqueue("ping")
        print(*act(editor, "cancel_jobs", one, two))
        print(queue.get_job(one).status, queue.get_job(one).error, queue.actions()[0]["reason"])
        print(*act(editor, "cancel_jobs", one))
        print(*act(editor, "retry_jobs", one))
        print(queue.get_job(one).status, queue.get_job(two).status)
        page = editor.get(f"/admin/pgjobq/job/{two}/change/").content.decode()
        print('name="_save"' in page, 'name="status"' in page)
        editor.post(f"/admin/pgjobq/job/{two}/change/", {"status": "completed"})
        print(queue.get_job(two).status)
        reader = client("reader", "view_job")
        act(reader, "retry_jobs", two)
        print(queue.get_job(two).status)
        """,
        before=driver,
    )
    assert said[0] == "200 ['2 jobs cancelled']"
    assert said[1].startswith("cancelled ")
    assert "by editor in the admin" in said[1]
    assert said[2] == f"200 ['{said[2].split(chr(39))[1]}']"
    assert "had ended already" in said[2]
    assert said[3:] == ["200 ['1 job retried']", "pending cancelled", "False False", "cancelled", "cancelled"]
