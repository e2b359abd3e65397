"""Write log lines with an event and its fields. An error in logging must not stop the code that logs."""

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

MAX_FIELD = 2_000  # the most characters of a field

running_job: ContextVar[Job | None] = ContextVar("pgjobq_running_job", default=None)


def current_job() -> Job | None:
    """Return the job whose handler calls this, or None outside of a handler.

    The job is a context variable. Tasks and `asyncio.to_thread` inherit it; a thread that a handler starts does not.
    """
    return running_job.get()


class JobLogFilter(logging.Filter):
    """Adds `job_id` and `job_type` to the log records of handlers: `log_handler.addFilter(JobLogFilter())`.

    Other records do not have these attributes, unless default is set. Use default="-" if the format names them.
    """

    def __init__(self, *, default: str | None = None) -> None:
        super().__init__()
        self._default = default

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the attributes that the record does not have. Always returns True."""
        job = running_job.get()
        if job is not None:
            vars(record).setdefault("job_id", job.id)
            vars(record).setdefault("job_type", job.type)
        elif self._default is not None:
            vars(record).setdefault("job_id", self._default)
            vars(record).setdefault("job_type", self._default)
        return True


class EventLog(logging.LoggerAdapter[logging.Logger]):
    """A logger that writes messages of the form `event field=value ...` and never raises an Exception.

    `log.warning("job.lost", extra={"job_id": ...})` sets the fields, and `event`, as attributes of the record too. A
    field may be an exception. trace: the text of a traceback, which replaces that of exc_info.
    """

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name))

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  # logging's name
        """Return whether lines of this level are logged. Returns False if the logger raises."""
        try:
            return self.logger.isEnabledFor(level)
        except Exception:
            return False

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log an event. If a filter, a handler or a record factory raises, report that on stderr."""
        try:
            if self.logger.isEnabledFor(level):
                error = kwargs.get("exc_info")
                if error and not isinstance(error, BaseException):
                    error = sys.exc_info()[1]
                self._write(level, str(msg), kwargs.get("extra") or {}, error or None, kwargs.get("trace"))
        except BaseException as broken:
            # In the main thread it may come from a signal, such as KeyboardInterrupt, so the program must see it.
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
        # Not passed to makeRecord, which refuses a field that the program's own record factory has set.
        vars(record).update(fields, event=event)
        # Formatters use this text instead of formatting the traceback themselves, which nothing would shorten.
        record.exc_text = trace or (explain(error) if error is not None else None)
        self.logger.handle(record)


def shown_value(value: object) -> str:
    """Return a field's value as one word, quoted if necessary."""
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
    except BaseException:  # noqa: S110  # there is nowhere left to report the error
        pass
