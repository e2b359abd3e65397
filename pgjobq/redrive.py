"""Redrive: which failed jobs to retry, and how."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pgjobq.checks import check_execute_at, check_moment, check_name, check_reason, check_whole_number
from pgjobq.encoding import encode_data
from pgjobq.errors import MAX_DELAY, InvalidJob
from pgjobq.models import MAX_NAME, Job, JobStatus


@dataclass(frozen=True, kw_only=True)
class Redrive:
    """The failed jobs that match all that is given, which must be something; and how to retry them.

    spread: seconds over which the jobs are due evenly, beginning at starting_at (None: now). data_patch: the keys of
    data to replace. dry_run: only count them. reason: kept with the action. Checked when it is made; InvalidJob names
    the field.
    """

    queue: str | None = None
    type: str | None = None
    fingerprint: str | None = None
    failed_since: datetime | None = None
    failed_until: datetime | None = None
    max_jobs: int | None = None
    spread: float = 0.0
    starting_at: datetime | None = None
    data_patch: dict[str, Any] | None = None
    dry_run: bool = False
    reason: str | None = None

    def __post_init__(self) -> None:
        if (self.queue, self.type, self.fingerprint, self.failed_since, self.failed_until) == (None,) * 5:
            text = "queue: say which failed jobs; give a queue, a type, a fingerprint, failed_since or failed_until"
            raise InvalidJob(text, field="queue")
        for name, what in (("queue", "the name of a queue"), ("type", "the name of a handler")):
            if getattr(self, name) is not None:
                check_name(name, getattr(self, name), what, MAX_NAME)
        if self.fingerprint is not None:
            check_name("fingerprint", self.fingerprint, "a fingerprint, as failures() shows it", MAX_NAME)
        check_moment("failed_since", self.failed_since)
        check_moment("failed_until", self.failed_until)
        if self.max_jobs is not None:
            check_whole_number("max_jobs", self.max_jobs, 1, 2**31 - 1)
        spread: Any = self.spread
        if not isinstance(spread, int | float) or isinstance(spread, bool) or not 0 <= spread <= MAX_DELAY:
            text = f"spread: {spread!r} is not allowed; use seconds from 0 to {MAX_DELAY:.0f}"
            raise InvalidJob(text, field="spread")
        check_execute_at(self.starting_at, "starting_at")
        if self.data_patch is not None:
            check_patch(self.data_patch, "data_patch")
        check_reason(self.reason)

    def matches(self, job: Job) -> bool:
        """Whether the job is one of them, by everything but its fingerprint."""
        failed_at = job.failed_at
        return (
            job.status is JobStatus.FAILED
            and self.queue in {None, job.queue}
            and self.type in {None, job.type}
            and (self.failed_since is None or (failed_at is not None and failed_at >= self.failed_since))
            and (self.failed_until is None or (failed_at is not None and failed_at < self.failed_until))
        )


def check_patch(data: object, field: str) -> str:
    """Return the data as JSON. Raises InvalidJob with the name of the field."""
    try:
        return encode_data(data)
    except InvalidJob as error:
        raise InvalidJob(field + str(error).removeprefix("data"), field=field) from None


def check_changes(changes: dict[str, Any]) -> dict[str, Any]:
    """Return the changes of edit_job that are given, with data as JSON. Raises InvalidJob if there are none."""
    given = {name: value for name, value in changes.items() if value is not None}
    if not given:
        raise InvalidJob(f"data: nothing to change; give {', '.join(changes)}", field="data")
    if "data" in given:
        given["data"] = encode_data(given["data"])
    if "queue" in given:
        check_name("queue", given["queue"], "the name of a queue", MAX_NAME)
    if "priority" in given:
        check_whole_number("priority", given["priority"], -(2**31), 2**31 - 1)
    if "max_retries" in given:
        check_whole_number("max_retries", given["max_retries"], 0, 2**31 - 2)
    check_execute_at(given.get("execute_at"))
    return given
