"""What the outcome of a job depends on if its handler raised, in values that JSON can hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pgjobq.errors import MAX_DELAY, BadArguments, Fail, InvalidJob, Retry, Snooze, UnknownJobType
from pgjobq.explaining import VERDICTS, class_name, explain, headline, safe_text


@dataclass(frozen=True, kw_only=True, slots=True)
class Raised:
    """An exception of a handler. A handler's own process sends it to the worker, which cannot have the exception."""

    text: str  # type, message, notes and traceback, for the job's error
    headline: str
    final: bool = False  # no further try
    on_purpose: bool = False  # the traceback says nothing
    delay: float | None = None  # seconds until the next try, if a Retry asks for a valid delay
    bad_delay: str = ""  # the delay of a Retry, if it is invalid
    snoozed: float | None = None  # seconds until the next start, if a Snooze asks for a valid delay


class RaisedElsewhere(Exception):
    """The handler raised in its own process. The worker raises this in its place."""

    def __init__(self, raised: Raised) -> None:
        super().__init__(raised.headline)
        self.raised = raised


def raised_by(error: BaseException) -> Raised:
    """Describe an exception. Never raises if the exception breaks while it is printed."""
    if isinstance(error, RaisedElsewhere):
        return error.raised
    delay, bad_delay = _delay_of(error) if isinstance(error, Retry) else (None, "")
    return Raised(
        text=explain(error),
        headline=headline(error),
        final=isinstance(error, Fail | BadArguments | UnknownJobType) or _is_of_result(error),
        on_purpose=isinstance(error, VERDICTS),
        delay=delay,
        bad_delay=bad_delay,
        snoozed=_snoozed_for(error) if isinstance(error, Snooze) else None,
    )


def _is_of_result(error: BaseException) -> bool:
    """Return whether this error is about a result that cannot be kept, which another try would not change."""
    return isinstance(error, InvalidJob) and error.field == "result"


def _delay_of(error: Retry) -> tuple[float | None, str]:
    try:
        asked: Any = getattr(error, "delay", None)  # a subclass may not have called __init__
        if asked is None:
            return None, ""
        if isinstance(asked, int | float) and not isinstance(asked, bool) and 0 <= asked <= MAX_DELAY:
            return float(asked), ""
        return None, safe_text(repr(asked), 100)
    except BaseException as broken:
        return None, class_name(broken)


def _snoozed_for(error: Snooze) -> float | None:
    """Return the delay of a Snooze, or None if it has no valid one. The error then counts as any other."""
    asked: Any = getattr(error, "delay", None)  # a subclass may not have called __init__
    number = isinstance(asked, int | float) and not isinstance(asked, bool)
    return float(asked) if number and 0 < asked <= MAX_DELAY else None
