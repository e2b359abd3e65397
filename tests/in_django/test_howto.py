"""Test that the code of docs/howto/django.md runs in a project, in the order of the page."""

from __future__ import annotations

import re
import shlex
import shutil

from helpers.django_project import EXAMPLE, ROOT, Project
from helpers.until import until

PAGE = ROOT / "docs" / "howto" / "django.md"
FENCE = re.compile(r'^```(\w+)(?: title="([^"]*)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def test_blocks_of_the_page(bare_project: Project) -> None:
    project, folder = bare_project, bare_project.folder / "project"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    settings = folder / "shop" / "settings.py"
    settings.write_text(settings.read_text().replace('    "pgjobq.django",\n', ""))
    blocks = FENCE.findall(PAGE.read_text())
    fragments = "".join(text for _, title, text in blocks if title == "shop/settings.py")
    settings.write_text(settings.read_text().split("PGJOBQ =")[0] + fragments)
    for language, title, text in blocks:
        if language == "python" and title != "shop/settings.py":
            (folder / title).write_text(text)
    project.env["PYTHONPATH"], project.manage_py = str(folder), folder / "manage.py"
    for line in "".join(text for language, _, text in blocks if language == "sh").splitlines():
        words = shlex.split(line)
        if words[:2] == ["python", "manage.py"] and "worker" in words:
            ids = project.script(
                """
                from django.test import Client
                from pgjobq.django import enqueue
                from shop.greeting import greet_later
                print(Client().get("/order/ann").json()["job"])
                print(greet_later(1)); print(enqueue("report")); print(enqueue("count_orders"))
                """
            )
            project.start(str(project.manage_py), *words[2:])

            def statuses(ids: list[str] = ids) -> list[str]:
                said = project.script(
                    "from pgjobq.django import queue", f"print([queue.get_job(i).status for i in {ids}])"
                )
                return said[0].split(",")

            assert until(lambda: all("completed" in status for status in statuses()), 30), project.log()
            project.stop()
        elif words[:2] == ["python", "manage.py"]:
            project.manage(*words[2:])
        else:
            assert words[:2] == ["pip", "install"], line
