"""Log lines: one event name, then its fields."""

from __future__ import annotations

import json
import logging
from typing import Any

from pgjobq.cli.text import in_json, in_lines
from pgjobq.errors import ConfigurationError

DRIVERS = ("botocore", "pymongo", "redis", "sqlalchemy")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class EventFormatter(logging.Formatter):
    """`2030-01-31T09:00:00 INFO worker.started concurrency=8`, or the same as a JSON object."""

    def __init__(self, *, as_json: bool, worker: int | None = None) -> None:
        super().__init__(datefmt="%Y-%m-%dT%H:%M:%S%z")
        self._as_json = as_json
        self._own = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback below it when there is one."""
        fields = self._own | {key: value for key, value in vars(record).items() if key not in _STANDARD}
        head = {"time": self.formatTime(record, self.datefmt), "level": record.levelname, "event": record.getMessage()}
        if self._as_json:
            trace = {"traceback": self.formatException(record.exc_info)} if record.exc_info else {}
            return in_json({**head, **fields, **trace})
        line = " ".join([*head.values(), *(f"{key}={_shown(value)}" for key, value in fields.items())])
        return in_lines(f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line)


def configure(*, as_json: bool, level: str, worker: int | None = None) -> None:
    """Send log lines of that level and above to the standard error stream. worker: the number
    of this process, when it is one of several: each line says it.

    Raises ConfigurationError for a level that is none.
    """
    if level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise ConfigurationError(f"log-level: {level!r} is none; give debug, info, warning or error")
    handler = logging.StreamHandler()
    handler.setFormatter(EventFormatter(as_json=as_json, worker=worker))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level.upper() != "DEBUG":
        for name in DRIVERS:  # what they think worth a line is of use to nobody else
            logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))


def _shown(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or any(c.isspace() or c == '"' for c in text) else text
