"""The jobs in Django's admin: to read, and to retry or cancel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html, format_html_join

from pgjobq.django.conf import current
from pgjobq.django.models import Job
from pgjobq.django.storage import current_queue
from pgjobq.errors import PgjobqError


@admin.register(Job)
class JobAdmin(admin.ModelAdmin):
    """Shows jobs. The SQL functions of pgjobq do every change; a user who may change jobs may retry and cancel them."""

    list_display = ("id", "type", "queue", "status", "priority", "attempts", "execute_at", "created_at")
    list_filter = ("status",)
    search_fields = ("id__exact", "type__exact")
    search_help_text = "An id or a type"
    show_full_result_count = False  # counting every job of a large table would be slow
    actions = ("retry_jobs", "cancel_jobs")

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return the jobs in the database of the setting PGJOBQ."""
        return super().get_queryset(request).using(current().database)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse: jobs are added by enqueue."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: jobs are deleted by `pgjobq prune`, and by workers with --keep."""
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Return all fields."""
        return [*(field.name for field in Job._meta.fields), "tries"]  # noqa: SLF001  # Django's documented API

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show a job, without the buttons that save."""
        hidden = {"show_save": False, "show_save_and_continue": False, "title": "Job"}
        page: HttpResponse = super().change_view(request, object_id, form_url, {**(extra_context or {}), **hidden})
        return page

    @admin.display(description="Tries that did not succeed")
    def tries(self, job: Any) -> str:
        """Show the tries of a job that did not succeed."""
        lines = (
            (attempt["attempt"], f"{attempt['ended_at']:%Y-%m-%d %H:%M:%S}", attempt["outcome"], attempt["error"] or "")
            for attempt in current_queue().attempts(job.pk)
        )
        shown: str = format_html_join("", "<p>{}, {}: {}</p><pre>{}</pre>", lines)
        return shown or format_html("{}", "none")

    @admin.action(description="Retry the selected jobs", permissions=["change"])
    def retry_jobs(self, request: HttpRequest, jobs: Any) -> None:
        """Run failed, cancelled and pending jobs again, now."""
        self._each(request, jobs, "retried", _retry)

    @admin.action(description="Cancel the selected jobs", permissions=["change"])
    def cancel_jobs(self, request: HttpRequest, jobs: Any) -> None:
        """Cancel pending and running jobs."""
        reason = f"by {request.user.get_username()} in the admin"
        self._each(request, jobs, "cancelled", lambda job_id: current_queue().cancel(job_id, reason))

    def _each(self, request: HttpRequest, jobs: Any, done: str, act: Callable[[str], bool]) -> None:
        changed = 0
        for job_id in list(jobs.values_list("pk", flat=True)):
            try:
                if act(job_id):
                    changed += 1
                else:
                    self.message_user(request, f"{job_id} had ended already", messages.WARNING)
            except PgjobqError as error:
                self.message_user(request, str(error), messages.ERROR)
        if changed:
            self.message_user(request, f"{changed} {'job' if changed == 1 else 'jobs'} {done}", messages.SUCCESS)


def _retry(job_id: str) -> bool:
    current_queue().retry(job_id)
    return True
