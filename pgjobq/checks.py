"""Checks of arguments. Each raises InvalidJob with the name of the field and a hint, unless it says otherwise."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from pgjobq.errors import MAX_DELAY, ConfigurationError, InvalidJob

MAX_REASON = 1000  # characters

_FIRST, _LAST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)


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
    if found := bad_text(value, field):
        raise InvalidJob(found, field=field)


def check_reason(value: object) -> None:
    """Check for None or a text of 1 to MAX_REASON characters."""
    if value is not None:
        check_name("reason", value, "a text that says why, or leave it out", MAX_REASON)


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


def check_result(text: str | None, most: int | None) -> None:
    """Check that a result, as JSON, has at most this many bytes."""
    if text is not None and most is not None and (size := len(text.encode())) > most:
        raise InvalidJob(
            f"result: it has {size} bytes, more than max_result_bytes = {most}; store the large part elsewhere and"
            " return a reference to it",
            field="result",
        )


def is_encodable(text: str) -> bool:
    """Return whether the text has no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_encodable(field: str, value: str) -> None:
    if not is_encodable(value):
        raise InvalidJob(
            f"{field}: contains half of a surrogate pair, which is not a character; remove it", field=field
        )


def bad_text(value: str, path: str) -> str | None:
    """Describe why databases cannot store this text. Return None if they can."""
    if "\0" in value:
        return f"{path}: contains a NUL character, which PostgreSQL cannot store; remove it"
    if not is_encodable(value):
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
