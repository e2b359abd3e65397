"""Checks of arguments. Each raises InvalidJob with the name of the field and a hint, unless it says otherwise."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from pgjobq.errors import MAX_DELAY, ConfigurationError, InvalidJob

MAX_REASON = 1000  # characters
MAX_DEPTH = 500  # nested dicts and lists; every JSON parser accepts this depth

# Created once, because json.dumps creates an encoder for each call that has options.
_encode = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode
_FIRST, _LAST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
# A whole JSON string, or a number of at least 1e16.
_LARGE_FLOAT = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|(-?[\d.]+e\+\d+)')


def check_name(field: str, value: object, what: str, longest: int) -> None:
    """Check for a string of 1 to `longest` characters without NUL. what: describes a valid value, for the hint."""
    if not isinstance(value, str):
        raise InvalidJob(f"{field}: {value!r} is not a string; use {what}", field=field)
    if not 1 <= len(value) <= longest:
        raise InvalidJob(f"{field}: has {len(value)} characters; use {what}, 1 to {longest} characters", field=field)
    if "\0" in value:
        raise InvalidJob(f"{field}: contains a NUL character, which PostgreSQL cannot store; remove it", field=field)
    _check_encodable(field, value)


def is_name(field: str, value: object, longest: int) -> bool:
    """Return whether the value is a valid name. Raises InvalidJob if it is not a string."""
    try:
        check_name(field, value, "a string", longest)
    except InvalidJob:
        if not isinstance(value, str):
            raise
        return False
    return True


def check_names(field: str, value: object) -> None:
    """Check for None or a list of names. Refuses a lone string, which would be read as a list of its letters."""
    if value is None:
        return
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise InvalidJob(f"{field}: {value!r} is not a list of names; use a list such as ['mail']", field=field)


def check_text(field: str, value: object) -> None:
    """Check for a string without NUL and lone surrogates, which databases cannot store."""
    if not isinstance(value, str):
        raise InvalidJob(f"{field}: {value!r} is not a string; use a string", field=field)
    if found := _bad_text(value, field):
        raise InvalidJob(found, field=field)


def check_reason(value: object) -> None:
    """Check for None or a text of 1 to MAX_REASON characters."""
    if value is not None:
        check_name("reason", value, "why the job is cancelled, or leave it out", MAX_REASON)


def check_moment(field: str, value: object) -> None:
    """Check for None or an aware datetime."""
    if value is None:
        return
    if not isinstance(value, datetime):
        raise InvalidJob(f"{field}: {value!r} is not a datetime; use an aware datetime", field=field)
    if value.utcoffset() is None:
        raise InvalidJob(
            f"{field}: {value.isoformat()} has no time zone; use an aware datetime, such as datetime.now(UTC)",
            field=field,
        )


def check_age(value: object) -> None:
    """Check for a timedelta of 0 or more."""
    if not isinstance(value, timedelta) or value < timedelta(0):
        raise InvalidJob(f"older_than: {value!r} is not an age; use a timedelta of 0 or more", field="older_than")


def check_whole_number(field: str, value: object, least: int, most: int) -> None:
    """Check for an int from least to most. A bool is refused."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidJob(
            f"{field}: {_shown(value)} is not allowed; use a whole number from {least} to {most}", field=field
        )


def check_execute_at(value: object, field: str = "execute_at") -> None:
    """Check for None or an aware datetime that every time zone can represent."""
    if value is None:
        return
    if not isinstance(value, datetime):
        raise InvalidJob(f"{field}: {value!r} is not a datetime; use an aware datetime", field=field)
    if value.utcoffset() is None:
        raise InvalidJob(
            f"{field}: {value.isoformat()} has no time zone; use an aware datetime, such as datetime.now(UTC)",
            field=field,
        )
    # Not converted to UTC first, because that can overflow. The limits leave a day for every time zone.
    if not _FIRST <= value < _LAST:
        raise InvalidJob(
            f"{field}: is outside the years 1 to 9999 in some time zone; use a time from 0001-01-02 to"
            " 9999-12-30, in UTC",
            field=field,
        )


def check_delay(value: object, other: str | None = None, *, optional: bool = True) -> None:
    """Check for seconds from 0 to a hundred years, or None if optional. other: an argument that excludes a delay."""
    if value is None and optional:
        return
    if other is not None:
        raise InvalidJob(f"delay: cannot be combined with {other}; use only one of them", field="delay")
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= MAX_DELAY:
        raise InvalidJob(f"delay: {_shown(value)} is not allowed; use seconds from 0 to {MAX_DELAY:.0f}", field="delay")


def check_seconds(setting: str, value: float) -> None:
    """Check for a number of seconds above 0. Raises ConfigurationError."""
    if not value > 0:
        raise ConfigurationError(f"{setting}: {value!r} is not allowed; use seconds above 0")


def is_cut(url: str, ends: str = "/?#") -> bool:
    """Return whether an unescaped character in the password of a URL makes a parser split the URL in the wrong place.

    This is the case if the URL has an @ after the end of its authority, or two @ within it. A parser would take a part
    of the password for a host, port or database, and messages would show it. An @ in the value of a query parameter is
    allowed. ends: the characters that end an authority for the library that parses the URL.
    """
    rest = url.partition("://")[2]
    end = next((place for place, letter in enumerate(rest) if letter in ends), len(rest))
    path, _, query = rest[end:].partition("?")
    return rest[:end].count("@") > 1 or "@" in path or "@" in query.partition("=")[0]


def _shown(value: object) -> str:
    # Python does not format an int of more than 4,300 digits.
    return "a number this large" if isinstance(value, int) and abs(value) > 10**100 else repr(value)


def encode_data(data: object) -> str:
    """Return a job's data as JSON. InvalidJob names the path of a value that JSON or PostgreSQL cannot store."""
    if not isinstance(data, dict):
        raise InvalidJob(
            f"data: {type(data).__name__} is not a dict; use a dict whose keys are the handler's arguments",
            field="data",
        )
    try:
        text = _encode(data)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidJob(_culprit(data, "data", 1) or f"data: {error}", field="data") from None
    if "e+" in text:
        text = _LARGE_FLOAT.sub(_with_point, text)
    # The encoder turns other keys into strings, and accepts NUL, lone surrogates and any depth.
    suspect = "\\u0000" in text or not _is_encodable(text) or not _is_plain(data)
    if suspect and (culprit := _culprit(data, "data", 1)):
        raise InvalidJob(culprit, field="data")
    return text


def _with_point(found: re.Match[str]) -> str:
    # Without a decimal point PostgreSQL would return an int, and another number: 1e300 is not 10 ** 300.
    return f"{float(found[1]):.1f}" if found[1] else found[0]


def _is_plain(data: object) -> bool:
    """Return whether all keys are strings and nothing is nested deeper than MAX_DEPTH."""
    depth, level = 0, [data]
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


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_encodable(field: str, value: str) -> None:
    if not _is_encodable(value):
        raise InvalidJob(
            f"{field}: contains half of a surrogate pair, which is not a character; remove it", field=field
        )


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
    return _bad_text(key, f"{path} key {key!r}")


def _bad_value(value: object, path: str) -> str | None:
    if isinstance(value, str):
        return _bad_text(value, path)
    if isinstance(value, float) and not math.isfinite(value):
        return f"{path}: {value} is not a JSON number; leave it out or use None"
    if isinstance(value, int):
        return _bad_whole_number(value, path)
    if value is None or isinstance(value, float | dict | list | tuple):
        return None
    return f"{path}: {type(value).__name__} cannot be stored as JSON; use a str, int, float, bool, None, list or dict"


def _bad_whole_number(value: int, path: str) -> str | None:
    try:
        str(value)
    except ValueError:  # Python formats and parses at most sys.get_int_max_str_digits() digits
        return f"{path}: has more digits than Python can format; use a string"
    return None


def _bad_text(value: str, path: str) -> str | None:
    if "\0" in value:
        return f"{path}: contains a NUL character, which PostgreSQL cannot store; remove it"
    if not _is_encodable(value):
        return f"{path}: contains half of a surrogate pair, which is not a character; remove it"
    return None


def in_utc(name: str, value: object) -> datetime:
    """Return a datetime or an ISO string as a datetime in UTC. A naive one is read as UTC."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        moment = None
    if not isinstance(moment, datetime):
        raise InvalidJob(f"{name}: {value!r} is not a time; use a datetime or an ISO string", field=name)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
