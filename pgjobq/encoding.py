"""Encode a job's data and its result as JSON, and say which value JSON or PostgreSQL cannot store."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from typing import Any

from pgjobq.checks import bad_text, is_encodable
from pgjobq.errors import InvalidJob
from pgjobq.plain import plain_value

MAX_DEPTH = 500  # nested dicts and lists; every JSON parser accepts this depth


def _plain_or_refuse(value: object) -> object:
    plain = plain_value(value)
    if plain is value:
        raise TypeError
    return plain


# Created once, because json.dumps creates an encoder for each call that has options.
_STYLE: Any = {"allow_nan": False, "ensure_ascii": False, "separators": (",", ":")}
_encode = json.JSONEncoder(**_STYLE).encode
_encode_more = json.JSONEncoder(**_STYLE, default=_plain_or_refuse).encode
# A whole JSON string, or a number of at least 1e16.
_LARGE_FLOAT = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|(-?[\d.]+e\+\d+)')


def encode_data(data: object) -> str:
    """Return a job's data as JSON. InvalidJob names the path of a value that JSON or PostgreSQL cannot store."""
    if not isinstance(data, dict):
        raise InvalidJob(
            f"data: {type(data).__name__} is not a dict; use a dict whose keys are the handler's arguments",
            field="data",
        )
    return _encoded(data, "data", _encode)


def encode_new_data(data: object) -> tuple[str, Any]:
    """Return the data of a new job as JSON, and the data as a handler receives it.

    A UUID, Decimal, datetime, date or time becomes a string, and an Enum its value. Without these, the data is the same
    object. Raises InvalidJob as encode_data does.
    """
    try:
        return encode_data(data), data
    except InvalidJob:
        if not isinstance(data, dict):
            raise
        text = _encoded(data, "data", _encode_more)
        return text, json.loads(text)


def encode_json(value: object, field: str) -> str:
    """Return a value as JSON, with a UUID and its kin as in encode_new_data. InvalidJob names the field."""
    return _encoded(value, field, _encode_more)


def _encoded(value: object, field: str, encode: Callable[[object], str]) -> str:
    try:
        text = encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidJob(_culprit(value, field, 1) or f"{field}: {error}", field=field) from None
    if "e+" in text:
        text = _LARGE_FLOAT.sub(_with_point, text)
    # The encoder turns other keys into strings, and accepts NUL, lone surrogates and any depth.
    suspect = "\\u0000" in text or not is_encodable(text) or not _is_plain(value)
    if suspect and (culprit := _culprit(value, field, 1)):
        raise InvalidJob(culprit, field=field)
    return text


def _with_point(found: re.Match[str]) -> str:
    # Without a decimal point PostgreSQL would return an int, and another number: 1e300 is not 10 ** 300.
    return f"{float(found[1]):.1f}" if found[1] else found[0]


def _is_plain(data: object) -> bool:
    """Return whether all keys are strings and nothing is nested deeper than MAX_DEPTH."""
    depth = 0
    level: list[object] = [data] if isinstance(data, dict | list | tuple) else []
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            return False
        below: list[object] = []
        for value in level:
            if isinstance(value, dict):
                for key in value:
                    if not isinstance(key, str):
                        return False
                inner: Iterable[object] = value.values()
            else:
                assert isinstance(value, list | tuple)  # a level contains nothing else
                inner = value
            below += [item for item in inner if isinstance(item, (dict, list, tuple))]
        level = below
    return True


def _culprit(data: object, path: str, depth: int) -> str | None:
    """Describe the first invalid value in the data, with its path. Returns None if there is none."""
    # Not recursive, because the recursion limit depends on the depth of the caller.
    left: list[tuple[object, str, int]] = [(data, path, depth)]
    while left:
        value, path, depth = left.pop()
        if isinstance(value, _Key):
            found = _bad_key(value.key, path)
        elif depth > MAX_DEPTH and isinstance(value, dict | list | tuple):
            found = f"{path[:80]}...: nested too deeply, or contains itself; flatten it"
        else:
            found = _bad_value(value, path)
        if found:
            return found
        if isinstance(value, dict):
            for key, inner in reversed(value.items()):
                left += [(inner, f"{path}.{key!s}", depth + 1), (_Key(key), path, depth)]
        elif isinstance(value, list | tuple):
            left += [(inner, f"{path}[{n}]", depth + 1) for n, inner in reversed(list(enumerate(value)))]
    return None


class _Key:
    """A key of a dict, which is checked before its value."""

    def __init__(self, key: object) -> None:
        self.key = key


def _bad_key(key: object, path: str) -> str | None:
    if not isinstance(key, str):
        return f"{path}: key {key!r} is not a string; use strings as keys"
    return bad_text(key, f"{path} key {key!r}")


def _bad_value(value: object, path: str) -> str | None:
    if isinstance(value, str):
        return bad_text(value, path)
    if isinstance(value, float) and not math.isfinite(value):
        return f"{path}: {value} is not a JSON number; leave it out or use None"
    if isinstance(value, int):
        return _bad_whole_number(value, path)
    if value is None or isinstance(value, float | dict | list | tuple):
        return None
    if (plain := plain_value(value)) is not value:
        return _bad_value(plain, path)
    return (
        f"{path}: {type(value).__name__} cannot be stored as JSON; use a str, int, float, bool, None, list or dict,"
        " or a UUID, Decimal, datetime, date, time or Enum, which pgjobq stores as text"
    )


def _bad_whole_number(value: int, path: str) -> str | None:
    try:
        str(value)
    except ValueError:  # Python formats and parses at most sys.get_int_max_str_digits() digits
        return f"{path}: has more digits than Python can format; use a string"
    return None
