"""What a running job reports of itself: its progress, and what its handler logs."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple, Self

from pgjobq.checks import check_name
from pgjobq.encoding import encode_json
from pgjobq.errors import InvalidJob

MAX_MESSAGE = 1000  # characters
MAX_META = 10_000  # bytes
MAX_LOG = 65_536  # bytes of lines that a try keeps


class Report(NamedTuple):
    """How far a job is: the share that is done, a text, and more, as JSON."""

    fraction: float
    message: str | None
    meta: str | None

    @classmethod
    def checked(cls, fraction: object, message: str | None, meta: dict[str, Any]) -> Self:
        """Return a report. Raises InvalidJob, which names the field, for a value that cannot be stored."""
        number = isinstance(fraction, int | float) and not isinstance(fraction, bool)
        if not number or not 0 <= fraction <= 1:  # type: ignore[operator]  # it is a number
            wrong = f"fraction: {fraction!r} is not allowed; use the share that is done, a number from 0 to 1"
            raise InvalidJob(wrong, field="fraction")
        if message is not None:
            check_name("message", message, "a text for people, or None", MAX_MESSAGE)
        text = encode_json(meta, "meta") if meta else None
        if text is not None and (size := len(text.encode())) > MAX_META:
            raise InvalidJob(f"meta: it has {size} bytes; use at most {MAX_META}", field="meta")
        return cls(float(fraction), message, text)  # type: ignore[arg-type]  # it is a number


class Line(NamedTuple):
    """What a handler has logged: a record as text, with its number in the try."""

    seq: int
    logged_at: datetime
    level: str
    logger: str
    text: str
