"""Escape text from jobs before it is printed, because it may contain commands to the terminal."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

from pgjobq.explaining import safe_text

# Control characters can move the cursor, change the title or hide text. The others change the direction of text,
# separate lines, or are halves of surrogate pairs, which no encoding can print.
_UNSAFE = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_IN_LINES = re.compile(f"[\x00-\x08\x0b-\x1f{_UNSAFE}]")
_IN_A_LINE = re.compile(f"[\x00-\x1f{_UNSAFE}]")
_IN_JSON = re.compile(f"[{_UNSAFE}]")


def in_a_line(text: str) -> str:
    r"""Return the text on one line, with control characters escaped as in Python: \x1b, \n."""
    return _IN_A_LINE.sub(_escaped, text)


def in_lines(text: str) -> str:
    """Return the text with control characters escaped, except tabs and newlines."""
    return _IN_LINES.sub(_escaped, text)


def in_json(value: Any, *, indent: int | None = None) -> str:
    r"""Return the value as JSON, with control characters escaped as in JSON: \u001b. Times are in ISO format."""

    def encode(other: Any) -> str:
        return other.isoformat() if isinstance(other, datetime) else safe_text(other)

    text = json.dumps(value, indent=indent, default=encode, ensure_ascii=False, skipkeys=True)
    # json.dumps escapes characters below U+0020. The others can only occur within strings.
    return _IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
