"""Log lines of pgjobq: an event and its fields. Logging that breaks must not break what it tells of."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from pgjobq.explaining import class_name, explain, headline, safe_text, shortened
from pgjobq.models import Job

MAX_FIELD = 2_000  # characters of a field

running_job: ContextVar[Job | None] = ContextVar("pgjobq_running_job", default=None)


def current_job() -> Job | None:
    """The job whose handler calls this; None outside of a handler.

    It is a context variable: known in tasks and in `asyncio.to_thread`, but not in a thread that a handler starts.
    """
    return running_job.get()


class JobLogFilter(logging.Filter):
    """Adds `job_id` and `job_type` to log records of a handler: `log_handler.addFilter(JobLogFilter())`.

    Other records have no such attributes; default="-" gives them one, for formats that name it.
    """

    def __init__(self, *, default: str | None = None) -> None:
        super().__init__()
        self._default = default

    def filter(self, record: logging.LogRecord) -> bool:
        """Add them, unless the record has its own; the record is always let through."""
        job = running_job.get()
        if job is not None:
            vars(record).setdefault("job_id", job.id)
            vars(record).setdefault("job_type", job.type)
        elif self._default is not None:
            vars(record).setdefault("job_id", self._default)
            vars(record).setdefault("job_type", self._default)
        return True


class EventLog(logging.LoggerAdapter[logging.Logger]):
    """A logger whose messages are `event field=value ...`, whatever formats them, and that never raises.

    `log.warning("job.lost", extra={"job_id": ...})`: the fields are attributes of the record too, and `event` is
    another. A field may be an exception. trace: the text of a traceback, in place of exc_info's.
    """

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name))

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  # logging's name
        """Whether lines of that level are wanted."""
        try:
            return self.logger.isEnabledFor(level)
        except Exception:
            return False

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log an event. Where a filter, a handler or a record factory raises, the error stream says so."""
        try:
            if self.logger.isEnabledFor(level):
                error = kwargs.get("exc_info")
                if error and not isinstance(error, BaseException):
                    error = sys.exc_info()[1]
                self._write(level, str(msg), kwargs.get("extra") or {}, error or None, kwargs.get("trace"))
        except BaseException as broken:
            # In the main thread it may be a signal's, which concerns the program.
            if not isinstance(broken, Exception) and threading.current_thread() is threading.main_thread():
                raise
            _complain(msg, broken)

    def _write(
        self, level: int, event: str, extra: Mapping[str, Any], error: BaseException | None, trace: str | None
    ) -> None:
        fields = {name: _field(value) for name, value in extra.items()}
        message = " ".join([event, *(f"{name}=%({name})s" for name in fields)])
        shown = ({name: shown_value(value) for name, value in fields.items()},) if fields else ()
        path, line, function, _ = self.logger.findCaller(stacklevel=3)
        record = self.logger.makeRecord(self.logger.name, level, path, line, message, shown, None, function)
        # Not by makeRecord: it refuses a field that the program's own record factory has set.
        vars(record).update(fields, event=event)
        # Formatters show this text, and do not make one of their own, which nothing would shorten.
        record.exc_text = trace or (explain(error) if error is not None else None)
        self.logger.handle(record)


def shown_value(value: object) -> str:
    """A field's value as one word, quoted where it must be."""
    text = safe_text(value, MAX_FIELD)
    plain = text.isprintable() and not any(c in ' "' for c in text)
    return text if text and plain else json.dumps(text, ensure_ascii=False)


def _field(value: object) -> object:
    if value is None or type(value) in {bool, int, float}:
        return value
    return shortened(headline(value), MAX_FIELD) if isinstance(value, BaseException) else safe_text(value, MAX_FIELD)


def _complain(event: object, broken: BaseException) -> None:
    try:
        if logging.raiseExceptions and sys.stderr is not None:
            sys.stderr.write(
                f"pgjobq: logging of {safe_text(event)} failed: {class_name(broken)}: {safe_text(broken)}\n"
            )
    except BaseException:  # noqa: S110  # there is nothing left to tell it to
        pass
