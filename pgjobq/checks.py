"""Checks of what callers hand in: each raises InvalidJob with the field and the mend."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from pgjobq.errors import MAX_DELAY, ConfigurationError, InvalidJob

MAX_REASON = 1000  # characters
MAX_DEPTH = 500  # dicts and lists within each other: what every reader of JSON can take

# Made once: json.dumps makes one for each call that has options.
_encode = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode
_FIRST, _LAST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
# A text, as a whole, or a number from 1e16 on.
_LARGE_FLOAT = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|(-?[\d.]+e\+\d+)')


def check_name(field: str, value: object, what: str, longest: int) -> None:
    """A text of 1 to `longest` characters without NUL."""
    if not isinstance(value, str):
        raise InvalidJob(f"{field}: {value!r} is not a text; give {what}", field=field)
    if not 1 <= len(value) <= longest:
        raise InvalidJob(f"{field}: has {len(value)} characters; give {what}, 1 to {longest} characters", field=field)
    if "\0" in value:
        raise InvalidJob(f"{field}: holds a NUL character, which PostgreSQL cannot store; take it out", field=field)
    _check_encodable(field, value)


def is_name(field: str, value: object, longest: int) -> bool:
    """Whether something could have this name. Raises InvalidJob for what is not a text at all."""
    try:
        check_name(field, value, "the text that it was given", longest)
    except InvalidJob:
        if not isinstance(value, str):
            raise
        return False
    return True


def check_names(field: str, value: object) -> None:
    """None, or a list of names: a text alone would be taken for the list of its letters."""
    if value is None:
        return
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise InvalidJob(f"{field}: {value!r} is not a list of names; give one, such as ['mail']", field=field)


def check_text(field: str, value: object) -> None:
    """A text that databases can store: without NUL and halves of surrogate pairs."""
    if not isinstance(value, str):
        raise InvalidJob(f"{field}: {value!r} is not a text; give one", field=field)
    if found := _bad_text(value, field):
        raise InvalidJob(found, field=field)


def check_reason(value: object) -> None:
    """None, or a text of 1 to MAX_REASON characters."""
    if value is not None:
        check_name("reason", value, "why the job is cancelled, or leave it out", MAX_REASON)


def check_moment(field: str, value: object) -> None:
    """None, or an aware datetime."""
    if value is None:
        return
    if not isinstance(value, datetime):
        raise InvalidJob(f"{field}: {value!r} is not a datetime; give an aware one", field=field)
    if value.utcoffset() is None:
        raise InvalidJob(
            f"{field}: {value.isoformat()} has no time zone; give an aware datetime, such as datetime.now(UTC)",
            field=field,
        )


def check_age(value: object) -> None:
    """A timedelta of 0 or more."""
    if not isinstance(value, timedelta) or value < timedelta(0):
        raise InvalidJob(f"older_than: {value!r} is not an age; give a timedelta of 0 or more", field="older_than")


def check_whole_number(field: str, value: object, least: int, most: int) -> None:
    """An int, and no bool, from least to most."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidJob(
            f"{field}: {_shown(value)} is not allowed; give a whole number from {least} to {most}", field=field
        )


def check_execute_at(value: object, field: str = "execute_at") -> None:
    """None, or an aware datetime that every time zone can show."""
    if value is None:
        return
    if not isinstance(value, datetime):
        raise InvalidJob(f"{field}: {value!r} is not a datetime; give an aware one", field=field)
    if value.utcoffset() is None:
        raise InvalidJob(
            f"{field}: {value.isoformat()} has no time zone; give an aware datetime, such as datetime.now(UTC)",
            field=field,
        )
    # Compared as they are: a time that UTC does not have cannot be converted. A day is left for every time zone.
    if not _FIRST <= value < _LAST:
        raise InvalidJob(
            f"{field}: is not within the years 1 to 9999 in every time zone; give a time from 0001-01-02 to"
            " 9999-12-30, in UTC",
            field=field,
        )


def check_delay(value: object, other: str | None = None, *, optional: bool = True) -> None:
    """None, if that is optional, or seconds from 0 to a hundred years; not together with `other`."""
    if value is None and optional:
        return
    if other is not None:
        raise InvalidJob(f"delay: given together with {other}; give one of them", field="delay")
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= MAX_DELAY:
        raise InvalidJob(
            f"delay: {_shown(value)} is not allowed; give seconds from 0 to {MAX_DELAY:.0f}", field="delay"
        )


def check_seconds(setting: str, value: float) -> None:
    """A setting in seconds, above 0. Raises ConfigurationError."""
    if not value > 0:
        raise ConfigurationError(f"{setting}: {value!r} is not allowed; give seconds above 0")


def is_cut(url: str, ends: str = "/?#") -> bool:
    """Whether something in its password has cut a URL in two: an @ stands where the authority has ended, or twice.

    What follows the cut would be taken for a host, a port or a database, and be shown as such. ends: what ends an
    authority, for the library that reads it. In a query's value an @ is nothing special.
    """
    rest = url.partition("://")[2]
    end = next((place for place, letter in enumerate(rest) if letter in ends), len(rest))
    path, _, query = rest[end:].partition("?")
    return rest[:end].count("@") > 1 or "@" in path or "@" in query.partition("=")[0]


def _shown(value: object) -> str:
    # Python refuses to write an int of more than 4,300 digits.
    return "so big a number" if isinstance(value, int) and abs(value) > 10**100 else repr(value)


def encode_data(data: object) -> str:
    """The JSON text of a job's data; InvalidJob names the path of what JSON or PostgreSQL cannot hold."""
    if not isinstance(data, dict):
        raise InvalidJob(
            f"data: {type(data).__name__} is not a dict; give a dict: its keys are the handler's arguments",
            field="data",
        )
    try:
        text = _encode(data)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidJob(_culprit(data, "data", 1) or f"data: {error}", field="data") from None
    if "e+" in text:
        text = _LARGE_FLOAT.sub(_with_point, text)
    # Keys that are no texts it turns into texts; NUL, lone surrogates and any depth it lets through.
    suspect = "\\u0000" in text or not _is_encodable(text) or not _is_plain(data)
    if suspect and (culprit := _culprit(data, "data", 1)):
        raise InvalidJob(culprit, field="data")
    return text


def _with_point(found: re.Match[str]) -> str:
    # Without a point PostgreSQL gives it back as an int, and not the same number: 1e300 is not 10 ** 300.
    return f"{float(found[1]):.1f}" if found[1] else found[0]


def _is_plain(data: object) -> bool:
    """Whether all keys are texts, and nothing lies deeper than MAX_DEPTH."""
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
                assert isinstance(value, list | tuple)  # nothing else is put into a level
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
        raise InvalidJob(f"{field}: holds half of a surrogate pair, which is no character; take it out", field=field)


def _culprit(data: object, path: str, depth: int) -> str | None:
    """What is wrong with the first bad value inside, and its path; None when nothing is."""
    # No recursion: it would end at a depth that depends on how deep its caller is.
    left: list[tuple[object, str, int]] = [(data, path, depth)]
    while left:
        value, path, depth = left.pop()
        if isinstance(value, _Key):
            found = _bad_key(value.key, path)
        elif depth > MAX_DEPTH and isinstance(value, dict | list | tuple):
            found = f"{path[:80]}...: nested too deep, or within itself; flatten it"
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
    """A key of a dict, in its place before its value."""

    def __init__(self, key: object) -> None:
        self.key = key


def _bad_key(key: object, path: str) -> str | None:
    if not isinstance(key, str):
        return f"{path}: key {key!r} is not a text; JSON objects have texts as keys"
    return _bad_text(key, f"{path} key {key!r}")


def _bad_value(value: object, path: str) -> str | None:
    if isinstance(value, str):
        return _bad_text(value, path)
    if isinstance(value, float) and not math.isfinite(value):
        return f"{path}: {value} is no JSON number; leave it out or give null"
    if isinstance(value, int):
        return _bad_whole_number(value, path)
    if value is None or isinstance(value, float | dict | list | tuple):
        return None
    return f"{path}: {type(value).__name__} is not JSON; give a text, number, bool, None, list or dict"


def _bad_whole_number(value: int, path: str) -> str | None:
    try:
        str(value)
    except ValueError:  # Python writes and reads no more digits than sys.get_int_max_str_digits()
        return f"{path}: has more digits than Python writes; give it as a text"
    return None


def _bad_text(value: str, path: str) -> str | None:
    if "\0" in value:
        return f"{path}: holds a NUL character, which PostgreSQL cannot store; take it out"
    if not _is_encodable(value):
        return f"{path}: holds half of a surrogate pair, which is no character; take it out"
    return None
