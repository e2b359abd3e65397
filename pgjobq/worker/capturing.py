"""Capture what handlers log, for those with capture_logs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime

from pgjobq.explaining import explain, safe_text
from pgjobq.reports import MAX_LOG, Line

LINE_COST = 50  # bytes that each line counts in addition to its text, so that empty lines have a limit, too
MAX_LEVEL, MAX_LOGGER = 20, 200  # characters
OURS = "pgjobq.worker"  # what the worker itself logs about a job

_formatting = threading.local()  # is_busy while this thread formats a record, which may log, too
_capture: ContextVar[Capture | None] = ContextVar("pgjobq_capture", default=None)


class Capture:
    """Takes the lines of one try, up to MAX_LOG bytes. Any thread may use it."""

    def __init__(self, keep: Callable[[Line], None]) -> None:
        self._keep, self._seq, self._left = keep, 0, MAX_LOG
        self._lock = threading.RLock()  # reentrant, because a signal handler or a finalizer may log in between

    def take(self, record: logging.LogRecord) -> None:
        """Take a record. The line that goes over the limit is shortened, and the next one says so."""
        if self._left <= 0 or getattr(_formatting, "is_busy", False):
            return
        _formatting.is_busy = True
        try:
            text = _text(record)[:MAX_LOG].encode(errors="backslashreplace")
            level, logger = safe_text(record.levelname, MAX_LEVEL), safe_text(record.name, MAX_LOGGER)
        finally:
            _formatting.is_busy = False
        moment = _moment(record)
        with self._lock:  # nothing in it calls the program's code
            if self._left <= 0:
                return
            self._add(moment, level, logger, text[: self._left].decode(errors="ignore"))
            self._left -= len(text) + LINE_COST
            if self._left <= 0:
                rest = f"the rest of the lines was cut, because a try keeps {MAX_LOG} bytes"
                self._add(moment, "WARNING", OURS, rest)

    def _add(self, logged_at: datetime, level: str, logger: str, text: str) -> None:
        self._seq += 1
        self._keep(Line(self._seq, logged_at, level, logger, text))


class CaptureHandler(logging.Handler):
    """Passes each record to the Capture of the context in which it is logged. It has no lock, and never raises."""

    def createLock(self) -> None:  # noqa: N802  # logging's name
        """Do without a lock, because formatting a record may wait for another thread that logs."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record, unless it comes from no captured handler, or from the worker itself."""
        try:
            if len(logging.root.handlers) == 1 and _is_alone(record, self):
                _as_before(record)
            capture = _capture.get()
            if capture is not None and record.name != OURS:
                capture.take(record)
        except Exception:  # noqa: S110  # the code that logs must not see it, and to log it might fail again
            pass


HANDLER = CaptureHandler()


def start_capture(keep: Callable[[Line], None]) -> None:
    """Capture what is logged in this context, and in those that are copied from it."""
    if HANDLER not in logging.root.handlers:  # at each start, because configuring logging removes it
        logging.root.addHandler(HANDLER)
    _capture.set(Capture(keep))


def _text(record: logging.LogRecord) -> str:
    try:
        text = record.getMessage()
    except Exception:  # the arguments do not fit, or one of them cannot be printed
        text = safe_text(record.msg)
    error = record.exc_info[1] if record.exc_info else None
    trace = record.exc_text or (explain(error) if error is not None else None)
    return f"{text}\n{trace}" if trace else text


def _moment(record: logging.LogRecord) -> datetime:
    try:
        return datetime.fromtimestamp(record.created, UTC)
    except (OSError, OverflowError, TypeError, ValueError):  # the program's record factory set it
        return datetime.fromtimestamp(time.time(), UTC)


def _is_alone(record: logging.LogRecord, handler: logging.Handler) -> bool:
    """Return whether no other handler gets the record."""
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None:
        if any(other is not handler for other in logger.handlers):
            return False
        logger = logger.parent if logger.propagate else None
    return True


def _as_before(record: logging.LogRecord) -> None:
    """Do what logging does in a program that has configured no handlers, because now there is one."""
    if logging.lastResort is not None and record.levelno >= logging.lastResort.level:
        logging.lastResort.handle(record)
