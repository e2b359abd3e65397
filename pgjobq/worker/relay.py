"""What the process of an isolated handler and its worker send each other: lines of JSON, and log records in them."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pgjobq.events import EventLog
from pgjobq.explaining import explain, safe_text

log = EventLog("pgjobq.worker")

CHUNK = 65_536  # bytes
_PLAIN = (str, int, float, bool, type(None))


def encoded(message: Mapping[str, Any]) -> bytes:
    """Return a message as a line."""
    return json.dumps(message).encode() + b"\n"


class Answers:
    """Sends lines to the worker. Any thread may use it, and a signal handler that interrupts a send."""

    def __init__(self, fd: int) -> None:
        self._fd, self._pid = fd, os.getpid()
        self._lock, self._pending, self._is_writing = threading.RLock(), bytearray(), False

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message. Does nothing in a fork of this process, or if the worker reads no more."""
        if os.getpid() != self._pid:
            return
        line = encoded(message)
        with self._lock:
            self._pending += line
            if self._is_writing:  # this is a signal handler; the send that it interrupted goes on with this line
                return
            self._is_writing = True
            try:
                with suppress(OSError):
                    while self._pending:
                        del self._pending[: os.write(self._fd, self._pending[:CHUNK])]
            finally:
                self._is_writing = False


class RelayHandler(logging.Handler):
    """Sends log records to the worker, which logs them under the same logger."""

    def __init__(self, answers: Answers) -> None:
        super().__init__()
        self._answers = answers

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record: its message and traceback as text, and extra attributes as far as JSON can hold them."""
        try:
            kept = {
                name: value if type(value) in _PLAIN else safe_text(value)
                for name, value in vars(record).items()
                if name not in {"args", "exc_info", "msg"}
            }
            error = record.exc_info[1] if record.exc_info else None
            trace = record.exc_text or (explain(error) if error is not None else None)
            self._answers.send({"log": {**kept, "msg": record.getMessage(), "exc_text": trace}})
        except Exception:
            self.handleError(record)


def levels() -> dict[str, int]:
    """Return the levels of this process's loggers that have one. The root logger has the empty name."""
    loggers = list(logging.root.manager.loggerDict.items())
    found = {name: logger.level for name, logger in loggers if isinstance(logger, logging.Logger) and logger.level}
    return {"": logging.root.level, **found}


def relay_logs(answers: Answers, given: Mapping[str, int]) -> None:
    """Send this process's log records of these levels to the worker. A module may configure logging differently."""
    for name, level in given.items():
        logging.getLogger(name or None).setLevel(level)
    logging.root.addHandler(RelayHandler(answers))


def log_again(fields: dict[str, Any]) -> None:
    """Log a record of another process here. Never raises."""
    try:
        record = logging.makeLogRecord(fields)
        logger = logging.getLogger(None if record.name == "root" else record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)
    except Exception as error:
        log.warning("relay.error", extra={"error": error})
