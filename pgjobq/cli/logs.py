"""Format log lines: the name of the event, then its fields."""

from __future__ import annotations

import logging
from datetime import datetime

from pgjobq.cli.text import in_json, in_lines
from pgjobq.errors import ConfigurationError
from pgjobq.events import MAX_FIELD, JobLogFilter, shown_value
from pgjobq.explaining import MAX_ERROR, printable, safe_text, shortened

POOL = "psycopg.pool"  # it logs each failed connection, but a worker logs only the first
DRIVERS = ("boto3", "botocore", "pymongo", "redis", "s3transfer", "sqlalchemy", "urllib3")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class EventFormatter(logging.Formatter):
    """Formats `2030-01-31T09:00:00.123+00:00 INFO worker.started concurrency=8`, or the same as a JSON object.

    For other loggers, such as those of handlers and drivers, the message is the event and a field names the logger.
    Long texts are shortened as in the error of a job, whichever logger they come from.
    """

    def __init__(self, *, as_json: bool, worker: int | None = None) -> None:
        super().__init__()
        self._as_json = as_json
        self._own = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, followed by the traceback if there is one."""
        is_own = record.name.partition(".")[0] == "pgjobq"
        event = vars(record).get("event") if is_own else None
        time = datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")
        head = {"time": time, "level": record.levelname, "event": _text(event or record.getMessage(), MAX_ERROR)}
        given = {
            key: _kept(value)
            for key, value in vars(record).items()
            if key not in _STANDARD and (key != "event" or not is_own)
        }
        fields: dict[str, object] = {**self._own, **({} if is_own else {"logger": record.name})}
        fields |= {f"{key}_" if key in head else key: value for key, value in given.items()}
        trace = record.exc_text or (self.formatException(record.exc_info) if record.exc_info else "")
        trace = _text(trace, MAX_ERROR)
        if self._as_json:
            values = {**head, **fields, **({"traceback": trace} if trace else {})}
            return in_json(values)
        # Escape line breaks in the message, so that no line lacks time and level.
        head["event"] = head["event"].replace("\r", "\\r").replace("\n", "\\n")
        line = " ".join([*head.values(), *(f"{key}={shown_value(value)}" for key, value in fields.items())])
        return in_lines(f"{line}\n{trace}" if trace else line)


def _text(value: object, most: int) -> str:
    return printable(shortened(str(value), most))


def _kept(value: object) -> object:
    """Return a field's value, shortened. Any logger may have set it."""
    if isinstance(value, str):
        return safe_text(value, MAX_FIELD)
    if isinstance(value, dict | list | tuple):
        try:
            return value if len(text := in_json(value)) <= MAX_FIELD else shortened(text, MAX_FIELD)
        except Exception:  # it contains itself, or a value that cannot be printed
            return safe_text(value, MAX_FIELD)
    return value


def configure(*, as_json: bool, level: str, worker: int | None = None) -> None:
    """Send log lines of this level and above to stderr. Raises ConfigurationError for an unknown level.

    worker: the number of this process if there are several; each line shows it.
    """
    if level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise ConfigurationError(f"log-level: {level!r} is not a level; use debug, info, warning or error")
    handler = logging.StreamHandler()
    handler.setFormatter(EventFormatter(as_json=as_json, worker=worker))
    handler.addFilter(JobLogFilter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level.upper() != "DEBUG":
        logging.getLogger(POOL).setLevel(max(logging.ERROR, logging.getLevelName(level.upper())))
        for name in DRIVERS:  # their lines below this level are only useful for debugging
            logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))
