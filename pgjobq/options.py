"""What a job can be enqueued with."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypedDict

JobType = str | Callable[..., Any]  # a handler, or the name of a type


class JobOptions(TypedDict, total=False):
    """The options of a job, by keyword. JobQueue.enqueue explains them. None is the same as leaving an option out.

    Durations are in seconds, or a timedelta.
    """

    priority: int | None
    delay: float | timedelta | None
    execute_at: datetime | None
    max_retries: int | None
    queue: str | None
    job_id: str | None
    unique_key: str | None
    unique_while: str | None
    unique_for: float | timedelta | None
    on_conflict: str | None
    debounce_ceiling: float | timedelta | None
    expires_at: datetime | None
