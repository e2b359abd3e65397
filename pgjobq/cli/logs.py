"""Log lines: one event name, then its fields."""

from __future__ import annotations

import logging
from datetime import datetime

from pgjobq.cli.text import in_json, in_lines
from pgjobq.errors import ConfigurationError
from pgjobq.events import MAX_FIELD, JobLogFilter, shown_value
from pgjobq.explaining import MAX_ERROR, printable, safe_text, shortened

POOL = "psycopg.pool"  # it has a line for each connection that it cannot make, where a worker says so once
DRIVERS = ("boto3", "botocore", "pymongo", "redis", "s3transfer", "sqlalchemy", "urllib3")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class EventFormatter(logging.Formatter):
    """`2030-01-31T09:00:00.123+00:00 INFO worker.started concurrency=8`, or the same as a JSON object.

    The lines of other loggers, the handlers' and the drivers', have their message as the event, and name their logger.
    A text that is longer than what a job keeps of an error is shortened, whoever logs it.
    """

    def __init__(self, *, as_json: bool, worker: int | None = None) -> None:
        super().__init__()
        self._as_json = as_json
        self._own = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback below it when there is one."""
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
        # A line break in a message would begin another line, without time and level.
        head["event"] = head["event"].replace("\r", "\\r").replace("\n", "\\n")
        line = " ".join([*head.values(), *(f"{key}={shown_value(value)}" for key, value in fields.items())])
        return in_lines(f"{line}\n{trace}" if trace else line)


def _text(value: object, most: int) -> str:
    return printable(shortened(str(value), most))


def _kept(value: object) -> object:
    """A field of a line that may be anyone's."""
    if isinstance(value, str):
        return safe_text(value, MAX_FIELD)
    if isinstance(value, dict | list | tuple):
        try:
            return value if len(text := in_json(value)) <= MAX_FIELD else shortened(text, MAX_FIELD)
        except Exception:  # it holds itself, or what cannot be printed
            return safe_text(value, MAX_FIELD)
    return value


def configure(*, as_json: bool, level: str, worker: int | None = None) -> None:
    """Send log lines of that level and above to the standard error stream. worker: the number
    of this process, when it is one of several: each line says it.

    Raises ConfigurationError for any other level.
    """
    if level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise ConfigurationError(f"log-level: {level!r} is not a level; give debug, info, warning or error")
    handler = logging.StreamHandler()
    handler.setFormatter(EventFormatter(as_json=as_json, worker=worker))
    handler.addFilter(JobLogFilter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level.upper() != "DEBUG":
        logging.getLogger(POOL).setLevel(max(logging.ERROR, logging.getLevelName(level.upper())))
        for name in DRIVERS:  # what they think worth a line is of use to nobody else
            logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))
